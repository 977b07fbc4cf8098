# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map as Mermaid, for documents: what GitHub, GitLab and many wikis draw from text. Pure."""

from __future__ import annotations

__metaclass__ = type

import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..module_utils._node_table import shorten
from ._canvas import ADVANCE, fit, visible
from ._map import MISSING, UNKNOWN, Map, MapNode, map_of
from ._map_fold import Bundle, Piece, arrows, groups

# Of so many nodes each is drawn, and of so few each route, too. Mermaid refuses texts of 50,000 characters and 500 arrows, and nobody could read them.
MOST_BOXES, MOST_ARROWS, MOST_PODS, MOST_TEXT = 12, 60, 6, 120

ARROWS = {"right": "-->", "missing": "-.->", "wrong": "==>", "foreign": "==>", "unknown": "-.->"}
COLOURS = {"missing": "#b3261e", "wrong": "#b26a00", "foreign": "#6a3ab2", "unknown": "#78828c"}

# Nothing else is left as it is: Mermaid reads brackets and quotes, Markdown, and HTML within labels.
_SPECIAL = re.compile(r"[^A-Za-z0-9 .:/,_-]")


def mermaid(report: Mapping[str, Any]) -> str:
    """The map of ``report``, which is the content of drift.json, as the text of a Mermaid flowchart."""
    return mermaid_of(map_of(report))


def mermaid_of(found: Map) -> str:
    wanted = arrows(found)
    drawn = wanted[:MOST_ARROWS]
    sheet = _Sheet()
    named = {name for arrow in drawn for names in (arrow.sources, arrow.targets) if len(names) == 1 for name in names}
    alone = [n for n in found.nodes if len(found.nodes) <= MOST_BOXES or n.name in named]
    for node in alone:
        sheet.node(node, len(found.nodes) <= MOST_BOXES)
    for piece in groups([n for n in found.nodes if n not in alone]):
        sheet.piece(piece)
    for arrow in drawn:
        sheet.arrow(arrow)
    if len(wanted) > len(drawn):
        sheet.box("and %d more arrows" % (len(wanted) - len(drawn)))
    return sheet.text()


def _quoted(lines: Sequence[str]) -> str:
    texts = [_SPECIAL.sub(lambda m: "#%d;" % ord(m.group()), " ".join(fit(visible(line), MOST_TEXT, 1 / ADVANCE).split())) for line in lines]
    return '"%s"' % "<br/>".join(texts)


class _Sheet:
    """What is drawn. Names of nodes are texts alone: what Mermaid knows them by is counted."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.ids: Dict[str, str] = {}
        self.links: List[str] = []
        self.colours: List[Tuple[int, str]] = []
        self.unseen: List[str] = []

    def box(self, *texts: str) -> str:
        name = "b%d" % len(self.lines)
        self.lines.append("  %s[%s]" % (name, _quoted(texts)))
        return name

    def node(self, node: MapNode, with_pods: bool) -> None:
        name = "n%d" % len(self.ids)
        self.ids[node.name] = name
        texts = [node.name, ", ".join(node.node_ips), "pods %s" % ", ".join(node.pod_cidrs), node.summary]
        if not node.looked_at:
            self.unseen.append(name)
        pods = node.pods[:MOST_PODS] if with_pods else ()
        if not pods:
            self.lines.append("  %s[%s]" % (name, _quoted(texts)))
            return
        self.lines.append("  subgraph %s[%s]" % (name, _quoted(texts)))
        for i, pod in enumerate(pods):
            self.lines.append("    %sp%d(%s)" % (name, i, _quoted(["%s %s" % (pod.name, " ".join(pod.ips)), pod.interface])))
        if len(node.pods) > len(pods):
            self.lines.append("    %sp%d(%s)" % (name, len(pods), _quoted(["and %d more pods" % (len(node.pods) - len(pods))])))
        self.lines.append("  end")

    def piece(self, piece: Piece) -> None:
        name = self.box(piece.name, piece.address, piece.summary)
        if not piece.looked_at:
            self.unseen.append(name)

    def arrow(self, arrow: Bundle) -> None:
        source, target = (self._end(names) for names in (arrow.sources, arrow.targets))
        if arrow.state in COLOURS:
            self.colours.append((len(self.links), COLOURS[arrow.state]))
        text = arrow.text if arrow.state in (MISSING, UNKNOWN, "right") else "%s: %s" % (arrow.state, arrow.text)
        self.links.append("  %s %s|%s| %s" % (source, ARROWS[arrow.state], _quoted([text]), target))

    def _end(self, names: Sequence[str]) -> str:
        if len(names) == 1 and names[0] in self.ids:
            return self.ids[names[0]]
        key = "\n".join(names)  # no name of a node
        if key not in self.ids:
            texts = ["%d nodes" % len(names), shorten([n or "elsewhere" for n in names], 4)] if len(names) > 1 else ["elsewhere", "an address of no node"]
            self.ids[key] = self.box(*texts)
        return self.ids[key]

    def text(self) -> str:
        lines = ["flowchart LR", *self.lines, *self.links]
        lines += ["  linkStyle %d stroke:%s,color:%s" % (i, colour, colour) for i, colour in self.colours]
        lines += ["  style %s stroke-dasharray:4 3" % name for name in self.unseen]
        return "\n".join(lines) + "\n"
