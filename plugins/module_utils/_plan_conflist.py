# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to make the CNI configuration file what it should be, or to take out what is ours. Pure."""

from __future__ import annotations

__metaclass__ = type

import os
from collections import namedtuple

from ._before import ASIDE, FORGET, REMEMBER, Op, forgetting_folders, putting_back, remembering, remembering_folders
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

        # The file, its temporary name, files of ours under names of before, and those of others that sort before it; only what exists
        files: Dict[str, Found]
        folders: Dict[str, Optional[Tuple[str, ...]]]  # names in each folder that matters; None where it does not exist
        priors: Optional[Priors] = None  # what was in our places, when that matters
        record: Tuple[str, ...] = ()  # folders to remember as made by us; of state "absent": to forget
        aside: Optional[Dict[str, str]] = None  # files of others that were set aside, by path; None in a pass, which moves none
else:
    Actual = namedtuple("Actual", "files folders priors record aside", defaults=(None, (), None))

SECTION = "conflist"
MODE = 0o644
# What libcni takes for a configuration, and so what containerd reads from the folder. The first by name wins.
LOADED = (".conf", ".conflist", ".json")

# Ends the name of a file that no runtime is to load.
SET_ASIDE = ".kindnet-set-aside"
# What may be done about files of others that a runtime would take instead of ours.
WARN, FAIL, MOVE = CONFLICTS = "warn", "fail", "set_aside"

WRITE, REMOVE, RENAME, MAKE_FOLDER, REMOVE_FOLDER = "write", "remove", "rename", "make folder", "remove folder"


def plan_conflist(section: Dict[str, Any], actual: Actual) -> Plan:
    """See :class:`_converge.Concern`. Ops are tuples: what to do, the path, and the text for a file that is written."""
    if section.get("state") == "absent":
        return _plan_absent(section, actual)
    path: str = section["path"]
    changes: List[Change] = list(remembering(actual.priors) + remembering_folders(SECTION, actual.record))
    for missing in section["made_folders"]:
        if missing in actual.folders and actual.folders[missing] is None:
            changes.append(Change("folder " + missing, "add", "", "mode 0755", "container runtimes look there", (MAKE_FOLDER, missing)))
    changes.extend(_leftover(temporary_name(path), actual))
    problems: List[Problem] = []
    found = actual.files.get(path)
    if found and found.kind == "folder":
        problems.append(Problem("file " + path, "is a folder, and a container runtime wants a file there. Move it away."))
    else:
        writing = _file(path, section["conflist"], found)
        temporary = actual.files.get(temporary_name(path))
        if writing and temporary and temporary.kind == "folder":
            problems.append(Problem("file " + temporary_name(path), "is a folder, and what is to be at %s is first written there. Move it away." % path))
        else:
            changes.extend(writing)
    for former, former_name in section["former_paths"]:
        if _is_ours(actual.files.get(former), former_name):
            changes.append(_removal(former, actual.files[former], "the configuration is at %s now" % path))
    rivals = rivals_of(section, actual)
    folder, choice = os.path.dirname(path), section.get("conflicts", WARN)
    notes: Tuple[str, ...] = ()
    if choice == MOVE and actual.aside is not None:
        for rival in rivals:
            if os.path.basename(rival + SET_ASIDE) in (actual.folders[folder] or ()):
                problem = "is there again, and so is %s%s, of an earlier run. Stop who writes it, and remove one of the two." % (rival, SET_ASIDE)
                problems.append(Problem("file " + rival, problem))
            else:
                changes.extend(_setting_aside(rival, path, actual.aside))
    elif rivals and choice == WARN:
        notes = ("%s: %s Move it away, or rename it." % (folder, in_the_way(path, rivals, actual)),)
    elif rivals:
        remedy = "Run playbooks/kindnet.yml, which sets it aside." if choice == MOVE else "Move it away, or rename it."
        problems.append(Problem("folder " + folder, "%s %s" % (in_the_way(path, rivals, actual), remedy)))
    return Plan(tuple(changes), tuple(problems), notes)


def sorting_first(path: str, names: Optional[Tuple[str, ...]]) -> List[str]:
    """Paths of what a runtime comes to before ``path``, if it is a file: by the bytes of the names, those that begin with a dot among them."""
    folder, name = os.path.split(path)
    first = (n for n in names or () if n.endswith(LOADED) and os.fsencode(n) < os.fsencode(name))
    return [os.path.join(folder, n) for n in sorted(first, key=os.fsencode)]


