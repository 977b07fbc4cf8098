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

# So many sources and targets are a table of numbers, and so many one of signs.
FEW, MANY, MOST_LOST = 8, 60, 200
CELL, LINE, MOST_WIDTH = 14, 18, 190
WORDS = {RIGHT: "arrives", WRONG: "arrives in part", MISSING: "is lost", UNKNOWN: "was not sent"}


class Pair(NamedTuple):
    source: str
    target: str
    state: str
    text: str  # such as "0.21 ms" or "2 of 3 lost"


class Reachability(NamedTuple):
    generated: str
    mode: str
    asked: int
    lost: Tuple[Pair, ...]  # of which something is lost, the worst first, at most so many
    left_out: int  # how many more there are
    targets: Tuple[str, ...]
    rows: Tuple[Tuple[str, Tuple[Pair, ...]], ...]  # numbers, by source; empty if they are too many
    drawing: Optional[Markup]  # signs, if they are not


def reachability_of(report: Mapping[str, Any]) -> Optional[Reachability]:
    found = report.get("reachability")
    if not found:
        return None
    sources, targets = ([str(n) for n in found.get(key) or ()] for key in ("sources", "targets"))
    pairs: Dict[Tuple[str, str], Pair] = {}
    for result in found.get("results") or ():
        pair = _pair(result)
        pairs[pair.source, pair.target] = pair
    lost = sorted((p for p in pairs.values() if p.state in (MISSING, WRONG)), key=lambda p: p.state != MISSING)
    largest = max(len(sources), len(targets))
    rows = tuple((s, tuple(pairs.get((s, t), Pair(s, t, UNKNOWN, "")) for t in targets)) for s in sources) if largest <= FEW else ()
    drawing = _draw(sources, targets, pairs) if FEW < largest <= MANY else None
    return Reachability(
        str(found.get("generated") or ""),
        str(found.get("mode") or ""),
        len(pairs),
        tuple(lost[:MOST_LOST]),
        len(lost[MOST_LOST:]),
        tuple(targets),
        rows,
        drawing,
    )


def _pair(result: Mapping[str, Any]) -> Pair:
    sent, received = int(result.get("sent") or 0), int(result.get("received") or 0)
    state = UNKNOWN if not sent else RIGHT if received >= sent else WRONG if received else MISSING
    rtt = result.get("rtt_ms")
    words = ["%d of %d lost" % (sent - received, sent)] if state in (MISSING, WRONG) else []
    if isinstance(rtt, (int, float)) and received:
        words.append("%.2f ms" % rtt)
    return Pair(str(result.get("source", "")), str(result.get("target", "")), state, ", ".join(words) or WORDS[state])


def _draw(sources: Sequence[str], targets: Sequence[str], pairs: Mapping[Tuple[str, str], Pair]) -> Markup:
    canvas = Canvas()
    left = min(max(map(width_of, sources), default=0), MOST_WIDTH) + 18
    top = min(max(map(width_of, targets), default=0), 140) + 34
    x = 10.0
    for state, words in WORDS.items():
        canvas.symbol(x, 10, state)
        x = canvas.text(x + 10, 14, words) + 24
    for k, target in enumerate(targets):
        canvas.text(left + k * CELL + CELL / 2 + 4, top - 6, target, "", 140, up=True)
    calm: Dict[str, List[str]] = {RIGHT: [], UNKNOWN: []}
    for i, source in enumerate(sources):
        y = top + i * LINE
        if i % 2 == 0:
            canvas.rect(0, y, left + len(targets) * CELL + 2, LINE, "stripe")
        canvas.text(4, y + 13, source, "name", MOST_WIDTH)
        for k, target in enumerate(targets):
            pair = pairs.get((source, target))
            cx, cy = left + k * CELL + CELL / 2, y + LINE / 2
            if pair and pair.state in (MISSING, WRONG):
                canvas.symbol(cx, cy, pair.state, "%s to %s: %s" % (source, target, pair.text))
            elif pair or source != target:
                state = pair.state if pair else UNKNOWN
                calm[state].append(canvas.outline(cx, cy, state))
    for state, outlines in calm.items():
        canvas.path("".join(outlines), "symbol " + state)
    return canvas.render("Who reaches whom: %d of %d pairs lose packets" % (sum(p.state in (MISSING, WRONG) for p in pairs.values()), len(pairs)))
