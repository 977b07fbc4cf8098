# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's entry out of the ledger, on the controller. Documented in plugins/modules/kindnet_free_pod_cidrs.py."""

from __future__ import annotations

__metaclass__ = type

from ansible.plugins.action import ActionBase
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._plan import diff_of
from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import plan_free, refuse_other_cluster

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

    from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Ledger, LedgerPlan

LOCK_TIMEOUT = 30.0


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "group": {"type": "str", "default": "kindnet_nodes"},
                "ledger": {"type": "str"},
                "cluster_name": {"type": "str", "default": "kindnet"},
            }
        )
        name = args["name"]
        listed = name in (variables["groups"].get(args["group"]) or ())
        freed: List[str] = []

        def decide(ledger: Optional[Ledger]) -> LedgerPlan:
            if ledger is not None:
                refuse_other_cluster(ledger, args["cluster_name"])
                freed[:] = [block.text for block in ledger.pod_cidrs.get(name, ())]
            return plan_free(ledger, name, listed)

        try:
            path = _ledger_file.find(variables.get("ansible_inventory_sources") or (), args["ledger"], required=False)
            plan = (_ledger_file.update(path, decide, self._task.check_mode, LOCK_TIMEOUT) if path else plan_free(None, name)).plan
        except KindnetError as e:
            result.update(failed=True, msg=str(e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        result.update(
            changed=bool(plan.changes),
            diff=dict(diff_of(plan), before_header=path, after_header=path) if plan.changes else [],
            pod_cidrs=freed,
            listed=listed,
            ledger=path,
        )
        return result
