# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches whom, out of a report, in the form that fits how many they are: numbers, signs, or what is lost alone. Pure."""

from __future__ import annotations

__metaclass__ = type

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from markupsafe import Markup

from ._canvas import Canvas, width_of
from ._map import MISSING, RIGHT, UNKNOWN, WRONG
from ._plan_reachability import groups
from ._reachability_text import total

# Up to so many hosts a matrix is of numbers, up to so many of signs; and so many pairs are named.
FEW, MANY, MOST_LOST = 8, 60, 200
NEEDED = ("kind", "source", "source_host", "target", "target_host", "address", "sent", "received")
CELL, LINE, MOST_WIDTH = 14, 18, 190
WORDS = {RIGHT: "arrives", WRONG: "arrives in part", MISSING: "is lost", UNKNOWN: "was not sent"}


class Pair(NamedTuple):
    source: str
    target: str
    state: str
    text: str  # such as "0.21 ms" or "2 of 3 lost"


class Matrix(NamedTuple):
    """One kind of pairs in one family; its rows ask, its columns are asked."""

    title: str
    rows: Tuple[Tuple[str, Tuple[Pair, ...]], ...]  # numbers, by source; empty if they are too many
    drawing: Optional[Markup]  # signs, if they are not


class Reachability(NamedTuple):
    generated: str
    mode: str
    hosts: Tuple[str, ...]
    asked: int  # pairs
    matrices: Tuple[Matrix, ...]
    lost: Tuple[Pair, ...]  # of which something is lost, or that could not be asked, the worst first, at most so many
    left_out: int  # how many more there are
    unknown: Tuple[str, ...]  # what is not in there, and why


def reachability_of(report: Mapping[str, Any]) -> Optional[Reachability]:
    found = report.get("reachability")
    if not found:
        return None
    hosts = tuple(str(name) for name in found.get("hosts") or ())
    results = [{"rtt_ms": None, **r} for r in found.get("results") or () if all(r.get(key) is not None for key in NEEDED)]
    pairs = [_pair(result, "source", "target") for result in results]
    lost = sorted((p for p in pairs if p.state != RIGHT), key=lambda p: (MISSING, WRONG, UNKNOWN).index(p.state))
    unasked = ["%s was not asked: %s" % (one.get("host"), one.get("message")) for one in found.get("not_asked") or ()]
    return Reachability(
        str(found.get("generated") or ""),
        str(found.get("mode") or ""),
        hosts,
        len(pairs),
        tuple(_matrix(hosts, total(kind, six, some), some) for kind, six, some in groups(results)),
        tuple(lost[:MOST_LOST]),
        len(lost[MOST_LOST:]),
        (*unasked, *map(str, found.get("not_tried") or ())),
    )


def _matrix(hosts: Sequence[str], title: str, results: Sequence[Mapping[str, Any]]) -> Matrix:
    pairs = {(p.source, p.target): p for p in (_pair(result, "source_host", "target_host") for result in results)}
    if len(hosts) > MANY:
        return Matrix(title, (), None)
    if len(hosts) > FEW:
        return Matrix(title, (), _draw(hosts, title, pairs))
    return Matrix(title, tuple((s, tuple(pairs.get((s, t), Pair(s, t, UNKNOWN, "")) for t in hosts)) for s in hosts), None)


def _pair(result: Mapping[str, Any], source: str, target: str) -> Pair:
    sent, received = int(result["sent"]), int(result["received"])
    state = UNKNOWN if not sent else RIGHT if received >= sent else WRONG if received else MISSING
    words = ["%d of %d lost" % (sent - received, sent)] if state in (MISSING, WRONG) else []
    if result["rtt_ms"] is not None and received:
        words.append("%.2f ms" % result["rtt_ms"])
    return Pair(str(result[source]), str(result[target]), state, ", ".join(words) or WORDS[state])


def _draw(hosts: Sequence[str], title: str, pairs: Mapping[Tuple[str, str], Pair]) -> Markup:
    canvas = Canvas()
    left = min(max(map(width_of, hosts)), MOST_WIDTH) + 18
    top = min(max(map(width_of, hosts)), 140) + 34
    x = 10.0
    for state, words in WORDS.items():
        canvas.symbol(x, 10, state)
        x = canvas.text(x + 10, 14, words) + 24
    for k, target in enumerate(hosts):
        canvas.text(left + k * CELL + CELL / 2 + 4, top - 6, target, "", 140, up=True)
    calm: Dict[str, List[str]] = {RIGHT: [], UNKNOWN: []}
    for i, source in enumerate(hosts):
        y = top + i * LINE
        if i % 2 == 0:
            canvas.rect(0, y, left + len(hosts) * CELL + 2, LINE, "stripe")
        canvas.text(4, y + 13, source, "name", MOST_WIDTH)
        for k, target in enumerate(hosts):
            pair = pairs.get((source, target))
            cx, cy = left + k * CELL + CELL / 2, y + LINE / 2
            if pair and pair.state in (MISSING, WRONG):
                canvas.symbol(cx, cy, pair.state, "%s to %s: %s" % (source, target, pair.text))
            elif pair or source != target:
                state = pair.state if pair else UNKNOWN
                calm[state].append(canvas.outline(cx, cy, state))
    for state, outlines in calm.items():
        canvas.path("".join(outlines), "symbol " + state)
    return canvas.render("Who reaches whom, " + title)
