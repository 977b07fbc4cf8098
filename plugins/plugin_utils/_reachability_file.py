# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry "reachability" of the report as a file of its own: probes are made seldom, and reports of drift often."""

from __future__ import annotations

__metaclass__ = type

import json
import os

from ..module_utils import _files
from ..module_utils._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Mapping, Optional

NAME = "reachability.json"
FOLDER = "kindnet-report"
FIELD = "kindnet_report_dir"
KEYS = ("generated", "mode", "sources", "targets", "results")


def folder_of(sources: Iterable[str], explicit: str = "") -> str:
    """The folder of reports, beside the inventory unless it is said. A relative path starts there, too."""
    beside = next((s if os.path.isdir(s) else os.path.dirname(s) for s in sources if "," not in s and (os.path.isfile(s) or os.path.isdir(s))), "")
    return os.path.join(os.path.abspath(beside), os.path.expanduser(explicit or FOLDER))


def write(folder: str, entry: Mapping[str, Any]) -> str:
    """Write the entry, whole or not at all; its path."""
    path = os.path.join(folder, NAME)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise KindnetError(FIELD, folder, "cannot be made (%s)" % e.strerror, "Name a folder that you may write to: -e %s=FOLDER." % FIELD)
    _files.write_atomic(path, (json.dumps(entry, separators=(",", ":")) + "\n").encode())
    return path


def load(folder: str) -> Optional[Dict[str, Any]]:
    """What the last run wrote; None without one, or if it is not to be understood."""
    content = _files.read_bytes(os.path.join(folder, NAME))
    try:
        entry = json.loads(content or b"null")
    except ValueError:  # a report without it is better than none; the next run of reachability.yml writes it anew
        return None
    return entry if isinstance(entry, dict) and all(key in entry for key in KEYS) else None
