# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass said about problems, so that one that lasts for days is not said six times a minute."""

from __future__ import annotations

__metaclass__ = type

import json
import time

from . import _files
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Collection, Dict, List, Optional, Tuple, Union

    Memory = Dict[str, Dict[str, Union[str, float]]]
    Problems = Dict[str, Tuple[str, str]]

FILE = "/run/kindnet/problems.json"
REPEAT_AFTER = 3600.0  # seconds


def load() -> Memory:
    """The problems of the last pass by subject: their section, the message, and when it was said, in seconds since boot."""
    try:
        content = _files.read_bytes(FILE)
        memory = json.loads(content) if content else {}
        return {
            str(subject): {"section": str(m["section"]), "message": str(m["message"]), "said": float(m["said"])}
            for subject, m in memory.items()
        }
    except (KindnetError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # at worst, problems are said once more


def compare(memory: Memory, problems: Problems, blind: Collection[str], now: float) -> Tuple[List[str], List[str], Memory]:
    """Pure. The lines to say about problems there are, those about problems that are gone, and the new memory.

    :param problems: by subject, the section and the message.
    :param blind: sections that this pass could not look at; what is remembered of them is neither there nor gone.
    """
    lines: List[str] = []
    gone: List[str] = []
    new: Memory = {}
    for subject, (section, message) in problems.items():
        old = memory.get(subject)
        same = old is not None and old["message"] == message
        if old is not None and same and now - float(old["said"]) < REPEAT_AFTER:
            new[subject] = old
            continue
        lines.append("problem: %s%s: %s" % ("still, " if same else "", subject, message))
        new[subject] = {"section": section, "message": message, "said": now}
    for subject, old in memory.items():
        if subject in problems:
            continue
        if old["section"] in blind:
            new[subject] = old
        else:
            gone.append("resolved: %s" % subject)
    return lines, gone, new


def report(
    problems: Problems, blind: Collection[str], say_problem: Callable[[str], None], say_resolved: Callable[[str], None]
) -> Optional[Memory]:
    """Say what is new, changed or gone, and what has lasted for another hour; write the memory only if it changes.

    Returns the new memory if there was something to say, else None.
    """
    memory = load()
    if not memory and not problems:
        return None
    lines, gone, new = compare(memory, problems, blind, time.clock_gettime(time.CLOCK_BOOTTIME))
    for line in lines:
        say_problem(line)
    for line in gone:
        say_resolved(line)
    if new == memory:
        return None
    try:
        if new:
            _files.write_atomic(FILE, json.dumps(new, sort_keys=True).encode() + b"\n")
        else:
            _files.remove(FILE)
    except KindnetError as e:
        say_problem("problem: %s" % e)
    return new
