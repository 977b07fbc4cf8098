# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Before and after, side by side: which parts of two texts differ. Pure."""

from __future__ import annotations

__metaclass__ = type

import re
from difflib import SequenceMatcher
from typing import List, NamedTuple, Sequence, Tuple

# Comparing takes the product of the lengths, so longer texts are compared by the line, or not at all.
MOST_WORDS, MOST_LINES = 400, 400

_WORDS = re.compile(r"\s+|[\w.:/-]+|.", re.DOTALL)


class Part(NamedTuple):
    text: str
    differs: bool


Sides = Tuple[List[Part], List[Part]]


def sides(before: str, after: str) -> Sides:
    """The parts of ``before`` and those of ``after``. Of what is on one side alone, nothing is said to differ: all of it does."""
    if not before or not after:
        return _whole(before, False), _whole(after, False)
    words = _WORDS.findall(before), _WORDS.findall(after)
    if max(map(len, words)) <= MOST_WORDS:
        return _compared(*words)
    lines = before.splitlines(True), after.splitlines(True)
    if max(map(len, lines)) <= MOST_LINES:
        return _compared(*lines)
    return _whole(before, True), _whole(after, True)


def _whole(text: str, differs: bool) -> List[Part]:
    return [Part(text, differs)] if text else []


def _compared(before: Sequence[str], after: Sequence[str]) -> Sides:
    left: List[Part] = []
    right: List[Part] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if i2 > i1:
            left.append(Part("".join(before[i1:i2]), tag != "equal"))
        if j2 > j1:
            right.append(Part("".join(after[j1:j2]), tag != "equal"))
    return left, right
