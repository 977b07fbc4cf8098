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
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping

from ..module_utils import _files
from ..module_utils._errors import KindnetError
from ._ledger_file import inventory_folders
from ._map_mermaid import mermaid
from ._report_junit import junit
from ._report_page import page

NAME = "kindnet-report"
FIELD = "kindnet_report_dir"


def folder_of(sources: Iterable[str], explicit: str = "") -> str:
    """Where the files go: beside the inventory, as the ledger is, unless it is said. A relative path starts there too."""
    folders = inventory_folders(sources)
    return os.path.join(folders[0] if folders else os.getcwd(), os.path.expanduser(explicit or NAME))


RENDERERS: Dict[str, Callable[[Mapping[str, Any]], str]] = {
    "drift.json": lambda report: json.dumps(report, indent=2, ensure_ascii=False) + "\n",
    "drift.xml": junit,
    "drift.html": page,
    "map.mmd": mermaid,
}


def write(folder: str, report: Mapping[str, Any]) -> List[str]:
    """Write the files, each whole or not at all; their paths."""
    contents = {os.path.join(folder, name): render(report).encode("utf-8", "replace") for name, render in RENDERERS.items()}
    try:
        _files.make_folder(folder)
        with locked(folder):
            for path, content in contents.items():
                _files.write_atomic(path, content)
    except KindnetError as e:
        raise cannot_be_written(folder, "%s: %s" % (e.field, e.value))
    except OSError as e:
        raise cannot_be_written(folder, "%s: %s" % (e.filename or folder, e.strerror))
    return list(contents)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Two runs that end at once write one after the other."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def cannot_be_written(folder: str, why: str) -> KindnetError:
    problem = "the report cannot be written there (%s)" % why
    return KindnetError(FIELD, folder, problem, "Name a folder that you may write to: -e %s=FOLDER." % FIELD)
