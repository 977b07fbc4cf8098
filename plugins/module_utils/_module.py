# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an AnsibleModule to a concern and back: options that every module has, and the shape of a result."""

from __future__ import annotations

__metaclass__ = type

import platform

from ._converge import converge
from ._errors import KindnetError
from ._plan import Plan, diff_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

    from ._converge import Concern, Outcome

COMMON_OPTIONS: Dict[str, Dict[str, Any]] = {
    "cluster_name": {"type": "str", "default": "kindnet"},
    "lock_timeout": {"type": "float", "default": 30.0},
    "persist": {"type": "bool", "default": True},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
}


def run(module: Any, concern: Concern, extra: Optional[Callable[[Outcome], Dict[str, Any]]] = None) -> None:
    """Converge ``concern`` with the module's parameters and end the module.

    :param extra: further values for the result, made from the outcome.
    """
    params = module.params
    host = params.get("node_name") or platform.node()
    try:
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
        "diff": diff_of(Plan(changes)),
        "changes": [{"subject": c.subject, "action": c.action, "reason": c.reason} for c in changes],
        "problems": [p._asdict() for p in outcome.plan.problems + outcome.failures],
        "notes": list(outcome.plan.notes),
        "invocation": short_invocation(params),
    }
    if extra:
        result.update(extra(outcome))
    for note in outcome.plan.notes:
        module.warn("%s: %s" % (host, note))
    if result["problems"]:
        module.fail_json(msg="\n".join("%s: %s: %s" % (host, p["subject"], p["message"]) for p in result["problems"]), **result)
    module.exit_json(**result)


def short_invocation(params: Dict[str, Any]) -> Dict[str, Any]:
    """The parameters for the result, without repeating a long table once per host."""
    return {"module_args": {k: "(%d bytes)" % len(v) if isinstance(v, str) and len(v) > 1000 else v for k, v in params.items()}}
