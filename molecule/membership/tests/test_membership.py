# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a cluster, told in order: each test goes on where the one before it ended.

What a host holds is read from the ledger as the plain YAML that it is, and compared with what the hosts' own tools show.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator

import pytest
import yaml
from nodes import CHAIN, CONFLIST, PROTOCOL, ROOT, Node, RouteWatch, Run, assert_converged, lab, load_inventory, play
from traffic import Pod, Traffic

FOLDER = ROOT / ".lab/membership"
INVENTORY = FOLDER / "inventory.yml"
LEDGER = FOLDER / "kindnet-ledger.yml"

CONTROL, WORKER, WORKER2, WORKER3 = "k8s-guide-control-plane", "k8s-guide-worker", "k8s-guide-worker2", "k8s-guide-worker3"
MOVED = "172.18.0.55"  # another address of worker3
POD = "member"


class Cluster:
    """The inventory of an operator, and what the ledger beside it says."""

    def __init__(self) -> None:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        group = load_inventory()["kindnet_nodes"]
        self.variables = group["vars"]
        self.known = {name: {k: v for k, v in declared.items() if k.startswith("ansible_")} for name, declared in group["hosts"].items()}
        self.hosts: dict[str, dict[str, Any]] = {}
        self.handles = {name: Node(name, declared, ["10.244.0.0/16"]) for name, declared in group["hosts"].items()}

    def write(self, *names: str, **more: dict[str, Any]) -> None:
        """The hosts of the inventory, in this order."""
        self.hosts = {name: {**self.known[name], **more.get(name.rpartition("-")[2], {})} for name in names}
        INVENTORY.write_text(yaml.safe_dump({"kindnet_nodes": {"hosts": self.hosts, "vars": self.variables}}, sort_keys=False))

    @property
    def ledger(self) -> dict[str, Any]:
        return yaml.safe_load(LEDGER.read_text())["kindnet_ledger"]["vars"]

    @property
    def nodes(self) -> dict[str, Node]:
        """As they must be now, by inventory and ledger."""
        found = {}
        for name, declared in self.hosts.items():
            node = self.handles[name]
            interface = self.ledger.get("node_ips", {}).get(name, {})
            node.node_ips = declared.get("kindnet_node_ips") or interface.get("eth0") or [declared["ansible_host"]]
            node.pod_cidrs = self.ledger["pod_cidrs"][name]
            found[name] = node
        return found

    def converge(self, *arguments: str) -> Run:
        return play("kindnet.yml", *arguments, inventory=INVENTORY)

    def remove(self, name: str, *arguments: str) -> Run:
        return play("remove_node.yml", f"--extra-vars=node={name}", *arguments, inventory=INVENTORY)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[Pods]:
    pods = Pods(cluster)
    for name in cluster.handles:
        lab("pods", "remove", name, POD)  # what a run that was cut off left
    yield pods
    for name, node in cluster.handles.items():
        pods.remove(name)
        node.sh("rm -rf /run/cni-ipam-state /run/kindnet-lab /var/lib/cni")  # what a runtime keeps of pods it once had


