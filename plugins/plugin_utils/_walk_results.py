# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of a task on each host, as Ansible registered it: those that answered, and why the others did not. Pure."""

from __future__ import annotations

__metaclass__ = type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping, Tuple

    Data = Dict[str, Any]

LONGEST = 160  # characters of why


def asked(results: Mapping[str, Any]) -> Tuple[Dict[str, Data], Dict[str, str]]:
    """The results of hosts that answered, and of the others why they did not, both by host."""
    good: Dict[str, Data] = {}
    why: Dict[str, str] = {}
    for host, result in results.items():
        if not isinstance(result, dict):
            why[host] = "it took no part in this run"
        elif result.get("unreachable"):
            why[host] = "unreachable: %s" % _brief(result.get("msg"))
        elif result.get("failed"):
            why[host] = "failed: %s" % _brief(result.get("msg"))
        elif result.get("skipped"):
            why[host] = "it was not asked"
        else:
            good[host] = result
    return good, why


def _brief(message: Any) -> str:
    text = " ".join(str(message or "no word why").split())
    text = text.removeprefix("Task failed: ").removesuffix(".")
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
