# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes tell of themselves from within their service: the history, status.json, metrics, and since when there are none."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import Any, Iterator

import pytest
from nodes import SERVICE, TIMER, Node, assert_converged, play

HISTORY, STATUS = "/var/lib/kindnet/history/repairs.jsonl", "/run/kindnet/status.json"
FOLDER = "/var/lib/prometheus/node-exporter"
METRICS = FOLDER + "/kindnet.prom"


@pytest.fixture(scope="module")
def node(nodes: dict[str, Node]) -> Node:
    return nodes["k8s-guide-control-plane"]


def history(node: Node) -> list[dict[str, str]]:
    return [json.loads(line) for line in node.sh(f"cat {HISTORY} 2>/dev/null || true").splitlines()]


def status(node: Node) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(node.run("kindnet-reconcile --status --json").stdout)
    return answer


def age(node: Node, at: str) -> float:
    """Seconds, by the node's own clock."""
    return float(node.sh("date +%s.%N")) - seconds(at)


def seconds(at: str) -> float:
    return datetime.strptime(at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()


def test_a_repair_is_in_the_history_with_what_ip_saw(nodes: dict[str, Node], node: Node) -> None:
    (dst, hop), (_dst, other) = sorted(node.own_routes().items())[:2]
    kept, counted = len(history(node)), status(node)["counters"]["repairs"].get("routes", 0)
    node.sh(f"ip route replace {dst} via {other} proto 107")
    assert node.do_pass() == "0"
    (entry,) = history(node)[kept:]
    assert (entry["section"], entry["subject"], entry["action"]) == ("routes", f"route {dst}", "replace")
    assert entry["before"].startswith(f"via {other} ") and entry["after"].startswith(f"via {hop} ") and age(node, entry["at"]) < 60
    told = json.loads(node.read(STATUS))
    assert told["last_repair"] == entry and told["repairs"]["routes"] == counted + 1
    assert status(node)["history"][-1] == entry
    assert f"{entry['at']} replace route {dst}: via {other} " in node.run("kindnet-reconcile --status").stdout
    assert_converged(node, nodes)


def test_status_tells_since_when_the_timer_is_stopped(node: Node) -> None:
    assert status(node)["timer"]["active"] == "active" and age(node, status(node)["timer"]["since"]) >= -1
    began = time.monotonic()
    node.sh(f"systemctl stop {TIMER}")
    try:
        told = status(node)["timer"]
        assert told["active"] == "inactive" and -2 < age(node, told["since"]) < time.monotonic() - began + 2
        # not since the last pass
        node.sh(f"systemctl start {SERVICE}")
        assert abs(seconds(told["since"]) - seconds(status(node)["timer"]["since"])) <= 1
        last = status(node)["last_pass"]
        assert last["result"] == "ok" and -2 < age(node, last["at"]) < time.monotonic() - began + 2
        assert f"last pass:  ok, {last['at'][:4]}-" in node.run("kindnet-reconcile --status").stdout
        assert f"timer:      inactive, enabled since {told['since'][:4]}-" in node.run("kindnet-reconcile --status").stdout
    finally:
        node.sh(f"systemctl start {TIMER}")


def converge(node: Node, *arguments: str, **variables: Any) -> list[str]:
    """The tasks that changed something, or would have."""
    run = play("kindnet.yml", f"--limit={node}", "--tags=reconcile", f"--extra-vars={json.dumps(variables)}", *arguments)
    assert run.rc == 0, run.output
    return [task for _host, task in run.pairs()]


@pytest.fixture
def measured(node: Node) -> Iterator[Node]:
    """The node with metrics, as the role turns them on, and without them again."""
    variables = {"kindnet_textfile_dir": FOLDER}
    predicted = converge(node, "--check", **variables)
    assert predicted and predicted == converge(node, **variables) and converge(node, **variables) == []
    yield node
    predicted = converge(node, "--check")
    assert predicted and predicted == converge(node) and converge(node) == []
    assert node.sh(f"ls -A {FOLDER}") == "" and "prometheus" not in node.sh(f"systemctl cat {SERVICE}")
    node.sh(f"rmdir -p {FOLDER} 2>/dev/null || true")


def metrics(node: Node) -> dict[str, float]:
    lines = [line for line in node.read(METRICS).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _space, value in (line.rpartition(" ") for line in lines)}


def test_each_pass_of_the_service_writes_metrics_and_nothing_else(measured: Node) -> None:
    node = measured
    assert node.do_pass() == "0"
    first = metrics(node)
    routes = len(node.own_routes())
    assert (first["kindnet_peers_wanted"], first["kindnet_peers_present"], first["kindnet_problems"]) == (routes, routes, 0)
    others = f"find /run/kindnet /var/lib/kindnet /var/lib/prometheus -printf '%p %i %T@\\n' | grep -v -e {METRICS} -e '{FOLDER} ' | sort"
    cursor, before = node.cursor(), node.sh(others)
    for _again in range(2):
        assert node.do_pass() == "0"
    assert node.sh(others) == before and node.journal(cursor) == []
    assert metrics(node)["kindnet_passes_total"] >= first["kindnet_passes_total"] + 2
    node.sh("ip route flush proto 107")
    assert node.do_pass() == "0"
    assert metrics(node)['kindnet_repairs_total{kind="routes"}'] == first['kindnet_repairs_total{kind="routes"}'] + routes
    # gone altogether, the folder is made again before the next pass
    node.sh("rm -r /var/lib/prometheus")
    assert node.do_pass() == "0" and metrics(node)["kindnet_passes_total"] >= 1