class Pods(dict[str, Pod]):
    """A pod on each node that is given one."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster

    def start(self, name: str) -> None:
        lab("pods", "add", name, POD)
        self[name] = Pod(self.cluster.handles[name], POD)

    def remove(self, name: str) -> None:
        if self.pop(name, None):
            lab("pods", "remove", name, POD)

    def ping(self, source: str, target: str) -> str:
        """One packet from pod to pod."""
        return self[source].node.run(f"{self[source].enter}ping -c 1 -W 2 {self[target].address}").stdout

    @contextmanager
    def undisturbed(self, *pairs: tuple[str, str]) -> Iterator[None]:
        """What goes on in the body costs no packet from pod to pod of these pairs."""
        with ExitStack() as stack:
            flows = [stack.enter_context(Traffic(self[source], self[target])) for source, target in pairs]
            yield
            for flow in flows:
                flow.assert_nothing_lost(seen_as=flow.source.address)


RING = ((CONTROL, WORKER), (WORKER, WORKER2), (WORKER2, CONTROL))


def test_check_mode_says_what_would_be_given_and_writes_nothing(cluster: Cluster) -> None:
    # Of one host, the address is that of an interface.
    cluster.write(CONTROL, WORKER, WORKER2, worker2={"kindnet_node_interface": "eth0"})
    run = cluster.converge("--check", "--diff")
    assert run.rc == 0, run.output
    assert not LEDGER.exists()
    (table,) = [c for c in run.changed if "node table" in c["task"]]
    for number, name in enumerate(cluster.hosts):
        assert f"pod CIDRs of {name} in the ledger: 10.244.{number}.0/24" in table["diff"][0]["after"]
    for node in cluster.handles.values():
        assert node.own_routes() == {}
    made = cluster.converge()
    assert made.rc == 0, made.output
    assert run.pairs() == made.pairs()


def test_pod_cidrs_are_those_of_the_guide(cluster: Cluster, pods: Pods) -> None:
    assert cluster.ledger["pod_cidrs"] == {CONTROL: ["10.244.0.0/24"], WORKER: ["10.244.1.0/24"], WORKER2: ["10.244.2.0/24"]}
    (ips,) = cluster.ledger["node_ips"][WORKER2].values()
    assert ips[0] == "172.18.0.4"
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)
    before = LEDGER.read_text()
    again = cluster.converge()
    assert (again.rc, again.changed) == (0, []) and LEDGER.read_text() == before
    for name in cluster.hosts:
        pods.start(name)
    for source, target in RING:
        assert "ttl=62 " in pods.ping(source, target)


def test_a_node_joins(cluster: Cluster, pods: Pods) -> None:
    # First in the inventory, and the others in another order: nobody moves.
    cluster.write(WORKER3, WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"})
    before = cluster.ledger["pod_cidrs"]
    with pods.undisturbed(*RING):
        run = cluster.converge()
        assert run.rc == 0, run.output
    assert cluster.ledger["pod_cidrs"] == {**before, WORKER3: ["10.244.3.0/24"]}
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)
    pods.start(WORKER3)
    for source, target in ((CONTROL, WORKER3), (WORKER3, WORKER)):
        assert "ttl=62 " in pods.ping(source, target)


def test_a_peer_has_a_new_address(cluster: Cluster, pods: Pods) -> None:
    cluster.handles[WORKER3].sh(f"ip address replace {MOVED}/16 dev eth0")
    cluster.write(WORKER3, WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"}, worker3={"kindnet_node_ips": [MOVED]})
    watched = cluster.handles[WORKER]
    # Not even those on the way that changes lose any.
    with pods.undisturbed(*RING, (CONTROL, WORKER3)), RouteWatch(watched) as watch:
        run = cluster.converge()
        assert run.rc == 0, run.output
        seen = [line for line in watch.changes() if "10.244." in line]
    assert [line.split(" dev ")[0] for line in seen] == [f"10.244.3.0/24 via {MOVED}"], "one replace, and no moment without a route"
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)


def test_a_pod_cidr_does_not_change_under_running_pods(cluster: Cluster, pods: Pods) -> None:
    before = LEDGER.read_text()
    moved = {"kindnet_node_ips": [MOVED], "kindnet_pod_cidrs": ["10.244.77.0/24"]}
    cluster.write(WORKER3, WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"}, worker3=moved)
    run = cluster.converge()
    assert run.rc != 0 and run.changed == []
    assert WORKER3 in run.output and "kindnet_renumbered_from" in run.output

    moved["kindnet_renumbered_from"] = ["10.244.3.0/24"]
    cluster.write(WORKER3, WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"}, worker3=moved)
    run = cluster.converge()
    assert run.rc != 0 and run.changed == []
    assert pods[WORKER3].address in " ".join(run.output.split())
    assert LEDGER.read_text() == before
    assert "ttl=62 " in pods.ping(CONTROL, WORKER3)


def test_a_peer_has_a_new_pod_cidr(cluster: Cluster, pods: Pods) -> None:
    pods.remove(WORKER3)
    watched = cluster.handles[WORKER]
    with pods.undisturbed(*RING), RouteWatch(watched) as watch:
        run = cluster.converge()
        assert run.rc == 0, run.output
        seen = [line.split(" dev ")[0] for line in watch.changes() if "10.244." in line]
    assert seen == [f"10.244.77.0/24 via {MOVED}", f"Deleted 10.244.3.0/24 via {MOVED}"], "the new route first"
    assert cluster.ledger["pod_cidrs"][WORKER3] == ["10.244.77.0/24"]
    assert cluster.ledger["freed_pod_cidrs"] == ["10.244.3.0/24"]
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)
    pods.start(WORKER3)
    assert "ttl=62 " in pods.ping(WORKER, WORKER3)


def test_a_node_is_down_while_another_changes(cluster: Cluster, pods: Pods) -> None:
    pods.remove(WORKER2)
    lab("nodes", "stop", WORKER2)
    cluster.handles[WORKER3].sh(f"ip address replace {MOVED[:-1]}6/16 dev eth0")
    declared = {**cluster.hosts[WORKER3], "kindnet_node_ips": [f"{MOVED[:-1]}6"]}
    cluster.write(WORKER3, WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"}, worker3=declared)
    with pods.undisturbed((CONTROL, WORKER), (WORKER, WORKER3)):
        run = cluster.converge()
        assert run.unreachable == [WORKER2] and run.failed == [], run.output
    # The one that is down stays a member, though its address would have to be asked for.
    for name in (CONTROL, WORKER, WORKER3):
        assert_converged(cluster.nodes[name], cluster.nodes)

    lab("nodes", "start", WORKER2)
    old = cluster.handles[WORKER2]
    assert old.await_pass(0) == "0"
    assert old.own_routes()["10.244.77.0/24"] == MOVED, "it knows no better yet"
    assert cluster.converge().rc == 0
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)
    pods.start(WORKER2)
    assert "ttl=62 " in pods.ping(WORKER2, WORKER3)


def test_a_rename_changes_nothing_but_the_name(cluster: Cluster, pods: Pods) -> None:
    """And back again."""
    blocks = cluster.ledger["pod_cidrs"]
    more = {"worker2": {"kindnet_node_interface": "eth0"}, "worker3": cluster.hosts[WORKER3]}
    cluster.known["renamed"], cluster.handles["renamed"] = cluster.known[WORKER], cluster.handles[WORKER]
    for old, new in ((WORKER, "renamed"), ("renamed", WORKER)):
        declared = {**more, new.rpartition("-")[2]: {"kindnet_renamed_from": old}}
        cluster.write(WORKER3, WORKER2, CONTROL, new, **declared)
        with pods.undisturbed(*RING), RouteWatch(cluster.handles[CONTROL]) as watch:
            run = cluster.converge()
            assert run.rc == 0, run.output
            assert [line for line in watch.changes() if "10.244." in line] == []
        assert cluster.ledger["pod_cidrs"] == {(new if name == WORKER else name): block for name, block in blocks.items()}
        for node in cluster.nodes.values():
            assert_converged(node, cluster.nodes)
        again = cluster.converge()
        assert (again.rc, again.changed) == (0, []), again.output
    del cluster.known["renamed"], cluster.handles["renamed"]
    cluster.write(WORKER3, WORKER2, CONTROL, WORKER, **more)
    assert cluster.converge().changed == []


def test_a_lost_ledger_gives_nothing_anew(cluster: Cluster) -> None:
    kept = FOLDER / "kept"
    LEDGER.rename(kept)
    for limit in ((), (f"--limit={WORKER2}",)):
        run = cluster.converge(*limit)
        assert run.rc != 0 and run.changed == []
        assert "does not know what nodes already hold" in " ".join(run.output.split())
        assert not LEDGER.exists()
    kept.rename(LEDGER)
    LEDGER.chmod(0o444)
    again = cluster.converge()
    assert (again.rc, again.changed) == (0, [])
    LEDGER.chmod(0o644)


def test_a_node_with_pods_is_not_removed(cluster: Cluster, pods: Pods) -> None:
    before = LEDGER.read_text()
    run = cluster.remove(WORKER3)
    assert run.rc != 0 and run.changed == []
    assert pods[WORKER3].address in run.messages(WORKER3)
    assert LEDGER.read_text() == before
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)


def test_what_is_no_node_is_not_removed(cluster: Cluster) -> None:
    before = LEDGER.read_text()
    for name in ("k8s-guide-*", "kindnet_nodes", "nobody", "", "all"):
        run = cluster.remove(name)
        assert run.rc != 0 and run.changed == [], name
    assert cluster.remove(WORKER3, f"--limit={WORKER3}").rc != 0
    assert LEDGER.read_text() == before


def test_a_node_leaves(cluster: Cluster, pods: Pods) -> None:
    pods.remove(WORKER3)
    block = cluster.ledger["pod_cidrs"][WORKER3]
    predicted = cluster.remove(WORKER3, "--check")
    assert predicted.rc == 0, predicted.output
    with pods.undisturbed(*RING):
        run = cluster.remove(WORKER3)
        assert run.rc == 0, run.output
    assert predicted.pairs() == run.pairs()
    assert "Take it out of the inventory" in run.output
    gone = cluster.handles[WORKER3]
    assert_clean(gone)
    assert WORKER3 not in cluster.ledger["pod_cidrs"]
    assert cluster.ledger["freed_pod_cidrs"][-1:] == block

    # Still in the inventory it is not silently made a node again, and nobody else is changed.
    run = cluster.converge()
    assert run.rc != 0 and run.changed == []
    assert WORKER3 in run.output and "remove_node.yml" in run.output

    cluster.write(WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"})
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)
    run = cluster.converge()
    assert (run.rc, run.changed) == (0, []), run.output
    assert cluster.ledger["removed_hosts"] == [WORKER3]
    assert_clean(gone)


def assert_clean(node: Node) -> None:
    assert node.own_routes() == {}
    assert CHAIN not in node.sh("iptables-save")
    assert node.run(f"test -e {CONFLIST} -o -e /etc/kindnet").rc != 0
    assert node.sh(f"ip route show table all proto {PROTOCOL}") == ""
    assert node.run("systemctl list-unit-files 'kindnet*' --no-legend").stdout == ""


def test_it_joins_again_with_a_block_that_nobody_ever_had(cluster: Cluster, pods: Pods) -> None:
    cluster.write(WORKER2, CONTROL, WORKER, WORKER3, worker2={"kindnet_node_interface": "eth0"})
    refused = cluster.converge()
    assert refused.rc != 0 and refused.changed == [] and "removed_hosts" in refused.output
    LEDGER.write_text(LEDGER.read_text().replace(f"      - {WORKER3}\n", ""))  # as it says
    with pods.undisturbed(*RING):
        run = cluster.converge()
        assert run.rc == 0, run.output
    assert cluster.ledger["pod_cidrs"][WORKER3] == ["10.244.4.0/24"]
    for node in cluster.nodes.values():
        assert_converged(node, cluster.nodes)


def test_one_that_cannot_be_reached_is_removed(cluster: Cluster, pods: Pods) -> None:
    lab("nodes", "stop", WORKER3)
    try:
        with pods.undisturbed(*RING):
            run = cluster.remove(WORKER3)
            assert run.rc == 0, run.output
        assert "could not be reached" in run.output
        assert cluster.ledger["freed_pod_cidrs"][-1:] == ["10.244.4.0/24"]
        # The operator does as told, and nothing else is to be done.
        cluster.write(WORKER2, CONTROL, WORKER, worker2={"kindnet_node_interface": "eth0"})
        for node in cluster.nodes.values():
            assert_converged(node, cluster.nodes)
    finally:
        lab("nodes", "start", WORKER3)


def test_the_last_peer_but_one_is_removed_by_name(cluster: Cluster, pods: Pods) -> None:
    """Each time it is one that an operator names, so the guard against losing many has nothing to say, down to the last peer."""
    for name in (WORKER2, CONTROL):
        pods.remove(name)
        run = cluster.remove(name)
        assert run.rc == 0, run.output
        cluster.write(*[n for n in cluster.hosts if n != name])
    assert cluster.handles[WORKER].own_routes() == {}
    assert set(cluster.ledger["pod_cidrs"]) == {WORKER}
