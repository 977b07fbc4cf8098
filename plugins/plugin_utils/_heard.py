# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a callback hears of a run, kept until its end: which host was looked at, which was not, and what was found. Knows no Ansible."""

from __future__ import annotations

__metaclass__ = type

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from ._report import CONCERN_OF, Found, Looked, each, info_of, is_failure

OK, FAILED, IGNORED, UNREACHABLE, SKIPPED = "ok", "failed", "ignored", "unreachable", "skipped"

# Of results there may be thousands, and most of what is in them is not for a report.
KEPT = (
    *("changed", "failed", "unreachable", "msg", "host", "changes", "problems", "notes", "unseen"),
    *("left_out", "censored", "missing_packages", "module_stderr"),
)


class Task(NamedTuple):
    """A task whose end a host has come to."""

    host: str
    outcome: str
    concern: str = ""  # none: it is not of a module of ours
    name: str = ""
    module: str = ""
    check_mode: bool = False
    ignored: bool = False  # that the host could not be reached
    delegates: Sequence[str] = ()  # to whom each item, or the task, was handed; "" if to nobody


class Host:
    """What was heard of one host."""

    def __init__(self) -> None:
        self.found: List[Found] = []
        self.check_mode: List[bool] = []
        self.info: Optional[Dict[str, Any]] = None
        self.skipped = False
        self.failure: Optional[Mapping[str, Any]] = None  # of a task that is not ours, the last one
        self.is_cut_off = False


class Heard:
    def __init__(self) -> None:
        self.hosts: Dict[str, Host] = {}
        self.cluster_name = "kindnet"
        self.nodes: List[Dict[str, Any]] = []
        self.is_of_ours = False  # the play at hand
        self.knows_hosts = False  # who is in it
        self.has_reported = False  # the playbook itself
        self._others: List[Tuple[Task, Mapping[str, Any]]] = []  # failures in this play before it is known to be one of ours
        self._batch: Set[str] = set()
        self._plays: Dict[str, Tuple[bool, bool]] = {}
        self._play = ""
        self._jobs: Dict[Tuple[str, str], Task] = {}

    def begin_play(self, play: str) -> None:
        """A play begins, or the next batch of one."""
        self._plays[self._play] = (self.is_of_ours, self.knows_hosts)
        self._play = play
        self.is_of_ours, self.knows_hosts = self._plays.get(play, (False, False))
        self._batch = set()
        self._others = []

    def hosts_are(self, names: Sequence[str]) -> None:
        """All hosts of the play, those included that it never comes to."""
        self.knows_hosts = True
        for name in names:
            self._host(name)

    def task(self, task: Task, result: Mapping[str, Any]) -> None:
        """The end of a task of ours, or of another one that failed or could not reach the host."""
        if not task.concern:
            self._other(task, result)
            return
        if not self.is_of_ours:
            self.is_of_ours = True
            for other, values in self._others:
                self._other(other, values)
        for number, item in enumerate(each(result)):
            host = (task.delegates[number : number + 1] or [""])[0] or task.host
            self._batch.add(host)
            if task.outcome == SKIPPED or item.get("skipped"):
                self._host(host).skipped = True
            elif item.get("ansible_job_id") and not item.get("finished"):
                self._jobs[host, str(item["ansible_job_id"])] = task
            else:
                # A hidden result (no_log) does not say how the task ended.
                self._keep(host, task, item if item is not result or task.outcome not in (FAILED, IGNORED) else dict(item, failed=True))

    def idle(self, host: str, check_mode: bool, result: Mapping[str, Any]) -> None:
        """The answer of kindnet_idle: these modules have looked, and their tasks are left out."""
        for module in result.get("idle") or ():
            self.task(Task(host, OK, CONCERN_OF[module], module=module, check_mode=check_mode), {"changed": False})

    def job(self, host: str, result: Mapping[str, Any]) -> None:
        """The answer to a question about a task in the background."""
        for item in each(result):
            key = (host, str(item.get("ansible_job_id")))
            if item.get("finished") and key in self._jobs:
                self._keep(host, self._jobs.pop(key), item)

    def end_batch(self, remaining: Sequence[str]) -> None:
        """Those who began and do not remain were not done to the end, be it because of others."""
        for name in self._batch.difference(remaining):
            self._host(name).is_cut_off = True

    def looked_at_anything(self) -> bool:
        return any(host.found for host in self.hosts.values()) or bool(self._jobs)

    def looked(self, failures: Mapping[str, int]) -> List[Looked]:
        """The hosts in their order.

        :param failures: hosts that failed and were not rescued, as Ansible counts them.
        """
        for (name, _job), task in self._jobs.items():
            self._keep(name, task, {"failed": True, "msg": "was started in the background, and nobody waited for its end"})
        looked = []
        for name, host in self.hosts.items():
            if host.skipped and not host.found and name not in failures:
                continue  # the play has nothing for it
            found = list(host.found)
            is_told = any(f.result.get("unreachable") or f.result.get("problems") or is_failure(f.result) for f in found)
            if not is_told and host.failure is not None and name in failures:
                found.append(Found("other tasks", host.failure))
            elif not is_told and host.is_cut_off:
                found.append(Found("other tasks", {"failed": True, "msg": "the run was ended before it was done with this host"}))
            looked.append(Looked(name, found, info=host.info, check_mode=all(host.check_mode)))
        return looked

    def _host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host())

    def _other(self, task: Task, result: Mapping[str, Any]) -> None:
        self._batch.add(task.host)
        if not self.is_of_ours:
            self._others.append((task, result))
        elif task.outcome == FAILED:
            self._host(task.host).failure = {"failed": True, "msg": "%s: %s" % (task.name, result.get("msg") or "failed")}
        elif task.outcome == UNREACHABLE and not task.ignored:
            self._host(task.host).found.append(Found("host", {"unreachable": True, "msg": result.get("msg")}))

    def _keep(self, name: str, task: Task, result: Mapping[str, Any]) -> None:
        host = self._host(name)
        host.check_mode.append(task.check_mode)
        host.found.append(Found(task.concern, {key: result[key] for key in KEPT if key in result}))
        if task.module == "kindnet_info":
            host.info = info_of(result)
        elif task.module == "kindnet_node_table" and isinstance(result.get("nodes"), Mapping):
            self.nodes = [dict(values, name=node) for node, values in result["nodes"].items()]
        arguments = (result.get("invocation") or {}).get("module_args") or {}
        if task.module in CONCERN_OF and arguments.get("cluster_name"):
            self.cluster_name = str(arguments["cluster_name"])
