# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between whom a packet is walked, on the controller. Documented in plugins/modules/kindnet_walk_ends.py."""

from __future__ import annotations

__metaclass__ = type

import random

from ansible.plugins.action import ActionBase
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_nodes
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_ends import POD, find_ends, flows_of
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_results import asked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "src": {"type": "str", "default": ""},
                "dst": {"type": "str", "default": ""},
                "nodes": {"type": "raw", "required": True},
                "infos": {"type": "dict", "required": True},
            }
        )
        try:
            nodes = parse_nodes(args["nodes"])
            infos, _why = asked(args["infos"])
            source, destination = find_ends(args["src"], args["dst"], nodes, infos)
        except KindnetError as e:
            result.update(failed=True, msg=str(e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        pods: Dict[str, Any] = {}
        for end in (source, destination):
            if end.kind == POD:
                pods.setdefault(end.node, []).append({"address": end.address, "netns": end.netns})
        result.update(
            changed=False,
            source=source._asdict(),
            destination=destination._asdict(),
            flows=flows_of(source, destination, nodes, infos),
            pods=pods,
            nodes=sorted({end.node for end in (source, destination) if end.node}),
            probe_id=random.randint(1, 0xFFFF),
        )
        return result
