# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rule of this host's nat tables gives a packet another source. Reads through all of nat, so a pass never asks."""

from __future__ import annotations

__metaclass__ = type

import re

from . import _nftables
from ._firewall import BACKENDS, legacy_tables, nft_has
from ._packet_rules import NatChains
from ._plan_chain import FLAVOURS, POSTROUTING, Place, command
from ._plan_translation import Packet, iptables_hook, nft_hooks, translation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Sequence

    from ._lookups import Namespace

    Data = Dict[str, Any]

LOCK_WAIT = 5  # seconds
TO_SOURCE = {4: re.compile(r"--to-source ([0-9.]+)(?![-0-9.])"), 6: re.compile(r"--to-source \[?([0-9a-f:]+)(?![-0-9a-f:])")}  # one address, not a range


def of_lookups(found: Sequence[Data], namespace: Namespace, family: int) -> None:
    """Add to each lookup that leads out of the host what its packet's source becomes: ``translation``."""
    leaving = [entry for entry in found if not entry["error"] and entry["type"] == "unicast"]
    if not leaving:
        return
    lists = {flavour: BACKENDS[flavour].read_nat("ipv%d" % family, LOCK_WAIT) for flavour in FLAVOURS}
    unread = [_where(flavour, family) + POSTROUTING for flavour in FLAVOURS if not lists[flavour] and _is_there(flavour, family)]
    chains = NatChains(_nftables.nat_ruleset(with_own=True))
    native = {is_own: nft_hooks(chains, family, is_own) for is_own in (False, True)}
    for entry in leaving:
        is_own = not entry["iif"]
        hooks = native[is_own] + [
            iptables_hook(_where(flavour, family), lists[flavour], family, is_own)
            for flavour in FLAVOURS
            if lists[flavour]
        ]
        said = translation(hooks, Packet(entry["source"], entry["destination"], entry["iif"], entry["dev"]))
        entry["translation"] = {"by": said.by, "rule": said.rule, "doubts": unread + list(said.doubts), "source": ""}
        to = TO_SOURCE[family].search(said.rule)
        if to:
            entry["translation"]["source"] = to.group(1)
    masqueraded = [entry for entry in leaving if entry["translation"]["by"] == "MASQUERADE"]
    # What the kernel takes is the address by which it would reach the next hop itself.
    answers = namespace.ask(["route get %s oif %s" % (entry["via"] or entry["destination"], entry["dev"]) for entry in masqueraded])
    for entry, (route, _why) in zip(masqueraded, answers):
        entry["translation"]["source"] = route[0].get("prefsrc", "") if route else ""


def _where(flavour: str, family: int) -> str:
    return "%s -t nat " % command(Place(flavour, "ipv%d" % family))


def _is_there(flavour: str, family: int) -> bool:
    """Whether the kernel has nat rules of a flavour, whoever made them. A program in a container needs no iptables on the host for that."""
    return nft_has("ipv%d" % family, "nat", POSTROUTING) if flavour == "nft" else "nat" in legacy_tables("ipv%d" % family)
