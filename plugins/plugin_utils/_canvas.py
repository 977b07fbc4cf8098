# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sheet of SVG: shapes with a class, which the page's style gives a colour, and texts that are known to fit. Pure.

Every text goes through one place, which escapes it. Nothing has an id or a style of its own, so the page's policy has nothing to allow.
"""

from __future__ import annotations

__metaclass__ = type

import unicodedata
from typing import Any, Dict, List, Sequence, Tuple

from markupsafe import Markup

# The page sets texts of a map in a monospaced font. None of the common ones is wider than this, as a part of its size.
ADVANCE = 0.62
FONT = 11


def width_of(text: str, size: float = FONT) -> float:
    """The width of ``text`` in pixels, at most."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text) * size * ADVANCE


def fit(text: str, width: float, size: float = FONT) -> str:
    """``text``, without its middle if it is wider than ``width``: names and addresses differ at their ends."""
    if width_of(text, size) <= width:
        return text
    most = max(int(width / (size * ADVANCE)) - 1, 2)
    if width_of(text, size) > len(text) * size * ADVANCE:
        most = max(most // 2, 2)  # some of it is of double width
    return "%s\N{HORIZONTAL ELLIPSIS}%s" % (text[: most - most // 2], text[-(most // 2) :])


def visible(value: Any) -> str:
    """Text in which nothing hides: neither control characters nor what turns the direction of the rest."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if c not in "\n\t" and unicodedata.category(c).startswith("C") else c for c in text)


class Canvas:
    """What is drawn, in the order in which it was; knows how large a sheet it takes."""

    def __init__(self) -> None:
        self.marks: List[Markup] = []
        self.width = self.height = 0.0

    def rect(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 0) -> None:
        self._grow(x + width, y + height)
        round_ = Markup(' rx="%s"') % _n(radius) if radius else ""
        self.marks.append(Markup('<rect x="%s" y="%s" width="%s" height="%s"%s class="%s"/>') % (_n(x), _n(y), _n(width), _n(height), round_, kind))

    def line(self, points: Sequence[Tuple[float, float]], kind: str) -> None:
        for x, y in points:
            self._grow(x, y)
        self.path("M" + "L".join("%s %s" % (_n(x), _n(y)) for x, y in points), kind)

    def path(self, d: str, kind: str, title: str = "") -> None:
        if d:
            content = Markup("><title>%s</title></path>") % visible(title) if title else Markup("/>")
            self.marks.append(Markup('<path d="%s" class="%s"%s') % (d, kind, content))

    def text(self, x: float, y: float, text: str, kind: str = "", width: float = 0, size: float = FONT, up: bool = False) -> float:
        """Write ``text`` from ``x`` on, its baseline at ``y``, within ``width`` if that is given; upwards if ``up``. Returns where it ends."""
        shown = visible(text).replace("\n", " ").replace("\t", " ")
        fitting = fit(shown, width, size) if width else shown
        end = x + width_of(fitting, size)
        if not fitting:
            return x
        self._grow(x if up else end, y + size * 0.3)
        title = Markup("<title>%s</title>") % shown if fitting != shown else ""
        turned = Markup(' transform="rotate(-90 %s %s)"') % (_n(x), _n(y)) if up else ""
        sized = "" if size == FONT else Markup(' font-size="%s"') % _n(size)
        classed = Markup(' class="%s"') % kind if kind else ""
        self.marks.append(Markup('<text x="%s" y="%s"%s%s%s>%s%s</text>') % (_n(x), _n(y), turned, sized, classed, fitting, title))
        return end

    def arrow(self, x1: float, x2: float, y: float, kind: str) -> None:
        """A level arrow from ``x1`` to ``x2``."""
        back = -7 if x2 > x1 else 7
        self.line([(x1, y), (x2 + back / 2, y)], "line " + kind)
        self.path("M%s %sl%s -4v8z" % (_n(x2), _n(y), back), "fill " + kind)

    def symbol(self, x: float, y: float, state: str, title: str = "") -> None:
        """The sign of a state, in a square of 10 pixels around the point: known by its form as well as by its colour."""
        self.path(self.outline(x, y, state), "symbol " + state, title)

    @staticmethod
    def outline(x: float, y: float, state: str) -> str:
        return SYMBOLS[state] % {"x": _n(x), "y": _n(y)}

    def render(self, label: str, margin: float = 1) -> Markup:
        size: Dict[str, str] = {"w": _n(self.width + margin), "h": _n(self.height + margin), "label": visible(label)}
        head = '<svg xmlns="http://www.w3.org/2000/svg" width="%(w)s" height="%(h)s" viewBox="0 0 %(w)s %(h)s" role="img" aria-label="%(label)s">'
        return Markup(head) % size + Markup("\n").join(self.marks) + Markup("</svg>")

    def _grow(self, x: float, y: float) -> None:
        self.width, self.height = max(self.width, x), max(self.height, y)


# Outlines around a point: a cross, a square on its tip, a triangle, a dash and a dot.
SYMBOLS = {
    "missing": "M%(x)s %(y)sm-4 -4l8 8m0 -8l-8 8",
    "wrong": "M%(x)s %(y)sm0 -5l5 9h-10z",
    "foreign": "M%(x)s %(y)sm0 -5l5 5l-5 5l-5 -5z",
    "unknown": "M%(x)s %(y)sm-3 0h6",
    "right": "M%(x)s %(y)sm-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0z",
}


def _n(number: float) -> str:
    """A number as short as it can be, and the same on every machine."""
    return ("%.1f" % number).rstrip("0").rstrip(".") or "0"
