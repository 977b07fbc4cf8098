# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/drift.yml and the callback in real runs of Ansible that do not go well: whatever happens there is a report, and it shows no host in sync
that was not looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from cni_sandbox import ROOT, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SCHEMA = json.loads((ROOT / "docs/drift.schema.json").read_text())
ANSIBLE = os.environ.get("ANSIBLE_PLAYBOOK", str(Path(sys.executable).parent / "ansible-playbook"))
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
GONE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}  # nobody listens


def hosts(*names: str, **more: dict[str, Any]) -> dict[str, Any]:
    """Hosts of this machine by name, and further ones with their variables."""
    found = {name: dict(LOCAL) for name in names}
    for name, variables in more.items():
        found[name] = {**(GONE if name.startswith("gone") else LOCAL), **variables}
    for number, (name, variables) in enumerate(sorted(found.items())):
        found[name] = {"kindnet_node_ips": ["192.0.2.%d" % (number + 1)], "kindnet_pod_cidrs": ["10.244.%d.0/24" % number], **variables}
    return found


class Controller:
    def __init__(self, folder: Path) -> None:
        self.sandbox = Sandbox(folder)
        self.folder = folder / "playbook"
        self.report_dir = self.folder / "kindnet-report"

    def run(
        self, playbook: Any, members: dict[str, Any], *arguments: str, variables: dict[str, Any] | None = None, others: Any = None, **environment: str
    ) -> int:
        """Run one of the playbooks, or plays, in the sandbox; its exit code. There is no report of an earlier run."""
        group = {"hosts": members, "vars": {"kindnet_cluster_cidrs": ["10.244.0.0/16"], "kindnet_install_packages": False, **(variables or {})}}
        self.sandbox.write(str(self.folder / "inventory.yml"), json.dumps({"kindnet_nodes": group, "others": {"hosts": others or {}}}))
        self.sandbox.run("rm", "-rf", str(self.report_dir))
        if not isinstance(playbook, str):
            self.sandbox.write(str(self.folder / "mine.yml"), json.dumps(playbook))
        path = ROOT / "playbooks" / playbook if isinstance(playbook, str) else self.folder / "mine.yml"
        values = {"ANSIBLE_HOME": str(self.folder / "home"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_SSH_RETRIES": "0"}
        done = self.sandbox.run(ANSIBLE, "-i", str(self.folder / "inventory.yml"), str(path), *arguments, check=False, env={**values, **environment})
        self.output = done.stdout + done.stderr
        return done.returncode

    def state(self) -> tuple[str, str]:
        """All that was ever written in the sandbox, and its network."""
        network = self.sandbox.sh("ip -json route show table all; ip -json address; nft list ruleset; sysctl net.ipv4.ip_forward")
        return self.sandbox.tree(str(self.sandbox.folder / "upper"), "/run"), network

    def heard(self, playbook: Any, members: dict[str, Any], *arguments: str, **more: Any) -> int:
        return self.run(playbook, members, *arguments, ANSIBLE_CALLBACKS_ENABLED="kindnet.host.kindnet_report", **more)

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = self.sandbox.json(str(self.report_dir / "drift.json"))  # type: ignore[assignment]
        jsonschema.validate(report, SCHEMA)
        ElementTree.fromstring(self.sandbox.read(str(self.report_dir / "drift.xml")).encode())
        assert "</html>" in self.sandbox.read(str(self.report_dir / "drift.html"))
        for host in report["hosts"]:
            assert "%s: %s" % (host["name"], host["line"]) in self.output.splitlines(), self.output
        return report

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {h["name"]: h for h in self.report()["hosts"]}

    def statuses(self) -> dict[str, str]:
        return {name: host["status"] for name, host in self.hosts().items()}


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Any:
    controller = Controller(tmp_path_factory.mktemp("controller"))
    yield controller
    controller.sandbox.close()


class TestPlaybook:
    def test_a_role_that_fails_costs_its_concern_and_nothing_is_changed(self, controller: Controller) -> None:
        before = controller.state()
        members = hosts("a", wrong={"kindnet_reconcile_interval": "often", "kindnet_max_removals": -1}, gone={})
        assert controller.run("drift.yml", members) == 4, controller.output
        assert controller.state() == before
        report, found = controller.report(), controller.hosts()
        assert (report["exit_code"], report["verdict"], report["limit"], report["check_mode"]) == (4, "unreachable", "", True)
        assert found["gone"]["status"] == "unreachable" and not found["gone"]["looked_at"] and found["gone"]["info"] is None
        assert found["wrong"]["status"] == "failed"
        failures = {f["concern"]: f["message"] for f in found["wrong"]["failures"]}
        assert "kindnet_reconcile_interval" in failures["reconcile"] and "max_removals" in failures["routes"]
        assert {"sysctl", "masq"} <= set(found["wrong"]["looked_at"])
        assert ("sysctl", "sysctl net.ipv4.ip_forward") in {(d["concern"], d["subject"]) for d in found["wrong"]["differences"]}
        assert found["a"]["info"]["node_name"] == "a" and "routes" in found["a"]["looked_at"]
        assert {n["name"] for n in report["nodes"]} == {"a", "gone", "wrong"}

    @pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
    def test_an_inventory_that_makes_no_table_fails_all_hosts_and_each_ends_as_reported(self, controller: Controller, order: tuple[str, str]) -> None:
        members = hosts("a", "b", gone={"kindnet_node_ips": ["192.0.2.1"]})
        members = {name: members[name] for name in (*order, "gone")}
        assert controller.run("drift.yml", members) == 4, controller.output
        assert controller.statuses() == {"a": "failed", "b": "failed", "gone": "unreachable"}
        for name in order:
            assert "is also the address of" in controller.hosts()[name]["message"]
        assert controller.report()["nodes"] == []
        members.pop("gone")
        members["b"]["kindnet_node_ips"] = ["192.0.2.1"]
        assert controller.run("drift.yml", members) == 2, controller.output
        assert controller.statuses() == {"a": "failed", "b": "failed"}

    def test_all_hosts_are_gone(self, controller: Controller) -> None:
        assert controller.run("drift.yml", hosts(gone={}, gone2={})) == 4, controller.output
        assert controller.statuses() == {"gone": "unreachable", "gone2": "unreachable"}

    def test_the_arguments_of_the_table_are_wrong_on_the_first_host(self, controller: Controller) -> None:
        assert controller.run("drift.yml", hosts("b", a={"kindnet_reread_node_ips": "perhaps"})) == 2, controller.output
        found = controller.hosts()
        assert found["a"]["status"] == "failed" and "kindnet_reread_node_ips" in found["a"]["message"]
        assert "routes" in found["b"]["looked_at"]

    def test_limited(self, controller: Controller) -> None:
        assert controller.run("drift.yml", hosts("a", "b", gone={}), "--limit=a") == 2, controller.output
        report = controller.report()
        assert (report["limit"], list(controller.hosts()), report["totals"]["hosts"]) == ("a", ["a"], 1)
        assert "limited to a" in controller.output and {n["name"] for n in report["nodes"]} == {"a", "b", "gone"}

    def test_files_that_cannot_be_written_are_one_error_and_the_lines_are_there(self, controller: Controller) -> None:
        place = str(controller.folder / "inventory.yml")
        assert controller.run("drift.yml", hosts("a", gone={}), f"--extra-vars=kindnet_report_dir={place}") == 4, controller.output
        assert len(re.findall("kindnet_report_dir: .*inventory.yml: the report cannot be written there .*-e kindnet_report_dir=FOLDER", controller.output)) == 1
        assert re.search("^gone: unreachable: ", controller.output, re.MULTILINE)

    def test_an_inventory_that_is_a_folder_is_the_same_after_it(self, controller: Controller) -> None:
        folder = str(controller.folder / "inventory")
        group = {"hosts": hosts(gone={}), "vars": {"kindnet_cluster_cidrs": ["10.244.0.0/16"]}}
        controller.sandbox.write(folder + "/hosts.yml", json.dumps({"kindnet_nodes": group}))
        controller.sandbox.run("rm", "-rf", str(controller.report_dir))
        for _run in range(2):
            done = controller.sandbox.run(
                ANSIBLE, "-i", folder, str(ROOT / "playbooks/drift.yml"), check=False, env={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
            )
            assert done.returncode == 4 and "parse" not in done.stdout + done.stderr, done.stdout + done.stderr
        assert controller.sandbox.exists(str(controller.report_dir / "drift.html"))

    def test_none_can_be_asked(self, controller: Controller) -> None:
        broken = {"ansible_python_interpreter": "/nonexistent"}
        assert controller.run("drift.yml", hosts(a=broken, b=broken)) == 2, controller.output
        assert controller.statuses() == {"a": "failed", "b": "failed"}
        assert "/nonexistent" in controller.hosts()["a"]["message"] and controller.report()["exit_code"] == 2

    def test_limited_to_a_host_of_another_group_is_no_success(self, controller: Controller) -> None:
        assert controller.run("drift.yml", hosts("a"), "--limit=other", others={"other": LOCAL}) == 2, controller.output
        assert "none of the hosts of --limit is in this group" in " ".join(controller.output.split())

    def test_a_part_of_it_is_refused(self, controller: Controller) -> None:
        assert controller.run("drift.yml", hosts("a"), "--tags=routes") == 2, controller.output
        assert "--tags: routes: the report is of everything" in controller.output

    def test_a_group_without_hosts_is_no_success(self, controller: Controller) -> None:
        assert controller.run("drift.yml", hosts("a"), "--extra-vars=kindnet_nodes=nobody") == 2, controller.output
        assert "nobody" in controller.output


SYSCTL = "kindnet.host.kindnet_sysctl"
FORWARD = {SYSCTL: {"sysctls": {"net.ipv4.ip_forward": 1}, "persist": False}}


def play_of(*tasks: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    named = [{"name": "T%d" % number, **task} for number, task in enumerate(tasks)]
    return [{"name": "Mine", "hosts": "kindnet_nodes", "gather_facts": False, "tasks": named, **more}]


def only(*names: str) -> str:
    return "inventory_hostname in %r" % (names,)


class TestCallback:
    def test_it_says_nothing_of_a_run_that_is_none_of_ours(self, controller: Controller) -> None:
        assert controller.heard(play_of({"ansible.builtin.debug": {"msg": "x"}}, {"ansible.builtin.command": {"cmd": "false"}}), hosts("a", gone={})) == 4
        assert "KINDNET REPORT" not in controller.output and not controller.sandbox.exists(str(controller.report_dir))

    def test_hosts_that_do_not_get_there(self, controller: Controller) -> None:
        tasks = [
            {"ansible.builtin.fail": {"msg": "early"}, "when": only("early")},
            {**FORWARD, "when": "inventory_hostname != 'nothing'"},
            {"ansible.builtin.fail": {"msg": "late"}, "when": only("late")},
            {"block": [{"name": "R", "ansible.builtin.fail": {}}], "rescue": [{"name": "S", "ansible.builtin.debug": {}}], "when": only("rescued")},
            {"ansible.builtin.fail": {"msg": "x"}, "ignore_errors": True},
        ]  # fmt: skip
        members = hosts("early", "late", "rescued", "nothing", gone={})
        assert controller.heard(play_of(*tasks), members, "--check") == 4, controller.output
        assert controller.statuses() == {"early": "failed", "late": "failed", "rescued": "drifted", "gone": "unreachable"}
        assert "early" in controller.hosts()["early"]["message"] and controller.report()["exit_code"] == 4

    def test_ways_to_run_a_task(self, controller: Controller) -> None:
        other = {SYSCTL: {"sysctls": {"net.ipv4.conf.lo.rp_filter": "{{ item }}"}, "persist": False}, "loop": [1, 2]}
        bad = {SYSCTL: {"sysctls": {"kernel.panic": 1}, "persist": False}}
        tasks = [
            {**other, "when": only("loop")},
            {**FORWARD, "no_log": True, "when": only("hidden")},
            {**bad, "ignore_errors": True, "when": only("ignored")},
            {**bad, "no_log": True, "ignore_errors": True, "when": only("hidden_failure")},
            {**FORWARD, "delegate_to": "delegate", "when": only("delegating")},
            {**FORWARD, "delegate_to": "{{ item }}", "loop": ["first", "second"], "when": only("delegating")},
        ]
        members = hosts("loop", "hidden", "ignored", "hidden_failure", "delegating", "delegate", "first", "second")
        assert controller.heard(play_of(*tasks), members, "--check") == 0, controller.output
        found = controller.hosts()
        drifted = ("loop", "hidden", "delegate", "first", "second")
        assert controller.statuses() == {**dict.fromkeys(drifted, "drifted"), "ignored": "failed", "hidden_failure": "failed"}
        assert "sysctl net.ipv4.conf.lo.rp_filter" in {d["subject"] for d in found["loop"]["differences"]}
        assert found["hidden"]["differences"][0]["subject"] == "sysctl" and "no_log" in found["hidden"]["differences"][0]["reason"]
        assert controller.report()["exit_code"] == 0

    def test_in_the_background(self, controller: Controller) -> None:
        started = {**FORWARD, "async": 60, "poll": 0, "register": "job", "when": only("asked", "forgotten")}
        ask = {
            "ansible.builtin.async_status": {"jid": "{{ job.ansible_job_id }}"},
            "register": "done", "until": "done is finished", "retries": 100, "delay": 1, "when": only("asked"),
        }  # fmt: skip
        polled = {SYSCTL: {"sysctls": {"net.ipv4.conf.lo.rp_filter": 2}, "persist": False}, "async": 60, "poll": 1, "when": only("polled")}
        assert controller.heard(play_of(started, ask, polled), hosts("asked", "forgotten", "polled")) == 0, controller.output
        statuses = controller.statuses()
        assert statuses.pop("asked") in ("changed", "in_sync")  # who of the two was first
        assert statuses == {"forgotten": "failed", "polled": "changed"}

    def test_what_is_left_out_because_it_has_nothing_to_do(self, controller: Controller) -> None:
        plugin = controller.folder / "action_plugins"
        text = "from ansible.plugins.action import ActionBase\nclass ActionModule(ActionBase):\n    def run(self, tmp=None, task_vars=None):\n"
        controller.sandbox.write(str(plugin / "kindnet_idle.py"), text + "        return {'changed': False, 'idle': ['kindnet_sysctl'], 'busy': {}}\n")
        try:
            tasks = [{"kindnet_idle": {}, "register": "look"}, {**FORWARD, "when": "'kindnet_sysctl' not in look.idle"}]
            assert controller.heard(play_of(*tasks), hosts("a"), "--check") == 0, controller.output
        finally:
            controller.sandbox.run("rm", "-r", str(plugin))
        host = controller.hosts()["a"]
        assert (host["status"], host["looked_at"]) == ("in_sync", ["sysctl"]) and "skipping: [a]" in controller.output

    def test_a_host_with_other_code_than_this(self, controller: Controller) -> None:
        library = "/usr/local/lib/kindnet"
        controller.sandbox.sh("mkdir -p %s/0123456789abcdef; ln -s 0123456789abcdef %s/current" % (library, library))
        try:
            for run, playbook in ((controller.heard, play_of({"kindnet.host.kindnet_info": {}})), (controller.run, "drift.yml")):
                run(playbook, hosts("a"))
                assert [c["hosts"] for c in controller.report()["cross_host"] if c["check"] == "code"] == [["a"]], controller.output
        finally:
            controller.sandbox.run("rm", "-r", library)

    def test_a_run_that_is_ended_for_all(self, controller: Controller) -> None:
        bad = {SYSCTL: {"sysctls": {"kernel.panic": 1}, "persist": False}, "any_errors_fatal": True, "when": only("a")}
        assert controller.heard(play_of(FORWARD, bad, FORWARD), hosts("a", "b"), "--check") == 2, controller.output
        assert controller.statuses() == {"a": "failed", "b": "failed"}

    def test_batches(self, controller: Controller) -> None:
        bad = {SYSCTL: {"sysctls": {"kernel.panic": 1}, "persist": False}, "when": only("b")}
        assert controller.heard(play_of(FORWARD, bad, serial=1, max_fail_percentage=0), hosts("a", "b", "c"), "--check") == 2, controller.output
        assert controller.statuses() == {"a": "drifted", "b": "failed", "c": "failed"}

    def test_files_that_cannot_be_written_are_a_warning(self, controller: Controller) -> None:
        place = str(controller.folder / "inventory.yml")
        assert controller.heard(play_of(FORWARD), hosts("a"), "--check", variables={"kindnet_report_dir": place}) == 0, controller.output
        assert "cannot be written" in controller.output and re.search("^a: drifted", controller.output, re.MULTILINE)

    def test_an_error_of_its_own_is_one_warning(self, controller: Controller) -> None:
        """What nobody foresaw, made by a module's result that is none."""
        plugin = controller.folder / "action_plugins"
        text = "from ansible.plugins.action import ActionBase\nclass ActionModule(ActionBase):\n    def run(self, tmp=None, task_vars=None):\n"
        controller.sandbox.write(str(plugin / "cni_conflist.py"), text + "        return {'changed': True, 'changes': 5}\n")
        try:
            assert controller.heard(play_of({"cni_conflist": {}}, {"cni_conflist": {}}), hosts("a"), "--check") == 0, controller.output
        finally:
            controller.sandbox.run("rm", "-r", str(plugin))
        assert len(re.findall("there will be no report of this run", controller.output)) == 1, controller.output
        assert not controller.sandbox.exists(str(controller.report_dir))

    def test_the_playbook_that_reports_by_itself_is_left_to_it(self, controller: Controller) -> None:
        assert controller.heard("drift.yml", hosts(gone={})) == 4
        assert "KINDNET REPORT" not in controller.output and controller.statuses() == {"gone": "unreachable"}

    def test_the_folder_by_its_own_option(self, controller: Controller) -> None:
        place = controller.folder / "elsewhere"
        assert controller.heard(play_of(FORWARD), hosts("a"), "--check", KINDNET_REPORT_DIR=str(place)) == 0, controller.output
        assert controller.sandbox.exists(str(place / "drift.json")) and not controller.sandbox.exists(str(controller.report_dir))


def test_documentation_of_the_callback() -> None:
    done = subprocess.run(
        [ANSIBLE.replace("ansible-playbook", "ansible-doc"), "-t", "callback", "kindnet.host.kindnet_report"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert "report_dir" in done.stdout
