# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host was before the first converge: /var/lib/kindnet/before.json. A prior value is recorded once and never overwritten.

It is apart from the desired state, so that undoing does not depend on what became of that file.
"""

from __future__ import annotations

__metaclass__ = type

import json
import os

from . import _files
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable

    Entry = Dict[str, Any]  # {"before": the prior value, "ours": what we set}

SCHEMA = 1
FILE = "/var/lib/kindnet/before.json"


def load(concern: str) -> Dict[str, Entry]:
    """What is recorded for ``concern``, by the name of the thing; {} when there is nothing."""
    return dict(_load_all().get(concern, {}))


def merged(recorded: Dict[str, Entry], now: Dict[str, Any], ours: Dict[str, Any]) -> Dict[str, Entry]:
    """``recorded`` with what ``ours`` is about to change. Pure.

    :param now: the live values; they are the prior ones of what is not recorded yet. None: not there, nothing to go back to.
    """
    entries = dict(recorded)
    for thing, value in ours.items():
        prior = recorded[thing]["before"] if thing in recorded else now.get(thing)
        if prior is not None:
            entries[thing] = {"before": prior, "ours": value}
    return entries


def remember(concern: str, entries: Dict[str, Entry]) -> None:
    """Record ``entries`` for ``concern``. A prior value that the file has stays, whatever ``entries`` say."""
    everything = _load_all()
    recorded = everything.setdefault(concern, {})
    for thing, entry in entries.items():
        recorded[thing] = {"before": recorded.get(thing, entry)["before"], "ours": entry["ours"]}
    _store(everything)


def forget(concern: str, things: Iterable[str]) -> None:
    """Drop what has been brought back; with nothing left the file and its folder go."""
    everything = _load_all()
    recorded = everything.get(concern, {})
    for thing in things:
        recorded.pop(thing, None)
    if not recorded:
        everything.pop(concern, None)
    _store(everything)


def _load_all() -> Dict[str, Dict[str, Entry]]:
    try:
        _files.refuse_writable_by_others(FILE)
    except FileNotFoundError:
        return {}
    content = _files.read_bytes(FILE)
    try:
        data = json.loads(content or b"")
        if data["schema"] != SCHEMA:
            raise ValueError("schema %s, this code knows %d" % (data["schema"], SCHEMA))
        before: Dict[str, Dict[str, Entry]] = data["before"]
        if not all("before" in e and "ours" in e for entries in before.values() for e in entries.values()):
            raise ValueError("an entry lacks its values")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise KindnetError(
            FILE,
            "%d bytes" % len(content or b""),
            "is damaged (%s), so nobody knows what was there before" % e,
            "Restore it from a backup, or remove it: what is live now then counts as what was there before.",
        )
    return before


def _store(everything: Dict[str, Dict[str, Entry]]) -> None:
    if everything:
        content = json.dumps({"schema": SCHEMA, "before": everything}, indent=1, sort_keys=True) + "\n"
        _files.write_atomic(FILE, content.encode())
        return
    _files.remove(FILE)
    folder = os.path.dirname(FILE)
    if _files.names_in(folder) == ():
        _files.remove_folder(folder)
