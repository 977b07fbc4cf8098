# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the report as the cross-host checks look at it, and what they say. Pure."""

from __future__ import annotations

__metaclass__ = type

from typing import Any, Dict, Iterable, Mapping, Set

Data = Dict[str, Any]

CONVERGE = "Run playbooks/kindnet.yml against %s."


def finding(check: str, hosts: Iterable[str], subject: str, message: str) -> Data:
    return {"check": check, "hosts": list(hosts), "subject": subject, "message": message}


def of(host: Data, name: str) -> Any:
    """One value of what a host told of itself; {} if it was not asked or could not tell."""
    return host["info"].get(name) or {}


def could_tell(info: Mapping[str, Any], name: str) -> bool:
    """Whether an empty value is the host's answer, and not what kindnet_info gives when it could not look, or was not to."""
    return info.get(name) is not None and name not in (info.get("unseen") or ())


def listed(host: Data) -> Set[str]:
    """The subjects of which the report already says that they are not as they should be on this host."""
    return {str(entry.get("subject", "")) for key in ("differences", "problems") for entry in host.get(key) or ()}


def mends(host: Data, concern: str) -> bool:
    """Whether a run would change something of this concern on this host."""
    return any(entry.get("concern") == concern for entry in host.get("differences") or ())
