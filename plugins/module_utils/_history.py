# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes repaired, and when: /var/lib/kindnet/history/repairs.jsonl, one JSON object per line, the newest last.

Only a pass that repaired something imports this and writes, under the lock; who reads needs none. The folder is apart from before.json, which no pass
may write.
"""

from __future__ import annotations

__metaclass__ = type

import json
import os
import stat
import time

from . import _files
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Optional, Sequence, Tuple

    from ._plan import Change

    Entry = Dict[str, str]

FOLDER = "/var/lib/kindnet/history"
FILE = FOLDER + "/repairs.jsonl"
FIELDS = ("at", "section", "subject", "action", "before", "after", "reason")

BOUND = 256 << 10  # bytes that the file may have
KEPT = BOUND // 2  # bytes of the newest that stay when it would have more
LONGEST = 600  # characters of a value; a conflist in full belongs into a diff
MOST = 50  # repairs of one kind in one pass that are listed; a reboot takes every route

ISO_8601 = "%Y-%m-%dT%H:%M:%SZ"
REMEDY = "What was repaired is in the journal (journalctl -t kindnet-reconcile). Look at the disk, or who changed the folder."


def now() -> str:
    """The wall clock as ISO 8601, in UTC."""
    return time.strftime(ISO_8601, time.gmtime())


def entries_of(repairs: Iterable[Tuple[str, Change]], at: str) -> List[Entry]:
    """Pure. What is recorded of one pass: each section with its changes, in their order; of many alike the first ones, and how many more."""
    entries: List[Entry] = []
    alike: Dict[Tuple[str, str], int] = {}
    for section, change in repairs:
        kind = (section, change.action)
        alike[kind] = alike.get(kind, 0) + 1
        if alike[kind] <= MOST:
            values = (at, section, change.subject, change.action, change.before, change.after, change.reason)
            entries.append({field: shorten(value) for field, value in zip(FIELDS, values)})
    for (section, action), count in alike.items():
        if count > MOST:
            values = (at, section, "%d more" % (count - MOST), action, "", "", "in the same pass; the journal has each of them")
            entries.append(dict(zip(FIELDS, values)))
    return entries


def shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."


def lines_of(entries: Iterable[Entry]) -> bytes:
    return b"".join(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries)


def parse(content: bytes) -> List[Entry]:
    """Pure. The entries of a file; a line that is damaged, as by a power cut, is as if it were not there."""
    return [entry for entry in map(_entry, content.split(b"\n")) if entry is not None]


def _entry(line: bytes) -> Optional[Entry]:
    try:
        data = json.loads(line) if line else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not all(isinstance(data.get(field), str) for field in FIELDS):
        return None
    return {field: data[field] for field in FIELDS}


def newest(entries: Sequence[Entry], size: int) -> bytes:
    """Pure. The lines of as many of the last entries as fit into ``size`` bytes."""
    kept: List[bytes] = []
    for entry in reversed(entries):
        line = lines_of((entry,))
        size -= len(line)
        if size < 0:
            break
        kept.append(line)
    return b"".join(reversed(kept))


def load() -> List[Entry]:
    """What passes repaired, the newest last; empty if none has. Errors: :class:`KindnetError` if it cannot be read."""
    try:
        fd = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as e:
        raise KindnetError(FILE, e.strerror, "cannot be read", "See that it is a regular file.")
    try:
        return parse(_content(fd))
    except OSError as e:
        raise KindnetError(FILE, e.strerror, "cannot be read", "See that it is a regular file.")
    finally:
        os.close(fd)


def append(repairs: Iterable[Tuple[str, Change]]) -> None:
    """Record what a pass repaired. Errors: :class:`KindnetError`; what was recorded before is then as it was."""
    entries = entries_of(repairs, now())
    new = lines_of(entries)
    try:
        _files.make_folder(os.path.dirname(FILE))
        fd = os.open(FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                raise KindnetError(FILE, "no regular file", "cannot be written", REMEDY)
            if st.st_size + len(new) + 1 > BOUND:
                _files.write_atomic(FILE, newest(parse(_content(fd)) + entries, KEPT))
                return
            if st.st_size and os.pread(fd, 1, st.st_size - 1) != b"\n":
                new = b"\n" + new  # after what an earlier run was cut off in
            _write(fd, new, st.st_size)
        finally:
            os.close(fd)
    except OSError as e:
        raise KindnetError(FILE, e.strerror, "cannot be written", REMEDY)


def _content(fd: int) -> bytes:
    """The end of the file, whoever made it longer than it should be."""
    with open(fd, "rb", closefd=False) as f:
        f.seek(max(0, os.fstat(fd).st_size - BOUND))
        return f.read(BOUND)


def _write(fd: int, content: bytes, size: int) -> None:
    """Append all of it, or nothing."""
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view):]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise
