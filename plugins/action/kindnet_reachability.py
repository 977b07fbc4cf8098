# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks whom, and what it came to, on the controller. Documented in plugins/modules/kindnet_reachability.py."""

from __future__ import annotations

__metaclass__ = type

import json
from datetime import datetime, timezone

from ansible.plugins.action import ActionBase
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_nodes
from ansible_collections.kindnet.host.plugins.plugin_utils import _plan_reachability, _report_files
from ansible_collections.kindnet.host.plugins.plugin_utils._reachability_text import pairs, screen
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_ends import is_blind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

OUTSIDE = "takes no part in this run"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "nodes": {"type": "raw", "required": True},
                "info": {"type": "str", "required": True},
                "answers": {"type": "str"},
                "sample": {"type": "raw", "default": "auto"},
                "seed": {"type": "int", "default": 0},
                "report_dir": {"type": "str", "default": ""},
            }
        )
        here = set(variables.get("ansible_play_hosts_all") or ())
        hostvars = variables["hostvars"]
        try:
            hosts = [
                host_of(node, registered(hostvars, node.name, args["info"]) if node.name in here else None) for node in parse_nodes(args["nodes"])
            ]
            made = _plan_reachability.plan(hosts, _plan_reachability.parse_sample(args["sample"], len(hosts)), args["seed"])
            result.update(changed=False, mode="sampled" if made.sample else "full", sample=made.sample)
            if args["answers"] is None:
                result["sources"] = {name: json.dumps(_plan_reachability.sources_of(flows), separators=(",", ":")) for name, flows in made.flows.items()}
                return result
            told = {name: registered(hostvars, name, args["answers"]) for name in made.flows}
            answers, failures = sorted_out(told)
            entry = _plan_reachability.entry(made, answers, failures, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
            # First, so that nothing that goes wrong with the files costs it. As it is: a matrix is not to be read as a quoted string.
            self._display.display("\n%s\n" % screen(entry))
            folder = _report_files.folder_of(variables.get("ansible_inventory_sources") or (), args["report_dir"])
            path = _report_files.write_reachability(folder, entry)
        except KindnetError as e:
            result.update(failed=True, msg=str(e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        bad: Dict[str, List[Mapping[str, Any]]] = {}
        for one in entry["results"]:
            if _plan_reachability.is_bad(one):
                bad.setdefault(one["source_host"], []).append(one)
        result.update(path=path, reachability=entry, lost={name: "\n".join(line.strip() for line in pairs(some)) for name, some in bad.items()})
        return result


def registered(hostvars: Mapping[str, Mapping[str, Any]], name: str, variable: str) -> Optional[Mapping[str, Any]]:
    return hostvars[name].get(variable) if name in hostvars else None


def host_of(node: Any, info: Optional[Mapping[str, Any]]) -> _plan_reachability.Host:
    """A node of the table, with what its host said of itself."""
    if info is None:
        return _plan_reachability.Host(node.name, node.node_ips, OUTSIDE)
    reason = reason_of(info)
    if reason:
        return _plan_reachability.Host(node.name, node.node_ips, reason, not info.get("unreachable"))
    pod = _plan_reachability.pod_of(node.name, node.pod_cidrs, info.get("pods") or ())
    return _plan_reachability.Host(node.name, node.node_ips, pod=pod, is_blind=is_blind(info))


def reason_of(result: Mapping[str, Any]) -> str:
    """Why a task of a host has nothing to tell; "" if it has."""
    for word in ("unreachable", "failed"):
        if result.get(word):
            return "%s: %s" % (word, result.get("msg") or "no message")
    return "skipped" if result.get("skipped") else ""


def sorted_out(told: Mapping[str, Optional[Mapping[str, Any]]]) -> Tuple[Dict[str, Sequence[Mapping[str, Any]]], Dict[str, str]]:
    """The results of those that asked, and why others did not."""
    answers: Dict[str, Sequence[Mapping[str, Any]]] = {}
    failures: Dict[str, str] = {}
    for name, result in told.items():
        reason = reason_of(result) if result is not None else "was not told to ask"
        if result is None or reason:
            failures[name] = reason
        else:
            answers[name] = result["results"]
    return answers, failures
