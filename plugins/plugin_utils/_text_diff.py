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


# Of lines that are the same, these beside a difference are shown, and the others are left out if they are so many.
AROUND, LEFT_OUT = 2, 4


class Part(NamedTuple):
    text: str
    differs: bool
    left_out: int = 0  # the number of lines that stand here on both sides, instead of a text


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
        if tag == "equal":
            same = _shortened("".join(before[i1:i2]), i1 > 0 or j1 > 0, i2 < len(before) or j2 < len(after))
            left += same
            right += same
            continue
        left += _whole("".join(before[i1:i2]), True)
        right += _whole("".join(after[j1:j2]), True)
    return left, right


def _shortened(same: str, follows: bool, precedes: bool) -> List[Part]:
    """What is the same: of many lines only those beside a difference, which it ``follows`` or ``precedes``."""
    lines = same.splitlines(True)
    head, tail = AROUND * follows, len(lines) - AROUND * precedes
    if tail - head < LEFT_OUT:
        return [Part(same, False)]
    parts = _whole("".join(lines[:head]), False), [Part("", False, tail - head)], _whole("".join(lines[tail:]), False)
    return [part for found in parts for part in found]
