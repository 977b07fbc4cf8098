# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten different things are broken by hand on three nodes. The report names these ten, on the right hosts, in all three files, and changes nothing."""

from __future__ import annotations

import html
import json
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator, Sequence
from xml.etree import ElementTree

import jsonschema
import pytest
from nodes import CHAIN, CONFLIST, END_PASSES, ROOT, TIMER, Node, Run, lab, play

Nodes = dict[str, Node]

ONE, TWO, THREE = "k8s-guide-control-plane", "k8s-guide-worker", "k8s-guide-worker2"
SCHEMA = json.loads((ROOT / "docs/drift.schema.json").read_text())
NAT = "iptables -t nat"
JUMP = f"$({NAT} -S POSTROUTING | grep {CHAIN} | sed 's/^-A POSTROUTING//')"
CODE = "/usr/local/lib/kindnet/$(readlink /usr/local/lib/kindnet/current)"
SERVICE_FILE = "/etc/systemd/system/kindnet-reconcile.service"


@dataclass
class Fault:
    host: str
    command: str
    concern: str
    subject: str  # a pattern
    action: str


# What a pass repairs is broken where the timer is stopped, first of all; elsewhere what passes leave to a converge.
FAULTS = [
    Fault(ONE, END_PASSES, "reconcile", re.escape(TIMER), "replace"),
    Fault(ONE, "ip route del 10.244.1.0/24", "routes", r"route 10\.244\.1\.0/24", "add"),
    Fault(ONE, "ip route replace 10.244.2.0/24 via 172.18.0.3 proto 107", "routes", r"route 10\.244\.2\.0/24", "replace"),
    Fault(ONE, f"{NAT} -D {CHAIN} 1", "masq", rf".*chain nat/{CHAIN}", "replace"),
    Fault(ONE, f"eval {NAT} -A POSTROUTING {JUMP}", "masq", rf".*jump nat/POSTROUTING to {CHAIN}", "replace"),
    Fault(ONE, f"sed -i s/10.244/10.99/ {CONFLIST}", "conflist", f"file {re.escape(CONFLIST)}", "replace"),
    Fault(ONE, "sysctl -qw net.ipv4.ip_forward=0", "sysctl", r"sysctl net\.ipv4\.ip_forward", "replace"),
    Fault(ONE, "rm /opt/cni/bin/ptp", "cni_plugins", "link /opt/cni/bin/ptp", "add"),
    Fault(TWO, f"sed -i s/LogLevelMax=notice/LogLevelMax=debug/ {SERVICE_FILE}; systemctl daemon-reload", "reconcile", re.escape(SERVICE_FILE), "replace"),
    Fault(THREE, f"echo '# mine' >>{CODE}/_plan.py", "reconcile", "/usr/local/lib/kindnet/[0-9a-f]{16}", "replace"),
]

# All that a report could have changed, and nothing that changes by itself.
SNAPSHOT = """
ip -json route show table all; ip -6 -json route show table all | sed 's/"expires":[0-9]*,//g'; ip -json rule
iptables-nft-save | grep -v '^#'; ip6tables-nft-save | grep -v '^#'; nft list tables
sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding; ip -json address | sed 's/"[a-z]*_life_time":[0-9]*//g'
systemctl is-active kindnet-reconcile.timer; systemctl is-enabled kindnet-reconcile.timer
find /etc /opt/cni /usr/local /var/lib/kindnet /var/lib/cni -printf '%p %y %m %U:%G %i %T@ %C@ %s %l\\n' 2>/dev/null | sort
"""


@dataclass
class Looked:
    """A run of drift.yml, and the files that it left."""

    run: Run
    folder: Path
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.report = json.loads((self.folder / "drift.json").read_text())
        jsonschema.validate(self.report, SCHEMA)

    def lines(self) -> dict[str, str]:
        """The screen's line of each host."""
        found = re.findall(r"^(k8s-guide-\S+): (.*)$", self.run.output, re.MULTILINE)
        assert len(found) == len({name for name, _line in found}), self.run.output
        return dict(found)

    def hosts(self) -> dict[str, dict[str, Any]]:
        return {h["name"]: h for h in self.report["hosts"]}

    def differences(self) -> list[tuple[str, str, str, str]]:
        return [(h["name"], d["concern"], d["subject"], d["action"]) for h in self.report["hosts"] for d in h["differences"]]

    def junit(self) -> ElementTree.Element:
        return ElementTree.parse(self.folder / "drift.xml").getroot()

    def rows(self) -> list[tuple[str, str, str]]:
        """Host, concern and words of each row of the page's table of differences."""
        found = re.findall(r'<tr [^>]*data-host="([^"]*)"[^>]*data-concern="([^"]*)"[^>]*>(.*?)</tr>', (self.folder / "drift.html").read_text(), re.DOTALL)
        return [(host, concern, " ".join(html.unescape(re.sub(r"<[^>]*>", " ", cells)).split())) for host, concern, cells in found]


def look(folder: Path, *arguments: str) -> Looked:
    return Looked(play("drift.yml", f"--extra-vars=kindnet_report_dir={folder}", *arguments), folder)


