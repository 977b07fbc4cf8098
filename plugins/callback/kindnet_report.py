# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
name: kindnet_report
type: aggregate
short_description: Report what any run of any playbook found out about the hosts, or changed
version_added: "0.2.0"
description:
  - Makes the report of C(playbooks/drift.yml) of each run in which modules of this collection have part, such as
    C(playbooks/kindnet.yml --check), or a playbook of your own. One line per host at the end of the run, and C(drift.json), C(drift.xml),
    C(drift.html) and C(map.mmd), see C(docs/drift.md).
  - Of a run that is not in check mode, hosts are V(changed) by what the modules have changed on them, and then as wanted.
  - A host that a run did not come to, or lost, is reported as unreachable or failed, whatever it had found out by then.
  - Says and writes nothing of a run in which none of the modules has part, nor of C(playbooks/drift.yml), which does so itself.
  - A failure of this plugin is one warning, and not one of the run.
options:
  report_dir:
    description:
      - Folder for the files; made if it is missing. A relative one starts where the first inventory source is, beside it.
      - By default what the variable C(kindnet_report_dir) says, if the inventory or C(-e) has it as plain text, or C(kindnet-report) there.
    type: str
    env:
      - name: KINDNET_REPORT_DIR
    ini:
      - section: callback_kindnet_report
        key: report_dir
requirements:
  - enabling in configuration, C(callbacks_enabled = kindnet.host.kindnet_report)
author:
  - the kindnet.host authors (@kindnet-host)
"""

import functools
import os
import time

from ansible.plugins.callback import CallbackBase
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils import _report, _report_files
from ansible_collections.kindnet.host.plugins.plugin_utils._heard import FAILED, IGNORED, OK, SKIPPED, UNREACHABLE, Heard, Task
from ansible_collections.kindnet.host.plugins.plugin_utils._own_code import own_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List

COLLECTION = "kindnet.host"
REPORT = "kindnet_report"
IDLE = "kindnet_idle"
ASYNC_STATUS = "async_status"
# Tasks of the role prerequisites that change something by modules which are not ours.
PREREQUISITES = "kindnet.host.prerequisites"
IN_PREREQUISITES = {"Install packages": _report.PACKAGES, "Unpack pyroute2": _report.PYROUTE2}


def module_of(task: Any) -> str:
    """Which of our modules a task is of, by its short name; "" if it is none of our business."""
    collection, _dot, name = str(getattr(task, "resolved_action", None) or task.action).rpartition(".")
    if name == ASYNC_STATUS:
        return name
    if (name in (REPORT, IDLE) or name in _report.CONCERN_OF) and collection in ("", COLLECTION):
        return name
    if task.name in IN_PREREQUISITES and task._role is not None and task._role.get_name(include_role_fqcn=True) == PREREQUISITES:
        return IN_PREREQUISITES[task.name]
    return ""


def harmless(event: Callable[..., None]) -> Callable[..., None]:
    """An event that fails is one warning, and the last one that is listened to: the report would lack something from then on."""

    @functools.wraps(event)
    def heard(self: CallbackModule, *args: Any, **kwargs: Any) -> None:
        if self.broken:
            return
        try:
            event(self, *args, **kwargs)
        except Exception as e:  # whatever it is: the run is none of its business
            self.broken = True
            self._display.warning("kindnet_report: there will be no report of this run: %s: %s" % (type(e).__name__, e))

    return heard


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kindnet.host.kindnet_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.playbook = ""
        self.play: Any = None
        self.host: Any = None  # the first one
        self.variables: Dict[str, Any] = {}
        self.delegates: Dict[Any, List[str]] = {}  # of the items of loops that have not ended
        self.heard = Heard()

    @harmless
    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.playbook = os.path.basename(playbook._file_name)

    @harmless
    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._end_batch()
        self.play = play
        self.heard.begin_play(play._uuid)

    @harmless
    def v2_runner_on_ok(self, result: Any) -> None:
        self._listen(result, OK)

    @harmless
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._listen(result, IGNORED if ignore_errors else FAILED)

    @harmless
    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._listen(result, UNREACHABLE)

    @harmless
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._listen(result, SKIPPED)

    @harmless
    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._listen_to_item(result)

    @harmless
    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._listen_to_item(result)

    @harmless
    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._listen_to_item(result)

    def _listen_to_item(self, result: Any) -> None:
        """Only here it is known whom an item was handed to; the end of the task tells the rest."""
        if module_of(result._task):
            self.delegates.setdefault((result._host.name, result._task._uuid), []).append(str(result._task.delegate_to or ""))

    def _end_batch(self) -> None:
        if self.heard.is_of_ours:
            self.heard.end_batch(self.play.get_variable_manager().get_vars(play=self.play).get("ansible_play_hosts") or ())

    def _listen(self, result: Any, outcome: str) -> None:
        task = result._task
        module = module_of(task)
        # Of most tasks nothing is to be known, and looking at a result costs.
        if module == REPORT:
            self.heard.has_reported = True
        elif module == ASYNC_STATUS:
            self.heard.job(result._host.name, result._result)
        elif module == IDLE and outcome == OK:
            self.heard.idle(result._host.name, bool(task.check_mode), result._result)
        elif module or outcome in (FAILED, UNREACHABLE):
            concern = "" if module == IDLE else _report.CONCERN_OF.get(module, module)
            delegates = self.delegates.pop((result._host.name, task._uuid), [str(task.delegate_to or "")])
            ended = Task(result._host.name, outcome, concern, task.get_name(), module, bool(task.check_mode), bool(task.ignore_unreachable), delegates)
            self.heard.task(ended, result._result)
            if module and not self.heard.knows_hosts:
                # Not before it is known that this play is any of our business.
                self.host = self.host or result._host
                self.variables = self.play.get_variable_manager().get_vars(play=self.play)
                self.heard.hosts_are(self.variables.get("ansible_play_hosts_all") or ())

    @harmless
    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end_batch()
        if self.heard.has_reported or not self.heard.looked_at_anything():
            return
        exit_code = 4 if stats.dark else 2 if stats.failures else 0
        run = _report.Run(
            playbook=self.playbook,
            cluster_name=self.heard.cluster_name,
            generated=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            limit=str(self.variables.get("ansible_limit") or ""),
            nodes=self.heard.nodes,
            exit_code=exit_code,
            code=own_code(),
        )
        report = _report.report_of(run, self.heard.looked(stats.failures))
        # First, so that nothing that goes wrong with the files costs them.
        self._display.banner("KINDNET REPORT")
        for line in _report.lines_of(report):
            self._display.display(line)
        try:
            self._display.display("The report: %s" % ", ".join(_report_files.write(self._folder(), report)))
        except KindnetError as e:
            self._display.warning("kindnet_report: %s" % e)

    def _folder(self) -> str:
        explicit = self.get_option("report_dir")
        if not explicit:
            told = str(self.play.get_variable_manager().get_vars(play=self.play, host=self.host).get(_report_files.FIELD) or "")
            explicit = "" if "{{" in told else told
        return _report_files.folder_of(self.variables.get("ansible_inventory_sources") or (), explicit)
