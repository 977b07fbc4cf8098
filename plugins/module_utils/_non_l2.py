# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that are not on-link: what is to become of their routes. Asked in a converge only, and recorded, so that passes keep to it.

kindnetd routes by the peer's own address or not at all, and stops at the first one that the kernel refuses.
"""

from __future__ import annotations

__metaclass__ = type

from ._errors import KindnetError
from ._route import packed
from ._wanted_routes import FAIL, ONLINK, SKIP, VIA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Sequence

    from ._on_link import OnLink

    Gateways = Callable[[str, int], str]  # of a peer and a family; "" if there is none

MODES = (FAIL, SKIP, ONLINK, VIA)


def decide(
    mode: str, peers: Sequence[Sequence[str]], on_link: OnLink, gateway_of: Gateways, interface_to: Callable[[str], str]
) -> Dict[str, List[str]]:
    """What is recorded: by address, how to reach each of ``peers`` that is not on-link. Pure.

    :param interface_to: the interface by which this host reaches an address; "" if there is none.
    """
    decided: Dict[str, List[str]] = {}
    for node, _cidr, address in peers:
        family, number = packed(address)
        if address in decided or not on_link.is_elsewhere(family, number):
            continue
        if mode == SKIP:
            decided[address] = [SKIP]
        elif mode == VIA:
            decided[address] = [VIA, gateway_of(node, family)]
        elif mode == ONLINK:
            decided[address] = [ONLINK, interface_to(address)]
    return decided


def parse_gateways(value: Any) -> Gateways:
    """``non_l2_gateways``: an address, a list with one for each family, or either of them by peer."""
    by_node: Dict[str, Dict[int, str]] = {}
    for_all: Dict[int, str] = {}
    if isinstance(value, dict):
        for node, addresses in value.items():
            by_node[str(node)] = _by_family("non_l2_gateways of %s" % node, addresses)
    elif value is not None:
        for_all = _by_family("non_l2_gateways", value)

    def gateway_of(node: str, family: int) -> str:
        return by_node.get(node, for_all).get(family, "")

    return gateway_of


def parse_interface(value: Any) -> str:
    """The name of an interface; "" if none is given. It need not be there yet."""
    name = value or ""
    if len(name.encode()) > 15 or name in (".", "..") or any(c in "/:" or c.isspace() or not c.isprintable() for c in name):
        raise KindnetError("non_l2_interface", ascii(name), "is not the name of an interface", "Write one such as eth0, without an address or a path.")
    return str(name)


def _by_family(field: str, value: Any) -> Dict[int, str]:
    from ._node_table import parse_address

    addresses = value if isinstance(value, (list, tuple)) else [value]
    found: Dict[int, str] = {}
    for address in addresses:
        text = parse_address(field, address).text
        family = packed(text)[0]
        if family in found:
            raise KindnetError(
                field, text, "is a second address of its family, beside %s" % found[family], "Give one gateway per family; by peer, write a mapping."
            )
        found[family] = text
    if not found:
        raise KindnetError(field, "[]", "names no gateway", "Give the address of a router in the network of this host, such as 172.18.0.1.")
    return found
