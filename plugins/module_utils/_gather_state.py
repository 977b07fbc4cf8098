# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps this host in sync, by which versions, and what it was told. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

import hashlib
import os
import re
import time

from . import _code_folder, _desired, _files, _firewall, _history, _pause, _problem_memory, _pyroute2_dep, _systemd
from ._conflist_data import stores_of
from ._reconcile_cli import SERVICE, SINCE, TIMER, WATCH, last_pass, paused_for, since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    Data = Dict[str, Any]

TOOLS = {"iptables": "-V", "nft": "-v", "containerd": "--version"}
TOOL_TIME = 5.0  # seconds for a program to say its version
VERSION = re.compile(r"\bv?([0-9]+\.[0-9][^\s,]*)( \((?:nf_tables|legacy)\))?")


def code() -> Tuple[str, str]:
    """The collection's version and the digest of the code that passes run; "" without any."""
    link = os.path.join(_code_folder.LIBRARY, "current")
    try:
        digest = os.path.basename(os.readlink(link))
    except OSError:
        return "", ""
    source = _files.read_bytes(os.path.join(link, _code_folder.PACKAGE, "_reconcile.py")) or b""
    said = re.search(rb'^VERSION = "([^"]+)"', source, re.MULTILINE)
    return said.group(1).decode("ascii", "replace") if said else "", digest


def pyroute2() -> str:
    """The version of the pyroute2 that a change of routes here would take; "" without it, or if it does not say."""
    import importlib.metadata

    folders = [_pyroute2_dep.FOLDER] if os.path.isdir(_pyroute2_dep.FOLDER) else []
    for found in [*importlib.metadata.distributions(name="pyroute2", path=folders)] if folders else ():
        return str(found.version)
    try:
        return importlib.metadata.version("pyroute2")
    except importlib.metadata.PackageNotFoundError:
        return ""


def tool(name: str) -> str:
    """What a program says its version is; "" where it is not installed."""
    path = _firewall.find(name) or ("/usr/local/bin/" + name if os.access("/usr/local/bin/" + name, os.X_OK) else "")
    if not path:
        return ""
    return version_in(_firewall.run([path, TOOLS[name]], b"", TOOL_TIME).out)


def version_in(text: str) -> str:
    """Pure. The first thing in ``text`` that looks like a version, and of iptables which flavour it is."""
    match = VERSION.search(text)
    return match.group(1) + (match.group(2) or "") if match else ""


def recorded_file() -> Tuple[str, str]:
    """The digest of desired.json, and when it was written; "" without one."""
    content = _files.read_bytes(_desired.FILE)
    if content is None:
        return "", ""
    return hashlib.sha256(content).hexdigest()[:16], time.strftime(_history.ISO_8601, time.gmtime(os.stat(_desired.FILE).st_mtime))


def own_pod_cidrs(conflist: Data) -> List[str]:
    """Pure. This node's pod CIDRs as its recorded section of the CNI configuration has them."""
    return list(conflist.get("pod_cidrs") or [cidr for cidrs in stores_of(conflist.get("conflist")).values() for cidr in cidrs])


def timer() -> Data:
    """The timer of the passes, and how the last one ended."""
    shown = _systemd.show(TIMER, "ActiveState", "UnitFileState", *SINCE)
    service = _systemd.show(SERVICE, "ActiveState", "Result", "ExecMainStatus", "ExecMainExitTimestampMonotonic")
    return {
        "active": shown.get("ActiveState", ""),
        "enabled": shown.get("UnitFileState") or "not installed",
        "since": since(shown),
        "last_pass": last_pass(service),
    }


def paused_seconds() -> Optional[int]:
    return paused_for(_pause.remaining())


def problems() -> List[Dict[str, str]]:
    return [{"subject": subject, "message": str(known["message"])} for subject, known in _problem_memory.load().items()]


def watch() -> Data:
    shown = _systemd.show(WATCH, "ActiveState", "UnitFileState")
    return {"active": shown.get("ActiveState", ""), "enabled": shown.get("UnitFileState") or "not installed"}


def sysctl(key: str) -> str:
    """The value of a setting; "" where the kernel does not know it."""
    try:
        with open("/proc/sys/" + key) as f:
            return f.read().strip()
    except OSError:
        return ""