@pytest.fixture(scope="module")
def broken(nodes: Nodes) -> dict[str, str]:
    """The nodes once all is broken: what is on each."""
    for fault in FAULTS:
        nodes[fault.host].sh(fault.command)
    return {name: node.sh(SNAPSHOT) for name, node in nodes.items()}


@pytest.fixture(scope="module")
def looked(broken: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Looked:
    return look(tmp_path_factory.mktemp("broken") / "report")


def assert_are_faults(differences: list[tuple[str, str, str, str]], faults: list[Fault], also: Sequence[Fault] = ()) -> None:
    """Each fault is told once, and nothing else is; those of ``also`` may be."""
    left = list(differences)
    for fault in [*faults, *also]:
        ours = [d for d in left if (d[0], d[1], d[3]) == (fault.host, fault.concern, fault.action) and re.fullmatch(fault.subject, d[2])]
        assert len(ours) == 1 or fault in also and not ours, (fault, differences)
        left = [d for d in left if d not in ours]
    assert left == []


def test_it_names_exactly_these_ten(looked: Looked) -> None:
    assert looked.run.rc == 2, looked.run.output
    assert_are_faults(looked.differences(), FAULTS)
    report = looked.report
    assert (report["verdict"], report["exit_code"], report["cross_host"]) == ("drifted", 2, [])
    assert report["totals"] == {
        "hosts": 3, "in_sync": 0, "changed": 0, "drifted": 3, "failed": 0, "unreachable": 0, "differences": 10, "problems": 0, "cross_host": 0,
        "compared": 3,
    }  # fmt: skip
    one = {d["subject"]: d for d in looked.hosts()[ONE]["differences"]}
    assert (one["sysctl net.ipv4.ip_forward"]["before"], one["sysctl net.ipv4.ip_forward"]["after"]) == ("0", "1")
    assert "via 172.18.0.3" in one["route 10.244.2.0/24"]["before"] and "via 172.18.0.4" in one["route 10.244.2.0/24"]["after"]
    assert "10.99" in one[f"file {CONFLIST}"]["before"] and "10.99" not in one[f"file {CONFLIST}"]["after"]
    assert all(h["info"]["node_name"] == h["name"] for h in report["hosts"])


def test_so_does_the_screen(looked: Looked) -> None:
    lines = looked.lines()
    assert lines[ONE].startswith("drifted, 8 differences: ")
    assert [f.subject for f in FAULTS[:8] if not re.search(f"[ ,]({f.subject})(,|$)", lines[ONE])] == []
    assert re.fullmatch(f"drifted, 1 difference: {SERVICE_FILE}", lines[TWO])
    assert re.fullmatch("drifted, 1 difference: /usr/local/lib/kindnet/[0-9a-f]{16}", lines[THREE])


def test_so_does_the_junit_file(looked: Looked) -> None:
    root = looked.junit()
    assert [s.get("name") for s in root] == [ONE, TWO, THREE, "cross_host"]
    assert (root.get("failures"), root.get("errors")) == (str(len({(f.host, f.concern) for f in FAULTS})), "0")
    for fault in FAULTS:
        (case,) = root.findall(f"testsuite[@name='{fault.host}']/testcase[@name='{fault.concern}']")
        (failure,) = case
        assert failure.tag == "failure"
        assert [line for line in str(failure.text).splitlines() if re.match(f"{fault.action} {fault.subject}: ", line)], failure.text
    passed = {(c.get("classname"), c.get("name")) for c in root.iter("testcase") if not len(c)}
    assert (TWO, "routes") in passed and (ONE, "routes") not in passed and ("cross_host", "all checks") in passed


def test_so_does_the_page(looked: Looked) -> None:
    rows = looked.rows()
    assert len(rows) == len(FAULTS)
    for fault in FAULTS:
        words = rf"{fault.host} {fault.concern} {fault.action} {fault.subject}( |$)"
        assert [row for row in rows if row[:2] == (fault.host, fault.concern) and re.match(words, row[2])], (fault, rows)


def test_anybody_may_read_the_files(looked: Looked) -> None:
    for path in looked.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
    assert sorted(path.name for path in looked.folder.iterdir()) == ["drift.html", "drift.json", "drift.xml", "map.mmd"]


def test_it_changes_nothing(looked: Looked, broken: dict[str, str], nodes: Nodes) -> None:
    assert looked.run.changed == [] or looked.run.check is False  # what is recorded there is predicted
    for name, node in nodes.items():
        assert node.sh(SNAPSHOT) == broken[name], name


def test_the_callback_says_the_same_of_the_other_playbook(looked: Looked, tmp_path: Path) -> None:
    enabled = {"ANSIBLE_CALLBACKS_ENABLED": "record_runs,kindnet.host.kindnet_report", "KINDNET_REPORT_DIR": str(tmp_path)}
    heard = Looked(play("kindnet.yml", "--check", **enabled), tmp_path)
    assert heard.differences() == looked.differences()
    assert heard.lines() == looked.lines()
    assert (heard.report["exit_code"], heard.run.rc, heard.report["verdict"]) == (0, 0, "drifted")


@pytest.fixture(scope="module")
def mended(looked: Looked, nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Looked, Looked]]:
    """The run that mends, as the callback tells of it, and the look right after."""
    folder = tmp_path_factory.mktemp("mended")
    enabled = {"ANSIBLE_CALLBACKS_ENABLED": "record_runs,kindnet.host.kindnet_report", "KINDNET_REPORT_DIR": str(folder)}
    yield Looked(play("kindnet.yml", **enabled), folder), look(tmp_path_factory.mktemp("after"))