def rivals_of(section: Dict[str, Any], actual: Actual) -> List[str]:
    """Configurations that a runtime would take instead of ours."""
    path: str = section["path"]
    former = dict(section["former_paths"])
    rivals = []
    for rival in sorting_first(path, actual.folders.get(os.path.dirname(path))):
        found = actual.files.get(rival)
        # libcni passes over folders, and over nothing else.
        if found and found.kind != "folder" and not (rival in former and _is_ours(found, former[rival])):
            rivals.append(rival)
    return rivals


def in_the_way(path: str, rivals: List[str], actual: Actual) -> str:
    """What becomes of pods with ``rivals`` there."""
    damaged = ", ".join(os.path.basename(r) for r in rivals if not _is_loadable(r, actual.files[r]))
    return "%s sorts before %s, and a container runtime takes the first: pods get that network and not ours.%s" % (
        ", ".join(os.path.basename(r) for r in rivals),
        os.path.basename(path),
        " %s is damaged, with which containerd loads none at all." % damaged if damaged else "",
    )


def _is_loadable(path: str, found: Found) -> bool:
    """As libcni judges a file: a list of plugins in a .conflist, one plugin in any other."""
    data = read_text(found.content)
    if data is None:
        return False
    if not path.endswith(".conflist"):
        return isinstance(data.get("type"), str) and data["type"] != ""
    plugins = data.get("plugins")
    if not isinstance(data.get("name"), str) or not isinstance(plugins, list) or not plugins:
        return False
    return all(isinstance(p, dict) and isinstance(p.get("type"), str) and p["type"] != "" for p in plugins)


def _setting_aside(rival: str, path: str, recorded: Dict[str, str]) -> List[Change]:
    changes = []
    aside = rival + SET_ASIDE
    if rival not in recorded:
        op = Op(REMEMBER, ASIDE, {rival: {"before": aside, "ours": ""}})
        changes.append(Change(_aside_subject(rival), "add", "", "recorded: " + aside, "teardown brings it back", op))
    reason = "a container runtime would take it instead of %s" % os.path.basename(path)
    changes.append(Change("file " + rival, "replace", "in its place", "renamed to " + aside, reason, (RENAME, rival, aside)))
    return changes


def _bringing_back(actual: Actual) -> Tuple[List[Change], List[Change], List[str]]:
    """Of what was set aside: the changes that bring it back, those that forget it, and what stays as it is."""
    back: List[Change] = []
    forget: List[Change] = []
    notes: List[str] = []
    for rival, aside in sorted((actual.aside or {}).items()):
        if aside in actual.files and rival in actual.files:
            notes.append("%s is there again, so the one that was set aside stays: %s." % (rival, aside))
        elif aside in actual.files:
            back.append(Change("file " + rival, "replace", "renamed to " + aside, "in its place", "as it was before", (RENAME, aside, rival)))
        forget.append(Change(_aside_subject(rival), "remove", "recorded: " + aside, "", "it is of no more use", Op(FORGET, ASIDE, [rival])))
    return back, forget, notes


def _aside_subject(path: str) -> str:
    return "%s that was set aside" % path


def is_others(found: Optional[Found], name: str) -> bool:
    """True if a file that nobody recorded is the configuration of another network than ``name``."""
    data = read_text(found.content) if found and found.content else None
    return data is not None and data.get("name") != name


def _plan_absent(section: Dict[str, Any], actual: Actual) -> Plan:
    # First, so that the runtime is at no moment without a configuration.
    changes, forget, notes = _bringing_back(actual)
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
    for folder in left_empty(section["made_folders"], actual.folders, [c.op[1] for c in changes if c.op[0] == REMOVE]):
        changes.append(Change("folder " + folder, "remove", "empty", "", "we made it, and nothing else is in it", (REMOVE_FOLDER, folder)))
    done = putting_back(Plan(tuple(changes), (), tuple(notes)), actual.priors)
    return done._replace(changes=done.changes + tuple(forget) + forgetting_folders(SECTION, actual.record))


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


def _shown(found: Found) -> str:
    """What a file says; a damaged one as an escaped beginning, so that it cannot forge lines of a report."""
    if found.kind != "file":
        return found.kind
    data = read_text(found.content)
    if data is not None:
        return pretty(data).rstrip()
    return "%d bytes: %s" % (len(found.content), ascii(found.content[:200].decode("utf-8", "replace")))
