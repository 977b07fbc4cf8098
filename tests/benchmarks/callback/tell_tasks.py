# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down what a playbook run did: each task with its seconds, and on how many hosts it started something."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: tell_tasks
type: aggregate
short_description: Write a line of JSON per task to the file KINDNET_TASKS
description:
  - "Per task: its name, its seconds, how many hosts it ran for at all, and for how many a module was started over there."
requirements:
  - enable in configuration
"""

# Of these the controller alone makes the result.
LOCAL = ("validate_argument_spec", "include_tasks", "kindnet_node_table", "debug", "fail", "set_fact", "meta")


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "tell_tasks"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.rows = []

    def v2_playbook_on_task_start(self, task, is_conditional):
        remote = task.action.rpartition(".")[2] not in LOCAL
        self.rows.append({"task": task.get_name(), "remote": remote, "at": time.monotonic(), "done": 0, "skipped": 0, "modules": 0})

    def _count(self, result, key):
        row = self.rows[-1]
        row[key] += 1
        if row["remote"] and key == "done":
            items = result._result.get("results")
            row["modules"] += len(items) if isinstance(items, list) else 1

    def v2_runner_on_ok(self, result):
        self._count(result, "done")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._count(result, "done")

    def v2_runner_on_skipped(self, result):
        self._count(result, "skipped")

    def v2_playbook_on_stats(self, stats):
        ends = [row["at"] for row in self.rows[1:]] + [time.monotonic()]
        with open(os.environ["KINDNET_TASKS"], "w", encoding="utf-8") as f:
            for row, end in zip(self.rows, ends):
                f.write(json.dumps(dict(row, seconds=end - row.pop("at"))) + "\n")