def test_a_run_mends_what_was_named(mended: tuple[Looked, Looked]) -> None:
    made, _after = mended
    assert made.run.rc == 0, made.run.output
    # Routes come last, and the timer that was started before may have had a pass by then.
    assert_are_faults(made.differences(), [f for f in FAULTS if f.concern != "routes"], also=[f for f in FAULTS if f.concern == "routes"])
    assert {h["status"] for h in made.report["hosts"]} == {"changed"}
    assert not made.junit().findall(".//failure")


def test_and_all_is_in_sync_then(mended: tuple[Looked, Looked]) -> None:
    _made, after = mended
    assert after.run.rc == 0, after.run.output
    assert after.lines() == dict.fromkeys((ONE, TWO, THREE), "in sync")
    assert (after.report["verdict"], after.report["exit_code"], after.differences(), after.report["cross_host"]) == ("in_sync", 0, [], [])
    assert not [c for c in after.junit().iter("testcase") if len(c)]


def test_hosts_that_are_each_as_wanted_and_do_not_fit_together(mended: tuple[Looked, Looked], nodes: Nodes, tmp_path: Path) -> None:
    """Which no other host can see: one address on two of them, another MTU, passes that somebody paused."""
    twice = "172.18.0.250"
    try:
        for name in (ONE, TWO):
            nodes[name].sh(f"ip address add {twice}/32 dev eth0")
        nodes[TWO].sh("kindnet-reconcile --pause 1h")
        nodes[THREE].sh("ip link set eth0 mtu 1600")  # a smaller one would lose what ssh sends there
        found = look(tmp_path)
    finally:
        nodes[THREE].sh("ip link set eth0 mtu 1500")
        nodes[TWO].sh("kindnet-reconcile --resume")
        for name in (ONE, TWO):
            nodes[name].sh(f"ip address del {twice}/32 dev eth0")
    told = {(c["check"], *c["hosts"]): c["message"] for c in found.report["cross_host"]}
    assert set(told) == {("address", ONE, TWO), ("mtu", THREE), ("pause", TWO)}, found.run.output
    assert twice in told["address", ONE, TWO] and "1600 on k8s-guide-worker2 (eth0)" in told["mtu", THREE]
    assert found.run.rc == 2 and {h["status"] for h in found.report["hosts"]} == {"drifted"}
    assert {h["name"] for h in found.report["hosts"] if not h["differences"]} == {ONE, TWO}, "each is as it was told; new pods of the third get its MTU"
    assert [c.tag for case in found.junit().iterfind("testsuite[@name='cross_host']/testcase") for c in case] == ["failure"] * 3


def test_a_stopped_node_is_unreachable_and_the_others_are_looked_at(mended: tuple[Looked, Looked], nodes: Nodes, tmp_path: Path) -> None:
    """With what no run mends on another: a foreign route in the way."""
    foreign = "10.244.1.0/24 via 172.18.0.100 proto static"
    nodes[THREE].sh(f"ip route del 10.244.1.0/24; ip route add {foreign}")
    lab("nodes", "stop", ONE)  # the one that makes the node table when it is there
    try:
        found = look(tmp_path)
    finally:
        lab("nodes", "start", ONE)
        nodes[THREE].sh(f"ip route del {foreign}")
    assert (found.run.rc, found.report["exit_code"], found.report["verdict"]) == (4, 4, "unreachable"), found.run.output
    hosts, lines = found.hosts(), found.lines()
    assert hosts[ONE]["status"] == "unreachable" and lines[ONE].startswith("unreachable: ") and hosts[ONE]["message"]
    assert (hosts[TWO]["status"], lines[TWO]) == ("in_sync", "in sync")
    assert (hosts[THREE]["status"], hosts[THREE]["differences"]) == ("drifted", [])
    assert [p["subject"] for p in hosts[THREE]["problems"]] == ["route 10.244.1.0/24"]
    assert "172.18.0.100" in hosts[THREE]["problems"][0]["message"]
    suites = {s.get("name"): s for s in found.junit()}
    assert [c.tag for case in suites[ONE] for c in case] == ["error"]
    assert not [c for case in suites[ONE] if not len(case) for c in case.attrib], "a case of a host that nobody looked at passes"
    away, problem = found.rows()
    assert away[:2] == (ONE, "host") and "not looked at" in away[2] and " ".join(hosts[ONE]["message"].split()) in away[2]
    assert problem[:2] == (THREE, "routes") and "problem route 10.244.1.0/24" in problem[2]
    nodes[ONE].await_pass(since=0)
