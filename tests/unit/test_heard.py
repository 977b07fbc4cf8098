# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a callback hears of a run: which host was looked at, and which was not."""

from __future__ import annotations

from typing import Any

from ansible_collections.kindnet.host.plugins.plugin_utils._heard import FAILED, IGNORED, OK, SKIPPED, UNREACHABLE, Heard, Task
from ansible_collections.kindnet.host.plugins.plugin_utils._report import host_of

GOOD = {"changed": False, "changes": [], "problems": []}
CHANGING = {"changed": True, "changes": [{"subject": "jump", "action": "add", "before": "", "after": "b", "reason": "so"}], "problems": []}


def ours(host: str, outcome: str = OK, module: str = "kindnet_masq", check_mode: bool = True, ignored: bool = False, delegates: Any = ()) -> Task:
    return Task(host, outcome, "masq", "Masquerade", module, check_mode, ignored, delegates)


def other(host: str, outcome: str, ignored: bool = False) -> Task:
    return Task(host, outcome, name="Something else", ignored=ignored)


def heard(*events: tuple[Task, dict[str, Any]], hosts: Any = ()) -> Heard:
    it = Heard()
    it.begin_play("play")
    for task, result in events:
        it.task(task, result)
    if it.is_of_ours:
        it.hosts_are(hosts)
    return it


def statuses(it: Heard, failures: Any = ()) -> dict[str, str]:
    return {h.name: host_of(h)["status"] for h in it.looked(dict.fromkeys(failures, 1))}


def test_of_a_run_without_our_modules_there_is_nothing_to_say() -> None:
    it = heard((other("a", FAILED), {"msg": "no"}), (other("b", UNREACHABLE), {"msg": "no"}))
    assert not it.looked_at_anything() and statuses(it, ["a"]) == {}


def test_hosts_that_the_play_never_came_to_are_not_in_sync() -> None:
    it = heard((ours("a"), GOOD), hosts=["a", "b"])
    assert statuses(it) == {"a": "in_sync", "b": "failed"}


def test_a_host_that_the_play_has_nothing_for_is_left_out() -> None:
    it = heard((ours("a"), GOOD), (ours("b", SKIPPED), {"skipped": True}), hosts=["a", "b"])
    assert statuses(it) == {"a": "in_sync"}
    it = heard((ours("a"), GOOD), (ours("b", SKIPPED), {"skipped": True}), (other("b", FAILED), {"msg": "no"}), hosts=["a", "b"])
    assert statuses(it, ["b"]) == {"a": "in_sync", "b": "failed"}


def test_a_failure_of_another_task_counts_before_and_after_and_not_if_it_was_rescued() -> None:
    for events in (
        [(other("a", FAILED), {"msg": "no"}), (ours("b"), GOOD)],
        [(ours("a"), GOOD), (ours("b"), GOOD), (other("a", FAILED), {"msg": "no"})],
    ):
        assert statuses(heard(*events, hosts=["a", "b"]), ["a"])["a"] == "failed"
    assert statuses(heard((ours("a"), GOOD), (other("a", FAILED), {"msg": "no"}), hosts=["a"])) == {"a": "in_sync"}


def test_so_does_a_host_that_another_task_loses() -> None:
    assert statuses(heard((ours("b"), GOOD), (other("a", UNREACHABLE), {"msg": "no"}), hosts=["a", "b"])) == {"b": "in_sync", "a": "unreachable"}
    assert statuses(heard((ours("a"), GOOD), (other("a", UNREACHABLE, ignored=True), {"msg": "no"}), hosts=["a"])) == {"a": "in_sync"}


def test_a_failure_in_a_play_that_is_not_ours_is_none_of_our_business() -> None:
    it = heard((other("a", FAILED), {"msg": "no"}))
    it.begin_play("another")
    it.task(ours("a"), GOOD)
    assert statuses(it, ["a"]) == {"a": "in_sync"}


def test_an_error_that_is_ignored_is_one_all_the_same() -> None:
    assert statuses(heard((ours("a", IGNORED), {"failed": True, "msg": "bad"}))) == {"a": "failed"}
    assert statuses(heard((ours("a", UNREACHABLE, ignored=True), {"unreachable": True, "msg": "no"}))) == {"a": "unreachable"}


def test_a_hidden_failure_is_one() -> None:
    assert statuses(heard((ours("a", FAILED), {"censored": "hidden"}))) == {"a": "failed"}
    (looked,) = heard((ours("a"), {"changed": True, "censored": "hidden"})).looked({})
    assert [d["reason"] for d in host_of(looked)["differences"]] == ["hidden"]


def test_items_of_a_loop_are_of_the_host_that_each_was_handed_to() -> None:
    it = heard((ours("a", delegates=["b", "c", ""]), {"changed": True, "results": [CHANGING, CHANGING, {"skipped": True}]}))
    assert statuses(it) == {"b": "drifted", "c": "drifted"}
    assert statuses(heard((ours("a", delegates=["b"]), CHANGING))) == {"b": "drifted"}


def test_a_task_in_the_background_counts_when_it_is_asked_after() -> None:
    started = {"ansible_job_id": "j1", "started": 1, "finished": 0, "changed": True}
    it = heard((ours("a"), started), (ours("b"), {**started, "ansible_job_id": "j2"}), hosts=["a", "b"])
    it.job("a", {**started, "changed": False})
    it.job("a", {**CHANGING, "ansible_job_id": "j1", "finished": True})
    it.job("a", {**CHANGING, "ansible_job_id": "somebody's", "finished": True})
    assert it.looked_at_anything() and statuses(it) == {"a": "drifted", "b": "failed"}


def test_a_batch_that_is_ended_early_fails_those_in_it_alone() -> None:
    it = heard((ours("a"), GOOD), hosts=["a", "b", "c"])
    it.begin_play("play")
    it.task(ours("b"), GOOD)
    it.task(ours("c", FAILED), {"failed": True, "msg": "bad"})
    it.end_batch(["a"])
    assert statuses(it, ["c"]) == {"a": "in_sync", "b": "failed", "c": "failed"}


def test_what_was_found_idle_was_looked_at() -> None:
    it = heard((ours("a", SKIPPED), {"skipped": True}), hosts=["a"])
    it.idle("a", True, {"idle": ["cni_conflist", "kindnet_route"], "busy": {"kindnet_masq": "jump"}})
    (looked,) = it.looked({})
    entry = host_of(looked)
    assert (entry["status"], entry["looked_at"]) == ("in_sync", ["conflist", "routes"])


def test_a_real_run_changes_hosts() -> None:
    assert statuses(heard((ours("a", check_mode=False), CHANGING), (ours("b"), CHANGING))) == {"a": "changed", "b": "drifted"}


def test_the_table_the_cluster_and_what_a_host_tells_of_itself_are_kept() -> None:
    table = {"nodes": {"a": {"node_ips": ["192.0.2.1"], "pod_cidrs": ["10.0.0.0/24"]}}, "changes": []}
    masq = {**GOOD, "invocation": {"module_args": {"cluster_name": "production"}}}
    info = {"changed": False, "node_name": "a", "hostname": "x", "invocation": {"module_args": {"node_name": "a"}}}
    it = heard((ours("a", module="kindnet_node_table"), table), (ours("a"), masq), (ours("a", module="kindnet_info"), info))
    assert it.nodes == [{"name": "a", "node_ips": ["192.0.2.1"], "pod_cidrs": ["10.0.0.0/24"]}]
    assert it.cluster_name == "production" and it.looked({})[0].info == {"node_name": "a", "hostname": "x"}
