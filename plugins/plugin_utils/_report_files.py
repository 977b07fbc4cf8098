# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as files on the controller. The one renderer of playbooks/drift.yml and of the callback plugin."""

from __future__ import annotations

__metaclass__ = type

import contextlib
import fcntl
import json
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional

from ..module_utils import _files
from ..module_utils._errors import KindnetError
from ._ledger_file import inventory_places
from ._map_mermaid import mermaid
from ._report import GENERATOR
from ._report_junit import junit
from ._report_page import page

NAME = "kindnet-report"
FIELD = "kindnet_report_dir"


def folder_of(sources: Iterable[str], explicit: str = "") -> str:
    """Where the files go: beside the inventory, unless it is said. A relative path starts there too.

    Beside a folder and not in it, as the ledger is: whatever is in there, Ansible reads as inventory the next time.
    """
    places = inventory_places(sources)
    return os.path.join(os.path.dirname(places[0]) if places else os.getcwd(), os.path.expanduser(explicit or NAME))


RENDERERS: Dict[str, Callable[[Mapping[str, Any]], str]] = {
    "drift.json": lambda report: json.dumps(report, indent=2, ensure_ascii=False) + "\n",
    "drift.xml": junit,
    "drift.html": page,
    "map.mmd": mermaid,
}


REACHABILITY = "reachability.json"
REACHABILITY_KEYS = ("generated", "mode", "hosts", "results", "not_asked", "not_tried")


def write(folder: str, report: Mapping[str, Any]) -> List[str]:
    """Write the files, each whole or not at all; their paths. What playbooks/reachability.yml found last, and when, is told as well."""
    if not report.get("reachability"):
        report = dict(report, reachability=reachability_in(folder))
    contents = rendered(folder, report)
    with writing(folder):
        for path, content in contents.items():
            _files.write_atomic(path, content)
    return list(contents)


def write_reachability(folder: str, entry: Mapping[str, Any]) -> str:
    """Write what was found, to a file of its own and into the report that is there, if there is one; the path of the former."""
    path = os.path.join(folder, REACHABILITY)
    with writing(folder):
        _files.write_atomic(path, (json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        for place, content in _with_reachability(folder, entry).items():
            _files.write_atomic(place, content)
    return path


def _with_reachability(folder: str, entry: Mapping[str, Any]) -> Dict[str, bytes]:
    """The files of the report that is there, with ``entry``; none if it is not of this version, or damaged: the next run writes it anew."""
    report = _object_in(os.path.join(folder, "drift.json"))
    if not report or report.get("generator") != GENERATOR:
        return {}
    try:
        return rendered(folder, dict(report, reachability=entry))
    except (AttributeError, KeyError, TypeError, ValueError):  # somebody edited it
        return {}


def reachability_in(folder: str) -> Optional[Dict[str, Any]]:
    """What the last run of playbooks/reachability.yml found; None if there was none."""
    entry = _object_in(os.path.join(folder, REACHABILITY))
    return entry if entry and all(key in entry for key in REACHABILITY_KEYS) else None


def rendered(folder: str, report: Mapping[str, Any]) -> Dict[str, bytes]:
    return {os.path.join(folder, name): render(report).encode("utf-8", "replace") for name, render in RENDERERS.items()}


def _object_in(path: str) -> Optional[Dict[str, Any]]:
    """None also of what is damaged: a report without it is better than none, and the next run writes it anew."""
    try:
        data = json.loads(_files.read_bytes(path) or b"null")
    except (ValueError, KindnetError):
        return None
    return data if isinstance(data, dict) else None


@contextlib.contextmanager
def writing(folder: str) -> Iterator[None]:
    """Two runs that end at once write one after the other."""
    try:
        _files.make_folder(folder)
        with locked(folder):
            yield
    except KindnetError as e:
        raise cannot_be_written(folder, "%s: %s" % (e.field, e.value))
    except OSError as e:
        raise cannot_be_written(folder, "%s: %s" % (e.filename or folder, e.strerror))


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def cannot_be_written(folder: str, why: str) -> KindnetError:
    problem = "the report cannot be written there (%s)" % why
    return KindnetError(FIELD, folder, problem, "Name a folder that you may write to: -e %s=FOLDER." % FIELD)
