# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of kindnet_route: what a node table is made to travel as, and who may have another pod CIDR.

A table given as a list travels as one JSON string. The module hides the table, so that neither the journal of every host nor the
result repeats it. Of a list Ansible would hide each name and address in it instead, wherever else it stands.
"""

from __future__ import annotations

__metaclass__ = type

import json

from ansible.plugins.action import ActionBase

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping, Optional


class ActionModule(ActionBase):
    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if isinstance(arguments.get("nodes"), (list, tuple)):
            arguments["nodes"] = json.dumps(plain(arguments["nodes"]), separators=(",", ":"))
        in_background = self._task.async_val and not self._connection.has_native_async
        done = self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=in_background)
        if done.get("failed") and done.get("field") == "renumbered_nodes":
            # Looked for only now: the variables of a host cost more than all the rest, and there are as many hosts as peers.
            names = done["value"].split(", ")
            if all(looked_for_pods(name, (task_vars or {}).get("hostvars") or {}) for name in names):
                arguments["renumbered_nodes"] = list(arguments["renumbered_nodes"]) + names
                done = self._execute_module(module_args=arguments, task_vars=task_vars)
        result.update(done)
        if not in_background:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result


def looked_for_pods(name: str, hostvars: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the role conflist has gone well there in this run, or was left out because cni_conflist was planned there and had nothing to do."""
    if name not in hostvars:
        return False
    variables = hostvars[name]
    kept = variables.get("__kindnet_conflist") or {"skipped": True}
    if kept.get("skipped"):
        return "cni_conflist" in (variables.get("__kindnet_look") or {}).get("idle", ())
    return not kept.get("failed") and not kept.get("unreachable")


def plain(value: Any) -> Any:
    """The same data without Ansible's own classes, which a JSON encoder need not look into. What is neither stays, and is refused by the module."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, str):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
