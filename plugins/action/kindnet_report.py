# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of playbooks/drift.yml, on the controller. Documented in plugins/modules/kindnet_report.py."""

from __future__ import annotations

__metaclass__ = type

import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils import _report, _report_files
from ansible_collections.kindnet.host.plugins.plugin_utils._own_code import own_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional

# By the names under which the roles keep the results of their tasks, in the order of a run.
REGISTERED = {
    "__kindnet_info": "kindnet_info",
    "__kindnet_host": "kindnet_host_info",
    "__kindnet_packages_predicted": _report.PACKAGES,
    "__kindnet_pyroute2_predicted": _report.PYROUTE2,
    "__kindnet_archive": "cni_plugin_archive",
    "__kindnet_archives_removed": "cni_plugin_archive",
    "__kindnet_sysctl": "kindnet_sysctl",
    "__kindnet_cni_plugins": "cni_plugin_links",
    "__kindnet_neighbours": "kindnet_neighbours",
    "__kindnet_masq": "kindnet_masq",
    "__kindnet_conflist": "cni_conflist",
    "__kindnet_reconcile": "kindnet_reconcile",
    "__kindnet_routes": "kindnet_route",
}
# What the playbook notes of a role that failed.
KEPT_FROM = {
    "__kindnet_kept_from_prerequisites": "host",
    "__kindnet_kept_from_neighbours": "neighbours",
    "__kindnet_kept_from_masquerade": "masq",
    "__kindnet_kept_from_conflist": "conflist",
    "__kindnet_kept_from_reconcile": "reconcile",
    "__kindnet_kept_from_routes": "routes",
}
TABLE = "__kindnet_nodes"
EXPECTED = ("host", "sysctl", "cni_plugins", "neighbours", "masq", "conflist", "reconcile", "routes")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "report_dir": {"type": "str", "default": ""},
                "cluster_name": {"type": "str", "default": "kindnet"},
                "playbook": {"type": "str", "default": "drift.yml"},
                "verdict": {"type": "dict"},
            }
        )
        result["changed"] = False
        if args["verdict"] is not None:
            result.update(ended(args["verdict"]))
            return result
        report = self._report(args, variables)
        folder = _report_files.folder_of(variables.get("ansible_inventory_sources") or (), args["report_dir"])
        # First, so that nothing that goes wrong with the files costs them.
        for line in _report.lines_of(report):
            Display().display(line)
        try:
            files, problem = _report_files.write(folder, report), ""
        except KindnetError as e:
            files, problem = [], str(e)
        Display().display(problem or "The report: %s" % ", ".join(files))
        result.update(
            verdicts={host["name"]: {"status": host["status"], "line": host["line"]} for host in report["hosts"]},
            totals=report["totals"],
            verdict=report["verdict"],
            files=files,
            problem=problem,
            # The lines above say it all.
            _ansible_verbose_override=True,
        )
        return result

    def _report(self, args: Mapping[str, Any], variables: Mapping[str, Any]) -> Dict[str, Any]:
        hostvars = variables["hostvars"]
        looked: List[_report.Looked] = []
        nodes: List[Dict[str, Any]] = []
        first = True
        for name in variables["ansible_play_hosts_all"]:
            # Once per host and for the whole play. Nothing in it is a template.
            kept = hostvars.raw_get(name)
            table = kept.get(TABLE) or {}
            found = []
            if table.get("failed"):
                found.append(_report.Found("node_table", table))
            elif first and table.get("nodes"):
                first = False
                nodes = [dict(values, name=node) for node, values in table["nodes"].items()]
            for variable, module in REGISTERED.items():
                if variable in kept:
                    found.append(_report.Found(_report.CONCERN_OF.get(module, module), kept[variable]))
            for variable, concern in KEPT_FROM.items():
                # Of its own only what no task of ours says, such as an argument of the role that is wrong.
                why = str((kept.get(variable) or {}).get("msg") or "")
                if why and not any(str(f.result.get("msg") or why + "!") in why for f in found):
                    found.append(_report.Found(concern, {"failed": True, "msg": why}))
            looked.append(_report.Looked(name, found, EXPECTED, _report.info_of(kept.get("__kindnet_info"))))
        run = _report.Run(
            playbook=args["playbook"],
            cluster_name=args["cluster_name"],
            generated=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            limit=str(variables.get("ansible_limit") or ""),
            nodes=nodes,
            code=own_code(),
        )
        return _report.report_of(run, looked)


def ended(verdict: Mapping[str, Any]) -> Dict[str, Any]:
    """How a host's part of the run ends: by this, Ansible knows its exit code."""
    status = verdict["status"]
    return {
        "msg": verdict["line"],
        "failed": status in (_report.DRIFTED, _report.FAILED),
        "unreachable": status == _report.UNREACHABLE,
    }
