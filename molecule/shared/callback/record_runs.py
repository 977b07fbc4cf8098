# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what each playbook run changed, so that tests can compare runs: check mode's prediction with what then happened."""

from __future__ import annotations

import json
import os

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: record_runs
type: aggregate
short_description: Append a line of JSON per run to runs.jsonl of the Molecule scenario
description:
  - "Per run: the playbook, whether in check mode, what changed (host, task and diff), what failed (host, task and message), who was unreachable, and
    which modules were started where (host, task)."
requirements:
  - enable in configuration
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record_runs"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.run = {"playbook": "", "check": bool(context.CLIARGS.get("check")), "changed": [], "failed": [], "unreachable": [], "modules": []}

    def v2_playbook_on_start(self, playbook):
        self.run["playbook"] = os.path.basename(playbook._file_name)

    def v2_runner_on_ok(self, result):
        values = result._result
        if "invocation" in values:  # the parameters that a module on the host was given
            self.run["modules"].append([result._host.name, result._task.get_name()])
        if values.get("changed"):
            diffs = [d for r in values.get("results", [values]) for d in as_list(r.get("diff"))]
            self.run["changed"].append({"host": result._host.name, "task": result._task.get_name(), "diff": diffs})

    def v2_runner_on_failed(self, result, ignore_errors=False):
        if not ignore_errors:
            self.run["failed"].append({"host": result._host.name, "task": result._task.get_name(), "msg": str(result._result.get("msg", ""))})

    def v2_runner_on_unreachable(self, result):
        self.run["unreachable"].append(result._host.name)

    def v2_playbook_on_stats(self, stats):
        folder = os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY")
        if folder:
            with open(os.path.join(folder, "runs.jsonl"), "a", encoding="utf-8") as f:
                f.write(json.dumps(self.run, default=str) + "\n")


def as_list(diff):
    return diff if isinstance(diff, list) else [diff] if diff else []
