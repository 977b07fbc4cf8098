# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern "cni_plugins": distributions put the reference plugins elsewhere than container runtimes look for them.

Its section of desired.json::

    links         path to target: the symbolic links that are ours to make, and to repair
    source_dirs   where a link of ours may lead
    former        path to target: links of ours that are no longer wanted
    switched      path to target: where links of ours led before other source_dirs were given; left out while there are none
    made_folders  folders that were not there before the first converge
"""

from __future__ import annotations

__metaclass__ = type

import os
from collections import namedtuple

from . import _before, _files
from ._errors import KindnetError
from ._plan import Change, Plan, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

    Section = Dict[str, Any]

    class Actual(NamedTuple):
        """The live state that matters to a section."""

        places: Dict[str, Tuple[str, bool]]  # what is at a path, if anything: a link's target or "", and whether it leads to something
        leftovers: Tuple[str, ...]  # temporary links of a run that was killed
        folders: Dict[str, Optional[Tuple[str, ...]]]  # names in each folder that matters; None where it does not exist
        priors: Optional[_before.Priors] = None  # what was in our places, when that matters
        record: Tuple[str, ...] = ()  # folders to remember as made by us; of state "absent": to forget
else:
    Actual = namedtuple("Actual", "places leftovers folders priors record", defaults=(None, ()))

SECTION = "cni_plugins"

LINK, REMOVE, MAKE_FOLDER, REMOVE_FOLDER = "link", "remove", "make folder", "remove folder"
NOTHING = ("", False)


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """See :class:`_converge.Concern`."""
    # Whatever became of desired.json: what is recorded of before tells what is ours since.
    made = set((recorded or {}).get("made_folders", ())) | set(_before.folders_of_ours(SECTION))
    ours: Dict[str, str] = dict(_before.links_of_ours(), **_links_of(recorded or {}))
    if params["state"] == "absent":
        return {
            "state": "absent",
            "former": ours,
            "switched": (recorded or {}).get("switched", {}),
            "source_dirs": (recorded or {}).get("source_dirs", []),
            "made_folders": sorted(made),
        }
    bin_dir = _parse_folder("bin_dir", params["bin_dir"])
    source_dirs = [_parse_folder("source_dirs", d) for d in params["source_dirs"]]
    if not source_dirs:
        raise KindnetError("source_dirs", "none", "there is nowhere to link to", "Give the folders of the distribution, such as /usr/lib/cni.")
    links: Dict[str, str] = {}
    switched: Dict[str, str] = {}
    was = (recorded or {}).get("switched", {})
    for name in params["plugins"]:
        path = os.path.join(bin_dir, _parse_name(name))
        target, leads = _place(path)
        known = ours.get(path)
        if known is None and leads:
            continue  # the administrator's, or another package's
        if leads and known is not None and os.path.dirname(known) in source_dirs:  # ours, and whatever became of it, it works
            links[path] = known
        else:
            links[path] = _source(name, path, source_dirs, known, bool(params.get("tools_predicted")))
        if target and target in (known, was.get(path)) and os.path.dirname(target) not in source_dirs:
            switched[path] = target
        elif path in was and links[path] == (recorded or {})["links"].get(path):
            switched[path] = was[path]
    section: Section = {
        "links": links,
        "source_dirs": source_dirs,
        # Without a record two calls know nothing of each other, so neither takes out what the other made.
        "former": {p: t for p, t in sorted((ours if params["persist"] else _links_of(recorded or {})).items()) if p not in links},
        "made_folders": sorted(made | set(_files.missing_folders(bin_dir))),
    }
    if switched:
        section["switched"] = switched
    return section


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """See :class:`_converge.Concern`."""
    places: Dict[str, Tuple[str, bool]] = {}
    leftovers: List[str] = []
    folders: Dict[str, Optional[Tuple[str, ...]]] = {}
    for path in list(section.get("links", ())) + list(section["former"]):
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = _files.names_in(folder)
        names = folders[folder] or ()
        if name in names:
            places[path] = _place(path)
        temporary = _files.temporary_name(path)
        if os.path.basename(temporary) in names:
            leftovers.append(temporary)
    for folder in section["made_folders"]:
        if folder not in folders:
            folders[folder] = _files.names_in(folder)
    if recorded is None:
        return Actual(places, tuple(leftovers), folders)
    known_folders = _before.folders_of_ours(SECTION)
    if section.get("state") == "absent":
        return Actual(places, tuple(leftovers), folders, _before.recorded(section["former"]), tuple(known_folders))
    sources, switched = section["source_dirs"], section.get("switched", {})
    not_ours = [p for p, (target, leads) in places.items() if not leads and os.path.dirname(target) not in sources and target != switched.get(p)]
    links = {p: target for p, target in section["links"].items() if p not in not_ours}
    record = tuple(folder for folder in section["made_folders"] if folder not in known_folders)
    return Actual(places, tuple(leftovers), folders, _before.unrecorded_links(links, _links_of(recorded)), record)


def plan(section: Section, actual: Actual) -> Plan:
    """See :class:`_converge.Concern`."""
    changes: List[Change] = []
    problems: List[Problem] = []
    links: Dict[str, str] = section.get("links", {})
    switched: Dict[str, str] = section.get("switched", {})
    changes += _before.remembering(actual.priors)
    if links:
        changes += _before.remembering_folders(SECTION, actual.record)
        for folder in section["made_folders"]:
            if folder in actual.folders and actual.folders[folder] is None:
                changes.append(Change("folder " + folder, "add", "", "mode 0755", "container runtimes look there", (MAKE_FOLDER, folder)))
    for leftover in actual.leftovers:
        changes.append(Change("link " + leftover, "remove", "a link", "", "left behind by a run that was killed", (REMOVE, leftover)))
    for path, wanted in sorted(links.items()):
        target, leads = actual.places.get(path, NOTHING)
        if path not in actual.places:
            changes.append(Change("link " + path, "add", "", "-> " + wanted, "container runtimes look there", (LINK, path, wanted)))
        elif target and target == switched.get(path):
            changes.append(Change("link " + path, "replace", "-> " + target, "-> " + wanted, "the plugins are taken from there now", (LINK, path, wanted)))
        elif leads:
            continue
        elif target == wanted:
            problems.append(Problem("link " + path, "%s is not there. Install the reference plugins (package containernetworking-plugins)." % wanted))
        elif os.path.dirname(target) in section["source_dirs"]:
            changes.append(Change("link " + path, "replace", "-> " + target, "-> " + wanted, "it leads nowhere", (LINK, path, wanted)))
        else:
            message = "leads nowhere (%s), and is not ours to change: no pod can start. Put back what it leads to, or remove it." % ascii(target)
            problems.append(Problem("link " + path, message))
    for path, was in sorted(section["former"].items()):
        target = actual.places.get(path, NOTHING)[0]
        if target and (target in (was, switched.get(path)) or os.path.dirname(target) in section["source_dirs"]):
            changes.append(Change("link " + path, "remove", "-> " + target, "", "we made it, and it is no longer wanted", (REMOVE, path)))
    if not links:
        for folder in _files.left_empty(section["made_folders"], actual.folders, [c.op[1] for c in changes]):
            changes.append(Change("folder " + folder, "remove", "empty", "", "we made it, and nothing else is in it", (REMOVE_FOLDER, folder)))
    done = Plan(tuple(changes), tuple(problems))
    if section.get("state") == "absent":
        done = _before.putting_back(done, actual.priors)
        done = done._replace(changes=done.changes + _before.forgetting_folders(SECTION, actual.record))
    return done


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """See :class:`_converge.Concern`."""
    failures: List[Problem] = []
    for change in plan.changes:
        what, place = change.op[:2]
        try:
            if what == LINK:
                _files.link_atomic(place, change.op[2])
            elif what == REMOVE:
                _files.remove(place)
            elif what == MAKE_FOLDER:
                _files.make_folder(place)
            elif what == REMOVE_FOLDER:
                _files.remove_folder(place)
            elif isinstance(change.op, _before.Op) and not failures:
                _before.apply(change.op)
        except KindnetError as e:
            failures.append(Problem(change.subject, str(e)))
    return tuple(failures)


def _links_of(recorded: Section) -> Dict[str, str]:
    """Path to target of all links that the recorded section knows as ours."""
    return dict(recorded.get("links", {}), **recorded.get("former", {}))


def _place(path: str) -> Tuple[str, bool]:
    try:
        target = os.readlink(path)
    except OSError:  # not a link
        return "", os.path.exists(path)
    return target, os.path.exists(path)


def _source(name: str, path: str, source_dirs: Iterable[str], known: Optional[str], predicted: bool) -> str:
    """Where the link leads: to where it led, as long as that is there."""
    candidates = [os.path.join(d, name) for d in source_dirs]
    for candidate in ([known] if known in candidates else []) + candidates:
        if candidate and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    if predicted:
        return known if known in candidates and known else candidates[0]
    raise KindnetError(
        "plugins",
        name,
        "is neither at %s nor an executable file in %s" % (path, " or ".join(source_dirs)),
        "Install the reference plugins (package containernetworking-plugins), or name their folder in source_dirs.",
    )


def _parse_folder(field: str, folder: Any) -> str:
    if not isinstance(folder, str) or not folder.startswith("/") or os.path.normpath(folder) != folder or not folder.isprintable():
        raise KindnetError(field, ascii(folder), "is not a plain absolute path", "Give one such as /opt/cni/bin.")
    return folder


def _parse_name(name: Any) -> str:
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise KindnetError("plugins", ascii(name), "is not the name of a CNI plugin", "Name a program, such as ptp.")
    return name
