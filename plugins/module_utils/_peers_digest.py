# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A digest of a host's recorded peers that the controller can tell in advance for each of a thousand hosts. Pure.

Every host has other peers: all nodes but itself. So the digest is a sum over peers, and what a host ought to have is the sum over all nodes less
what it is itself.
"""

from __future__ import annotations

__metaclass__ = type

import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Sequence

BITS = 64


def weight(node: str, cidr: str, next_hop: str) -> int:
    """What one recorded peer adds to the sum."""
    return int.from_bytes(hashlib.sha256(("%s %s %s" % (node, cidr, next_hop)).encode("utf-8", "surrogatepass")).digest()[: BITS // 8], "big")


def spell(total: int) -> str:
    return "%0*x" % (BITS // 4, total % (1 << BITS))


def digest_of(peers: Iterable[Sequence[str]]) -> str:
    """Of peers as they are recorded: node, pod CIDR, next hop."""
    return spell(sum(weight(*peer) for peer in peers))


def expected(nodes: Sequence[Dict[str, Any]]) -> Dict[str, str]:
    """What each node of a node table ought to have recorded, by its name: see :func:`_wanted_routes.peers_of`, which says it host by host."""
    totals = {4: 0, 6: 0}
    own: Dict[str, Dict[int, int]] = {}
    for node in nodes:
        mine = own.setdefault(node["name"], {4: 0, 6: 0})
        for cidr in node["pod_cidrs"]:
            next_hop = next((ip for ip in node["node_ips"] if (":" in ip) == (":" in cidr)), None)
            if next_hop is not None:
                mine[_family(cidr)] += weight(node["name"], cidr, next_hop)
        for family in totals:
            totals[family] += mine[family]
    return {
        node["name"]: spell(sum(totals[family] - own[node["name"]][family] for family in {_family(ip) for ip in node["node_ips"]})) for node in nodes
    }


def _family(text: str) -> int:
    return 6 if ":" in text else 4
