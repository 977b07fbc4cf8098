# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which peers a new node table would lose, and which it would renumber. Pure; asked in a converge only."""

from __future__ import annotations

__metaclass__ = type

from ._route import address_text, cidr_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Sequence, Tuple

    from ._node_table import Node
    from ._route import Route


def removal_guard(
    recorded: Sequence[Sequence[str]],
    wanted: Sequence[Sequence[str]],
    own: Iterable[Route],
    max_removals: Optional[int],
    meant: Sequence[str] = (),
) -> Tuple[List[str], int, bool]:
    """Which peers a change of the table would lose, how many may be lost, and whether that would be every one there was.

    A peer is lost when its name is gone and so is one of its pod CIDRs; a host that is renamed, or that has another address or
    pod CIDR, is not lost. A route of ours whose next hop nobody knows stands for a peer as well.

    :param meant: peers that are meant to go, by name. They do not count.
    """
    names = {name for name, _cidr, _hop in wanted}
    cidrs = {cidr for _name, cidr, _hop in wanted}
    before: Dict[str, bool] = {}  # peer: still wanted
    for name, cidr, _hop in recorded:
        if name in meant:
            continue
        before[name] = before.get(name, True) and (name in names or cidr in cidrs)
    known = {hop for _name, _cidr, hop in recorded} | {hop for _name, _cidr, hop in wanted}
    strangers: Dict[str, List[str]] = {}
    for route in own:
        dst, hop = cidr_text(route), address_text(route.family, route.hops[0].gateway if route.hops else route.gateway)
        if not hop:
            continue
        if dst not in cidrs and hop not in known:
            strangers.setdefault(hop, []).append(dst)
        elif not recorded:
            before.setdefault(hop, True)
    lost = sorted(name for name, kept in before.items() if not kept)
    lost += ["%s via %s" % (", ".join(sorted(dsts)), hop) for hop, dsts in sorted(strangers.items())]
    total = len(before) + len(strangers)
    allowed = max(2, total // 10) if max_removals is None else max_removals
    return lost, allowed, bool(lost) and len(lost) == total


def renumbered(recorded: Sequence[Sequence[str]], nodes: Iterable[Node], meant: Sequence[str]) -> Dict[str, List[str]]:
    """The recorded pod CIDRs that peers have no more, by the names of those that stay.

    :param meant: peers of which it is known that it costs no pod its network.
    """
    now = {node.name: node.pod_cidrs for node in nodes if node.name not in meant}
    given_up: Dict[str, List[str]] = {}
    for name, cidr, _hop in recorded:
        if name in now and cidr not in now[name]:
            given_up.setdefault(name, []).append(cidr)
    return given_up
