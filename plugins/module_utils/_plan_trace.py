# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``nft`` is told to trace the probes of a walk, and what its trace says of them. Pure.

The table of a trace belongs to the process that made it (``flags owner``): the kernel takes it away when that process ends, however it ends.
"""

from __future__ import annotations

__metaclass__ = type

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

    Data = Dict[str, Any]

TABLE = "kindnet_walk"  # followed by the number of the probe
PRIORITY = -350  # ahead of what others hook, raw of iptables (-300) included
LINE = re.compile(r"trace id (\S+) (\S+) (\S+) (\S+) (packet: |rule |unknown rule |verdict |policy )(.*)\Z")
KIND = re.compile(r"type echo-(request|reply)\b")
VERDICT = re.compile(r"(.*)\(verdict ([^()]*)\)\s*\Z")
COUNTER = re.compile(r"counter packets \d+ bytes \d+ ?")
FINAL = ("accept", "drop", "queue", "stolen")


def table_name(identifier: int) -> str:
    return "%s_%d" % (TABLE, identifier)


def commands(identifier: int, destination: str) -> str:
    """A table that marks the echo requests to ``destination`` and its answers, of one number, and does nothing else."""
    family, icmp = ("ip6", "icmpv6") if ":" in destination else ("ip", "icmp")
    table = table_name(identifier)
    lines = ["add table inet %s { flags owner; }" % table]
    for hook in ("prerouting", "output"):
        lines.append("add chain inet %s %s { type filter hook %s priority %d; policy accept; }" % (table, hook, hook, PRIORITY))
        for end, kind in (("daddr", "echo-request"), ("saddr", "echo-reply")):
            match = "%s %s %s %s type %s %s id %d" % (family, end, destination, icmp, kind, icmp, identifier)
            lines.append("add rule inet %s %s %s meta nftrace set 1" % (table, hook, match))
    return "\n".join(lines) + "\n"


def packets(lines: Iterable[str], hooks: Mapping[Tuple[str, str, str], str], identifier: int) -> List[Data]:
    """What became of each traced packet of one number, whoever else traces here: ``kind`` (request or reply), ``sequence``, and ``chains``, the base
    chains that it went through with the verdict of each and the rule, or the policy, that gave it.

    :param hooks: the hook of each base chain, by family, table and name.
    """
    found: List[Data] = []
    current: Dict[str, Data] = {}  # by the number of the trace, which the kernel gives again once a packet is gone
    hook: Dict[str, str] = {}  # in which each packet is
    own_table = table_name(identifier)
    for line in lines:
        match = LINE.match(line.strip())
        if not match:
            continue
        number, family, table, chain, what, rest = match.groups()
        if table == own_table and what != "packet: ":
            continue
        hook[number] = hooks.get((family, table, chain), hook.get(number, ""))
        if what == "packet: ":
            described = _described(rest)
            if described and described[2] not in (identifier, None):
                current.pop(number, None)
            elif described and described[:2] != _identity(current.get(number)):
                current[number] = {"kind": described[0], "sequence": described[1], "chains": []}
                found.append(current[number])
            continue
        verdict, rule = _verdict(what, rest)
        if verdict in FINAL and number in current:
            current[number]["chains"].append({"table": "%s %s" % (family, table), "chain": chain, "hook": hook[number], "verdict": verdict, "rule": rule})
    return found


def _identity(packet: Optional[Data]) -> Optional[Tuple[str, int]]:
    return (packet["kind"], packet["sequence"]) if packet else None


def _described(text: str) -> Optional[Tuple[str, int, Optional[int]]]:
    """Request or reply, its sequence and its identifier, None if that is not told; None of what is no ping."""
    kind = KIND.search(text)
    its = re.search(r"\bid (\d+) (?:icmp|icmpv6) sequence", text)
    # nft shows the last four bytes of the header by the first name that they may have, which of ICMPv6 is not the one of a ping.
    number = re.search(r"(?:sequence|parameter-problem) (\d+)", text)
    if not kind:
        return None
    sequence = int(number.group(1)) if number else 0
    return kind.group(1), sequence & 0xFFFF, int(its.group(1)) if its else sequence >> 16 or None


def _verdict(what: str, rest: str) -> Tuple[str, str]:
    """The verdict that a line tells, and the rule behind it; the rule is "" where the chain's policy gave it."""
    if what == "policy ":
        return rest.strip(), ""
    match: Optional[Any] = VERDICT.match(rest)
    if not match:
        return rest.strip(), ""
    return match.group(2).strip(), " ".join(COUNTER.sub("", match.group(1)).split())
