# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to make the CNI configuration file what it should be, or to take out what is ours. Pure."""

from __future__ import annotations

__metaclass__ = type

import os
from collections import namedtuple

from ._before import forgetting_folders, putting_back, remembering, remembering_folders
from ._conflist_data import pretty, read_text, same
from ._files import left_empty, temporary_name
from ._plan import Change, Plan, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Tuple

    from ._before import Priors
    from ._files import Found

    class Actual(NamedTuple):
        """The live state that matters to a section."""

        files: Dict[str, Found]  # the file, its temporary name, and files of ours under names of before; only what exists
        folders: Dict[str, Optional[Tuple[str, ...]]]  # names in each folder that matters; None where it does not exist
        priors: Optional[Priors] = None  # what was in our places, when that matters
        record: Tuple[str, ...] = ()  # folders to remember as made by us; of state "absent": to forget
else:
    Actual = namedtuple("Actual", "files folders priors record", defaults=(None, ()))

SECTION = "conflist"
MODE = 0o644
# What libcni takes for a configuration, and so what containerd reads from the folder. The first by name wins.
LOADED = (".conf", ".conflist", ".json")

WRITE, REMOVE, MAKE_FOLDER, REMOVE_FOLDER = "write", "remove", "make folder", "remove folder"


def plan_conflist(section: Dict[str, Any], actual: Actual) -> Plan:
    """See :class:`_converge.Concern`. Ops are tuples: what to do, the path, and the text for a file that is written."""
    if section.get("state") == "absent":
        return _plan_absent(section, actual)
    path: str = section["path"]
    folder, name = os.path.split(path)
    changes: List[Change] = list(remembering(actual.priors) + remembering_folders(SECTION, actual.record))
    for missing in section["made_folders"]:
        if missing in actual.folders and actual.folders[missing] is None:
            changes.append(Change("folder " + missing, "add", "", "mode 0755", "container runtimes look there", (MAKE_FOLDER, missing)))
    changes.extend(_leftover(temporary_name(path), actual))
    problems: Tuple[Problem, ...] = ()
    found = actual.files.get(path)
    if found and found.kind == "folder":
        problems = (Problem("file " + path, "is a folder, and a container runtime wants a file there. Move it away."),)
    else:
        changes.extend(_file(path, section["conflist"], found))
    for former, former_name in section["former_paths"]:
        if _is_ours(actual.files.get(former), former_name):
            changes.append(_removal(former, actual.files[former], "the configuration is at %s now" % path))
    return Plan(tuple(changes), problems, _rivals(folder, name, actual))


def is_others(found: Optional[Found], name: str) -> bool:
    """True if a file that nobody recorded is the configuration of another network than ``name``."""
    data = read_text(found.content) if found and found.content else None
    return data is not None and data.get("name") != name


def _plan_absent(section: Dict[str, Any], actual: Actual) -> Plan:
    changes: List[Change] = []
    notes: List[str] = []
    for path, name, ours in section["files"]:
        found = actual.files.get(path)
        if found and not ours:
            # kindnetd writes the same where it runs.
            notes.append("%s is there, and nobody recorded it as ours; it stays." % path)
            continue
        if _is_ours(found, name):
            changes.append(_removal(path, found, "it is ours"))
        elif found:
            notes.append("%s is not the configuration of network %r; it stays." % (path, name))
        changes.extend(_leftover(temporary_name(path), actual))
    for folder in left_empty(section["made_folders"], actual.folders, [c.op[1] for c in changes]):
        changes.append(Change("folder " + folder, "remove", "empty", "", "we made it, and nothing else is in it", (REMOVE_FOLDER, folder)))
    done = putting_back(Plan(tuple(changes), (), tuple(notes)), actual.priors)
    return done._replace(changes=done.changes + forgetting_folders(SECTION, actual.record))


def _file(path: str, conflist: Dict[str, Any], found: Optional[Found]) -> Tuple[Change, ...]:
    text = pretty(conflist)
    if not found:
        return (Change("file " + path, "add", "", text.rstrip(), "there is none", (WRITE, path, text)),)
    before, after = _shown(found), text.rstrip()
    if found.kind != "file":
        reason = "it is %s, not a regular file" % found.kind
    elif not _says(found.content, conflist, text):
        reason = "it is damaged" if read_text(found.content) is None else "it says something else"
    elif (found.uid, found.gid, found.mode) != (0, 0, MODE):
        before, after = "owner %d:%d, mode %04o" % (found.uid, found.gid, found.mode), "owner 0:0, mode %04o" % MODE
        reason = "it has another owner or mode"
    else:
        return ()
    return (Change("file " + path, "replace", before, after, reason, (WRITE, path, text)),)


def _says(content: bytes, conflist: Dict[str, Any], text: str) -> bool:
    if content == text.encode():
        return True
    data = read_text(content)
    return data is not None and same(data, conflist)


def _leftover(temporary: str, actual: Actual) -> Tuple[Change, ...]:
    found = actual.files.get(temporary)
    if not found or found.kind == "folder":
        return ()
    return (Change("file " + temporary, "remove", "%d bytes" % len(found.content), "", "left behind by a run that was killed", (REMOVE, temporary)),)


def _removal(path: str, found: Any, reason: str) -> Change:
    return Change("file " + path, "remove", _shown(found), "", reason, (REMOVE, path))


def _is_ours(found: Optional[Found], name: str) -> bool:
    """True if what is in a place of ours may be removed: the configuration of network ``name``, or what damage made of it."""
    if not found or found.kind == "folder":
        return False
    data = read_text(found.content)
    return data is None or data.get("name") == name


def _rivals(folder: str, name: str, actual: Actual) -> Tuple[str, ...]:
    """Configurations that a runtime would take instead of ours."""
    rivals = sorted(n for n in actual.folders.get(folder) or () if n.endswith(LOADED) and n < name)
    if not rivals:
        return ()
    return (
        "%s: %s sorts before %s, and a container runtime takes the first: pods get that network and not ours. Move it away, or rename it."
        % (folder, ", ".join(rivals), name),
    )


def _shown(found: Found) -> str:
    """What a file says; a damaged one as an escaped beginning, so that it cannot forge lines of a report."""
    if found.kind != "file":
        return found.kind
    data = read_text(found.content)
    if data is not None:
        return pretty(data).rstrip()
    return "%d bytes: %s" % (len(found.content), ascii(found.content[:200].decode("utf-8", "replace")))
