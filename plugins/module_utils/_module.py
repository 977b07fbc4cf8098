# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an AnsibleModule to a concern and back: options that every module has, and the shape of a result."""

from __future__ import annotations

__metaclass__ = type

import os
import platform

from ._converge import converge
from ._desired import FILE
from ._errors import KindnetError
from ._plan import Plan, as_data, diff_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional

    from ._converge import Concern, Outcome

COMMON_OPTIONS: Dict[str, Dict[str, Any]] = {
    "cluster_name": {"type": "str", "default": "kindnet"},
    "lock_timeout": {"type": "float", "default": 30.0},
    "persist": {"type": "bool", "default": True},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
}

# Entries of each list in the result. A controller keeps what every host told, and a first run has as many changes per host as there are hosts.
TOLD = 100
# Of a failure: the same, and problems with a line of their own in the message; further ones that are named.
LISTED, NAMED = 20, 100


def run(module: Any, concern: Concern, extra: Optional[Callable[[Outcome], Dict[str, Any]]] = None) -> None:
    """Converge ``concern`` with the module's parameters and end the module.

    :param extra: further values for the result, made from the outcome.
    """
    params = module.params
    host = params.get("node_name") or platform.node()
    try:
        # In check mode too, where part of it could be read: a real run would fail.
        if os.geteuid() != 0:
            raise KindnetError("user", "uid %d" % os.geteuid(), "may not look at and change all that this takes", "Run as root (become: true).")
        outcome = converge(
            concern,
            params,
            cluster_name=params["cluster_name"],
            persist=params["persist"],
            check_mode=module.check_mode,
            lock_timeout=params["lock_timeout"],
        )
    except KindnetError as e:
        module.fail_json(
            msg="%s: %s" % (host, e), host=host, field=e.field, value=str(e.value), remedy=e.remedy, invocation=short_invocation(params)
        )
    changes = outcome.plan.changes + ((outcome.record,) if outcome.record else ())
    result: Dict[str, Any] = {
        "changed": bool(changes),
        "changes": as_data(changes),
        "problems": [p._asdict() for p in outcome.plan.problems + outcome.failures],
        "notes": list(outcome.plan.notes),
        "invocation": short_invocation(params),
    }
    if module._diff:
        result["diff"] = diff_of(Plan(changes))  # the same once more, for people
    if extra:
        result.update(extra(outcome))
    for note in outcome.plan.notes:
        module.warn("%s: %s" % (host, note))
    if result["problems"]:
        # Ansible prints all of a failure: nobody is to look for the message among thousands of routes.
        module.fail_json(msg=message_of(host, result["problems"]), **in_brief(result, LISTED))
    module.exit_json(**in_brief(result, TOLD))


def message_of(host: str, problems: List[Dict[str, str]]) -> str:
    """A line for each problem. Of a great many, as when the link to all peers is down, the rest by their names alone."""
    lines = ["%s: %s: %s" % (host, p["subject"], p["message"]) for p in problems[:LISTED]]
    rest = [p["subject"] for p in problems[LISTED:]]
    if rest:
        names = ", ".join(rest[:NAMED]) + (", ..." if len(rest) > NAMED else "")
        lines.append("%s: %d more problems: %s. 'kindnet-reconcile --check' on the host tells all." % (host, len(rest), names))
    return "\n".join(lines)


def in_brief(result: Dict[str, Any], most: int) -> Dict[str, Any]:
    """The result with at most so many entries in each list, and how many were left out: of additions first, and never the record."""
    long = {key: value for key, value in result.items() if isinstance(value, list) and len(value) > most}
    if not long:
        return result
    kept = {key: [value[i] for i in sorted(sorted(range(len(value)), key=lambda i: _rank(value[i]))[:most])] for key, value in long.items()}
    return dict(result, left_out={key: len(value) - most for key, value in long.items()}, **kept)


def _rank(entry: Any) -> int:
    """What is not told for lack of room comes last."""
    if not isinstance(entry, dict):
        return 1
    return 0 if entry.get("subject") == FILE else 2 if entry.get("action") == "add" else 1


def short_invocation(params: Dict[str, Any]) -> Dict[str, Any]:
    """The parameters for the result, without repeating a long table once per host."""
    return {"module_args": {k: "(%d bytes)" % len(v) if isinstance(v, str) and len(v) > 1000 else v for k, v in params.items()}}
