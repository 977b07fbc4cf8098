# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map of a few nodes: each node a card, from which a line leads down; each route an arrow from line to line, in a lane of its own. Pure."""

from __future__ import annotations

__metaclass__ = type

from typing import Dict, List, NamedTuple, Tuple

from markupsafe import Markup

from ._canvas import Canvas, width_of
from ._map import MISSING, Map, MapNode, Route, label
from ._map_fold import end_of

MOST_PODS = 6
LANE, LINE, PAD, GAP = 32, 17, 12, 50
NARROWEST, WIDEST = 210, 320
FONT, NAME = 12, 14


class Line(NamedTuple):
    """A line of a card."""

    text: str
    kind: str = ""
    size: float = FONT
    indent: float = 0
    ruled: bool = False  # a rule above it


def draw_lanes(found: Map) -> Markup:
    canvas = Canvas()
    routes = [r for n in found.nodes for r in n.routes]
    cards = [(n.name, _card(n), "card" if n.looked_at else "card unseen") for n in found.nodes]
    if any(not end_of(r) for r in routes):
        cards.append(("", [Line("elsewhere", "name", NAME), Line("an address of no node,", "muted"), Line("or none at all", "muted")], "card elsewhere"))
    height = 2 * PAD + LINE * max(len(lines) for _name, lines, _kind in cards)
    x = 2.0
    at: Dict[str, float] = {}
    places: List[Tuple[float, float]] = []
    for name, lines, _kind in cards:
        width = min(max(NARROWEST, *(width_of(line.text, line.size) + line.indent + 2 * PAD for line in lines)), WIDEST) if name else NARROWEST - 10
        at[name] = x + width / 2
        places.append((x, width))
        x += width + GAP
    bottom = height + 16 + LANE * len(routes) + 8 * (len(found.nodes) - 1)
    for center in at.values():
        canvas.line([(center, height), (center, bottom)], "life")
    for (left, width), (_name, lines, kind) in zip(places, cards):
        canvas.rect(left, 2, width, height - 2, kind, 6)
        for i, line in enumerate(lines):
            bottom_of_line = PAD + LINE * (i + 1)
            if line.ruled:
                canvas.line([(left, bottom_of_line - LINE + 3), (left + width, bottom_of_line - LINE + 3)], "life")
            canvas.text(left + PAD + line.indent, bottom_of_line - 2, line.text, line.kind, width - 2 * PAD - line.indent, line.size)
    y = height + 26.0
    for node in found.nodes:
        for route in node.routes:
            _lane(canvas, route, at[route.source], at[end_of(route)], y)
            y += LANE
        y += 8
    return canvas.render("Routes of %d nodes" % len(found.nodes))


def _card(node: MapNode) -> List[Line]:
    lines = [Line(node.name, "name", NAME)]
    lines += [Line(ip) for ip in node.node_ips] or [Line("address unknown", "muted")]
    lines += [Line("pods %s" % cidr) for cidr in node.pod_cidrs] or [Line("pod CIDR unknown", "muted")]
    lines.append(Line(node.summary, "muted" if node.looked_at and node.right == node.wanted else "on unknown" if not node.looked_at else "on wrong"))
    for i, pod in enumerate(node.pods[:MOST_PODS]):
        lines += [Line("%s %s" % (pod.name, " ".join(pod.ips)), ruled=i == 0), Line(pod.interface or "no veth", "muted", indent=12)]
    if len(node.pods) > MOST_PODS:
        lines.append(Line("and %d more pods" % (len(node.pods) - MOST_PODS), "muted"))
    return lines


def _lane(canvas: Canvas, route: Route, start: float, end: float, y: float) -> None:
    canvas.path("M%d %dm-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z" % (start, y), "fill " + route.state)
    canvas.arrow(start, end, y, route.state)
    text = label(route)
    if route.state not in text:
        text = "%s: %s" % (route.state, text) if route.state != "right" else text
    left = start + 12 if end > start else max(start - 12 - 14 - width_of(text, FONT), 4)
    canvas.symbol(left + 4, y - 11, route.state)
    canvas.text(left + 14, y - 7, text, "halo on " + route.state, size=FONT)
    if route.state == MISSING:
        canvas.symbol(end + (-20 if end > start else 20), y, route.state)
