# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map as SVG. Pure.

Of a few nodes, every route is an arrow (:mod:`_map_lanes`). Arrows between many nodes would be a tangle: of those, what stands out is drawn as arrows,
one below the other, and a table tells of each pair of nodes by a sign.
"""

from __future__ import annotations

__metaclass__ = type

from typing import Dict, List, Mapping, Sequence, Tuple

from markupsafe import Markup

from ..module_utils._node_table import shorten
from ._canvas import FONT, Canvas, width_of
from ._map import STATES, Map, MapNode
from ._map_fold import Bundle, Cell, Piece, bundles, cells, fits_each_route, pieces
from ._map_lanes import draw_lanes

MOST_BUNDLES = 24

# Of the drawing of what stands out.
BOX, ARROW, ROW = 230, 680, 46
# Of the table.
CELL, LINE, GAP = 14, 18, 14
MOST_WIDTH = 190


def svg(found: Map) -> Markup:
    """One or more drawings, with their captions."""
    if not found.nodes:
        return Markup('<p class="muted">There is no node to draw.</p>')
    if fits_each_route(found):
        return _figure(draw_lanes(found), "Every route of every node as an arrow. Below a pod's name is the host's end of its veth.")
    drawings = []
    if found.findings:
        drawings.append(_figure(_draw_findings(found), "The routes that stand out, as arrows to where they lead, or should."))
    return Markup("\n").join([*drawings, _draw_table(found)])


def _figure(drawing: Markup, caption: str) -> Markup:
    return Markup('<figure class="map"><figcaption>%s</figcaption><div class="scroll" tabindex="0" role="region" aria-label="%s">%s</div></figure>') % (
        caption,
        caption,
        drawing,
    )


def _draw_findings(found: Map) -> Markup:
    canvas = Canvas()
    nodes = {n.name: n for n in found.nodes}
    bundled = bundles(found.findings)
    y = 4.0
    above: Sequence[str] = ()
    for bundle in bundled[:MOST_BUNDLES]:
        if bundle.sources != above:
            y += 6 if above else 0
            _box(canvas, 2, y, bundle.sources, nodes)
        above = bundle.sources
        middle = y + ROW / 2 + 2
        canvas.arrow(BOX + 4, BOX + ARROW - 4, middle, bundle.state)
        canvas.symbol(BOX + 20, middle - 11, bundle.state)
        canvas.text(BOX + 32, middle - 7, _worded(bundle), "on " + bundle.state, ARROW - 46)
        _box(canvas, BOX + ARROW, y, bundle.targets, nodes)
        y += ROW
    if len(bundled) > MOST_BUNDLES:
        canvas.text(4, y + 16, "and %d more: see the hosts below" % (len(bundled) - MOST_BUNDLES), "muted")
    return canvas.render("Routes that stand out: %d" % len(found.findings))


def _worded(bundle: Bundle) -> str:
    return bundle.text if bundle.state in bundle.text else "%s: %s" % (bundle.state, bundle.text)


def _box(canvas: Canvas, x: float, y: float, names: Sequence[str], nodes: Dict[str, MapNode]) -> None:
    name, under = ", ".join(n or "elsewhere" for n in names), ""
    if len(names) > 1:
        name, under = "%d nodes" % len(names), shorten([n or "elsewhere" for n in names], 2)
    elif names[0] in nodes:
        node = nodes[names[0]]
        under = "  ".join([*node.node_ips[:1], *node.pod_cidrs[:1]])
    else:
        under = "an address of no node"
    canvas.rect(x, y + 3, BOX - 2, ROW - 6, "card" if names[0] in nodes else "card elsewhere", 5)
    canvas.text(x + 9, y + 20, name, "name", BOX - 20, 12)
    canvas.text(x + 9, y + 35, under, "muted", BOX - 20)


def _draw_table(found: Map) -> Markup:
    rows = pieces(found)
    table = cells(found, rows)
    canvas = Canvas()
    columns = [
        [r.name for r in rows],
        [r.address for r in rows],
        [r.pod_cidrs for r in rows],
        ["%d pods" % sum(len(n.pods) for n in r.nodes) if r.looked_at else "" for r in rows],
        [r.summary for r in rows],
    ]
    lefts, x = [], 4.0
    for column in columns:
        lefts.append(x)
        x += min(max(map(width_of, column)), MOST_WIDTH) + GAP
    # A group is known by its network; as every group is so many nodes.
    heads = [r.address if r.is_group else r.name for r in rows]
    top = min(max(map(width_of, heads)), 140) + 34
    _legend(canvas, found)
    for k, head in enumerate(heads):
        canvas.text(x + k * CELL + CELL / 2 + 4, top - 6, head, "muted" if rows[k].is_group else "", 140, up=True)
    for i, row in enumerate(rows):
        y = top + i * LINE
        if i % 2 == 0:
            canvas.rect(0, y, x + len(rows) * CELL + 2, LINE, "stripe")
        for left, column, kind in zip(lefts, columns, ("name", "", "", "muted", _kind(row))):
            canvas.text(left, y + 13, column[i], kind, MOST_WIDTH)
    _signs(canvas, rows, table, x, top)
    text = "From the node of a row to the pods of the node of a column. Pods are listed with their veths under Hosts."
    if any(r.is_group for r in rows):
        text += " Nodes without a route that stands out are in groups, by their network."
    return _figure(canvas.render("Routes between %d nodes" % len(found.nodes)), text)


def _kind(row: Piece) -> str:
    if not row.looked_at:
        return "on unknown"
    return "muted" if all(n.right == n.wanted for n in row.nodes) else "on wrong"


def _signs(canvas: Canvas, rows: Sequence[Piece], table: Mapping[Tuple[int, int], Cell], x: float, top: float) -> None:
    calm: Dict[str, List[str]] = {"right": [], "unknown": []}
    for (i, k), cell in sorted(table.items()):
        cx, cy = x + k * CELL + CELL / 2, top + i * LINE + LINE / 2
        if cell.findings:
            title = "%s to %s: %d %s" % (rows[i].name, rows[k].name, len(cell.findings), cell.state)
            canvas.symbol(cx, cy, cell.state, title)
        else:
            calm[cell.state].append(canvas.outline(cx, cy, cell.state))
    for state, outlines in calm.items():
        canvas.path("".join(outlines), "symbol " + state)


def _legend(canvas: Canvas, found: Map) -> None:
    x = 10.0
    for state in STATES:
        number = sum(r.state == state for r in found.findings)
        canvas.symbol(x, 10, state)
        x = canvas.text(x + 10, 14, "%s %d" % (state, number) if number else {"unknown": "not known"}.get(state, state), "", 0, FONT) + 24
