# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a packet, on the controller. Documented in plugins/modules/kindnet_walk_verdict.py."""

from __future__ import annotations

__metaclass__ = type

import datetime

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_nodes
from ansible_collections.kindnet.host.plugins.plugin_utils._walk import Cluster, owners_of, walk
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_ends import NODE, End
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_probe import annotate, evidence
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_results import asked
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_text import lines
from ansible_collections.kindnet.host.plugins.plugin_utils._walk_verdict import RIGHT, judge

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
                "nodes": {"type": "raw", "required": True},
                "cluster_cidrs": {"type": "list", "elements": "str", "default": []},
                "ends": {"type": "dict", "required": True},
                "infos": {"type": "dict", "required": True},
                "answers": {"type": "dict", "required": True},
                "sent": {"type": "dict"},
                "seen": {"type": "dict", "default": {}},
                "show": {"type": "bool", "default": True},
            }
        )
        try:
            nodes = parse_nodes(args["nodes"])
        except KindnetError as e:
            result.update(failed=True, msg=str(e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        infos, unasked = asked(args["infos"])
        answers, silent = asked(args["answers"])
        whys = {**{node.name: "it took no part in this run" for node in nodes}, **silent, **unasked}
        known = {**{name: {"why": why} for name, why in whys.items()}, **answers}
        cluster = Cluster(nodes, known, args["cluster_cidrs"])
        there, back = walk(cluster, End(**args["ends"]["source"]), End(**args["ends"]["destination"]))
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        proof, why_unsent = None, ""
        if args["sent"] is not None:
            sent, unsent = asked(args["sent"])
            seen, unseen = asked(args["seen"])
            for way in (there, back):
                annotate(way, seen, {**silent, **unasked, **unseen})
            source = args["ends"]["source"]["node"]
            if source in sent:
                proof = evidence(there, back, sent[source], seen, owners_of(cluster))
            else:
                why_unsent = unsent.get(source, "it took no part in this run")
                there.remarks.append("no probe was sent (%s)" % why_unsent)
        verdict = judge(cluster, there, back, infos, today, proof, "" if self._task.check_mode else why_unsent)
        text = lines((there, back), verdict.sentence)
        if args["show"] and not str(constants.DEFAULT_STDOUT_CALLBACK).endswith("json"):  # what prints for a program has it in the result
            Display().display("\n".join(text))
        result.update(
            changed=False,
            delivered=verdict.status in RIGHT,
            sentence=verdict.sentence,
            status=verdict.status,
            hop=verdict.hop,
            reason=verdict.reason,
            hops=there.hops + back.hops,
            nodes=sorted({hop["where"] for hop in there.hops + back.hops if hop["kind"] == NODE} | set(args["ends"]["nodes"])),
            text=text,
            _ansible_verbose_override=True,
        )
        return result
