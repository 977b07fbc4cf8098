# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backend ``auto`` takes, and why. Looks through the rules of others, so a pass never asks."""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from . import _nftables
from ._firewall import BACKENDS, default_flavour
from ._plan_chain import FLAVOURS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

    class Today(NamedTuple):
        """What would be decided now if there was no chain of ours yet."""

        backend: str
        why: str
        split: str  # a sentence if the rules of others are in both flavours of iptables
else:
    Today = namedtuple("Today", "backend why split")

REMEDY = (
    "A packet passes both, so what one of them masquerades is so whatever the other says;"
    " let all programs use one (update-alternatives --display iptables)."
)


def backend_today(chains: Collection[str], iptables_predicted: bool) -> Today:
    """The backend that the rules of others use (kube-proxy's, Docker's): the flavour of iptables with more of them, else nftables if native nat
    chains have some. With none anywhere it is what plain ``iptables`` is, and nftables on a host without iptables.

    :param chains: names of ours, which count for nothing.
    :param iptables_predicted: the same play would install iptables if it is missing.
    """
    counts = {"iptables-%s" % flavour: BACKENDS[flavour].count_others(chains) for flavour in FLAVOURS}
    native = _nftables.count_others()
    why = ", ".join("%d rules and chains of others in %s" % (counts[backend], backend) for backend in counts)
    why += ", %d rules of others in native nat chains" % native
    split = "the rules of others are split over both flavours of iptables: %s. %s" % (why, REMEDY) if all(counts.values()) else ""
    if len(set(counts.values())) > 1:
        return Today(max(counts, key=lambda backend: counts[backend]), why, split)
    if native and not any(counts.values()):
        return Today("nftables", why, split)
    default: Optional[str] = default_flavour()
    if default:
        return Today("iptables-%s" % default, "%s; plain iptables is iptables-%s" % (why, default), split)
    if _nftables.installed() and not iptables_predicted:
        return Today("nftables", why + "; iptables is not installed, nft is", split)
    return Today("iptables-nft", why + "; iptables is not installed", split)


def reason(section: Dict[str, Any]) -> Tuple[str, List[str]]:
    """Why the backend is the one that it is, and what somebody should know of it."""
    if not section.get("auto"):
        return "it was asked for", []
    chains = {section["chain"], *(chain for _unused, chain in section.get("former", ()))}
    today = backend_today(chains, section["backend"] != "nftables")
    notes = [today.split] if today.split else []
    if today.backend == section["backend"]:
        return "auto: %s" % today.why, notes
    note = "backend: %s it stays, where the chain has been; without one auto would choose %s today: %s" % (section["backend"], today.backend, today.why)
    return "auto: the chain has been there", [note, *notes]
