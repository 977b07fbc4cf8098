# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What reachability.yml tells of real pods, beside what the program ping gets from the same places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from nodes import END_PASSES, INVENTORIES, TIMER, Node, Run, lab, play, until
from traffic import Pod

# Node and pod of each host, as they are called in the report.
PODS = {"k8s-guide-control-plane": "pod-5", "k8s-guide-worker": "pod-1", "k8s-guide-worker2": "pod-3"}
LABELS = {host: f"{host}/default/{pod}" for host, pod in PODS.items()}


@pytest.fixture(scope="module")
def pods(nodes: dict[str, Node]) -> Iterator[dict[str, Pod]]:
    """What asks and is asked, by its name in the report."""
    lab("pods", "up")
    found = {name: Pod(node) for name, node in nodes.items()}
    found.update({LABELS[host]: Pod(nodes[host], pod) for host, pod in PODS.items()})
    yield found
    lab("pods", "down")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """That of the lab, as one file with a place of its own beside it."""
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORIES[0].read_text(encoding="utf-8"), encoding="utf-8")
    return path


def ask(inventory: Path, *arguments: str) -> tuple[Run, dict[str, Any]]:
    run = play("reachability.yml", *arguments, inventory=inventory)
    assert run.changed == [], run.pairs()
    return run, json.loads((inventory.parent / "kindnet-report" / "reachability.json").read_text(encoding="utf-8"))


def answers(report: dict[str, Any]) -> dict[tuple[str, str], bool]:
    """Whether all requests of a pair were answered; of each pair once."""
    found = {(r["source"], r["target"]): r["received"] == r["sent"] == 3 for r in report["results"]}
    assert len(found) == len(report["results"])
    return found


def pinged(pods: dict[str, Pod]) -> dict[tuple[str, str], bool]:
    """The same by the program ping, all at once on each host."""
    pairs = [(s, t) for s in pods for t in pods if s != t and not (s in LABELS.values() and t in LABELS)]
    found = {}
    for host in PODS:
        mine = [(s, t) for s, t in pairs if s.split("/")[0] == host and not (t in LABELS and t == s)]
        script = "".join(f"({pods[s].enter}ping -n -q -c 1 -W 2 {pods[t].address} >/dev/null && echo {i}) & " for i, (s, t) in enumerate(mine))
        answering = {int(n) for n in pods[host].node.sh(f"{script} wait").split()}
        found.update({pair: i in answering for i, pair in enumerate(mine)})
    return found


def test_everything_answers_and_ping_says_so_too(pods: dict[str, Pod], inventory: Path) -> None:
    run, report = ask(inventory)
    assert run.rc == 0, run.output
    found = answers(report)
    assert len(found) == 21 and all(found.values()) and found == pinged(pods)
    assert (report["mode"], report["not_asked"], report["not_tried"]) == ("full", [], [])
    assert report["sources"] == report["targets"] == sorted(pods)
    assert "3 hosts, everybody asks everybody; 21 of 21 pairs answer" in run.output


def test_with_one_route_gone_just_those_pairs_fail_that_need_it(pods: dict[str, Pod], nodes: dict[str, Node], inventory: Path) -> None:
    worker, worker2 = nodes["k8s-guide-worker"], nodes["k8s-guide-worker2"]
    worker.sh(END_PASSES)
    try:
        worker.sh(f"ip route del {worker2.pod_cidrs[0]}")
        run, report = ask(inventory)
        found = answers(report)
        assert {pair for pair, answered in found.items() if not answered} == {
            (LABELS[worker.name], LABELS[worker2.name]),
            (worker.name, LABELS[worker2.name]),
            # There it comes, and has no way back.
            (LABELS[worker2.name], LABELS[worker.name]),
        }
        assert found == pinged(pods)
        assert run.rc == 2 and {f["host"] for f in run.failed} == {worker.name, worker2.name}, run.output
        assert "Network is unreachable" in run.messages(worker.name)
    finally:
        worker.sh(f"systemctl start {TIMER}")
    until("the route is back", lambda: worker.run(f"ip route show {worker2.pod_cidrs[0]} | grep -q via").rc == 0 or None)
    run, report = ask(inventory)
    assert run.rc == 0 and all(answers(report).values()), run.output


def test_a_host_that_cannot_be_reached_is_not_asked_and_the_others_are(pods: dict[str, Pod], inventory: Path) -> None:
    away = "k8s-guide-worker2"
    declared = yaml.safe_load(inventory.read_text(encoding="utf-8"))
    declared["kindnet_nodes"]["hosts"][away]["ansible_port"] = 1  # where nobody listens
    inventory.write_text(yaml.safe_dump(declared), encoding="utf-8")
    run, report = ask(inventory)
    assert run.rc == 4 and set(run.unreachable) == {away}, run.output
    assert [(one["host"], one["reached"]) for one in report["not_asked"]] == [(away, False)]
    found = answers(report)
    # Which pods it has nobody could say; that it answers, the others could.
    assert all(found.values()) and not any(away in source for source, _target in found)
    assert {source for source, target in found if target == away} == set(PODS) - {away} and not any(t == LABELS[away] for _s, t in found)
    assert f"3 {away}" in run.output and "not asked: unreachable: " in run.output


def test_with_a_sample_each_asks_one_and_is_asked_by_one(pods: dict[str, Pod], inventory: Path) -> None:
    run, report = ask(inventory, "--extra-vars=kindnet_reachability_sample=1")
    assert run.rc == 0 and report["mode"] == "sampled", run.output
    found = [(r["source_host"], r["target_host"]) for r in report["results"] if r["kind"] == "pod to pod"]
    assert len(found) == 3 and {s for s, _t in found} == {t for _s, t in found} == set(PODS)
