# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which modules would find nothing to do: each concern is planned as its module plans it in check mode, all in one process.

The planners are those that the host has, compiled, for its passes. If they are not to the letter the ones that the modules would bring along,
every module counts as one with something to do.
"""

from __future__ import annotations

__metaclass__ = type

import importlib
import os
import stat
import sys

from . import _code_folder
from ._installation import Installation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping

# The section of desired.json that each module keeps.
SECTIONS = {
    "kindnet_sysctl": "sysctl",
    "cni_plugin_links": "cni_plugins",
    "kindnet_neighbours": "neighbours",
    "kindnet_masq": "masq",
    "cni_conflist": "conflist",
    "kindnet_reconcile": "",  # none: it is what reads that file
    "kindnet_route": "routes",
}


def reasons(modules: Mapping[str, Dict[str, Any]], digest: str) -> Dict[str, str]:
    """What each of these modules has to do, in a few words by its name; "" if nothing at all.

    :param modules: their parameters, as a module has them once they are validated.
    :param digest: that of the code which the modules would install.
    """
    if os.geteuid() != 0:
        return dict.fromkeys(modules, "this is not root, who alone sees all of it")
    if _is_writable_by_others(_code_folder.LIBRARY):
        return dict.fromkeys(modules, "%s may be written by others than root" % _code_folder.LIBRARY)
    folder = os.path.join(_code_folder.LIBRARY, digest)
    tree = _code_folder.read_tree(folder) or {}
    places = {os.path.join(_code_folder.PACKAGE, name): name for name in _names(tree)}
    sources = {name: tree[path].content for path, name in places.items()}
    # The digest tells that no file is missing or different, the other whose they are.
    if _code_folder.digest_of(sources) != digest or _code_folder.damaged(tree, sources):
        return dict.fromkeys(modules, "the code of this version is not installed")
    sys.dont_write_bytecode = True  # this changes nothing, and what is compiled there has to be unchecked
    sys.path.insert(0, folder)
    return {name: _reason(name, params, sources) for name, params in modules.items()}


def _is_writable_by_others(folder: str) -> bool:
    """Who may write it can put another folder in the place of one that was looked at. A pass asks the same."""
    try:
        st = os.lstat(folder)
    except FileNotFoundError:
        return False
    return st.st_uid != 0 or bool(st.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _names(tree: Mapping[str, Any]) -> list[str]:
    return [os.path.basename(path) for path in tree if os.path.dirname(path) == _code_folder.PACKAGE and path.endswith(".py")]


def _reason(name: str, params: Dict[str, Any], sources: Dict[str, bytes]) -> str:
    try:
        converge = importlib.import_module(_code_folder.PACKAGE + "._converge").converge
        if SECTIONS[name]:
            concern = importlib.import_module(_code_folder.PACKAGE + "._concerns").load(SECTIONS[name])
        else:
            concern = Installation({n: content for n, content in sources.items() if n != "__init__.py"}, params["rendered"])
        persist = bool(SECTIONS[name]) and params["persist"]
        outcome = converge(concern, params, params["cluster_name"], persist, True, params["lock_timeout"])
    except Exception as e:  # whatever it is, the module itself is to tell
        return "%s: %s" % (type(e).__name__, e)
    changes = outcome.plan.changes + ((outcome.record,) if outcome.record else ())
    said = [entry.subject for entry in changes + outcome.plan.problems] + list(outcome.plan.notes)
    return str(said[0]) if said else ""
