# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CNI configurations of this host, and which of them pods get. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

import os

from . import _files
from ._conflist import USUAL_PATH
from ._conflist_data import mtu_of, plugins_of, read_text, stores_of
from ._plan_conflist import LOADED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    Data = Dict[str, Any]


def conflists(section: Data) -> Tuple[List[Tuple[Data, Data]], List[str]]:
    """Every CNI configuration in the recorded folder and the usual one, as a runtime comes to them: what is to be told of it, and what it says; and notes."""
    found: List[Tuple[Data, Data]] = []
    notes: List[str] = []
    folders = dict.fromkeys(os.path.dirname(path) for path in (section.get("path"), USUAL_PATH) if path)
    ours = {section.get("path"): (section.get("conflist") or {}).get("name"), **dict(section.get("former_paths", ()))}
    for folder in folders:
        is_first = True
        for name in sorted((n for n in _files.names_in(folder) or () if n.endswith(LOADED)), key=os.fsencode):
            path = os.path.join(folder, name)
            there = _files.look(path)
            if there is None or there.kind == "folder":
                continue  # libcni passes over these, and over nothing else
            data = conflist_of(path, there.content)
            if data is None:
                notes.append("%s: is damaged" % path)
            data = data or {}
            found.append((told(path, data, path in ours and data.get("name") == ours[path], is_first and bool(data)), data))
            is_first = False
    return found, notes


def conflist_of(path: str, content: bytes) -> Optional[Data]:
    """Pure. A file as a list of plugins, which one that is no .conflist has a single one of; None if it is damaged."""
    data = read_text(content)
    if data is None or path.endswith(".conflist"):
        return data
    return {"cniVersion": data.get("cniVersion"), "name": data.get("name"), "plugins": [data]}


def told(path: str, data: Data, is_ours: bool, is_in_use: bool) -> Data:
    return {
        "path": path,
        "name": str(data.get("name") or ""),
        "cni_version": str(data.get("cniVersion") or ""),
        "plugins": [str(plugin.get("type") or "") for plugin in plugins_of(data)],
        "ours": is_ours,
        "in_use": is_in_use,
        "mtu": mtu_of(data),
        "subnets": [subnet for subnets in stores_of(data).values() for subnet in subnets],
    }
