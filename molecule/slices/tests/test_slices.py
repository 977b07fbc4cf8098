# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""More than one controller, told in order: each test goes on where the one before it ended.

A slice is what ansible-runner is given in a folder of its own, as AWX gives it: an inventory of some of the hosts, with variables to connect by, and
the node table of all of them. Nothing else of the others is in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodes import CHAIN, PROTOCOL, ROOT, Node, assert_converged, lab, load_inventory, play

RUNNER = Path(sys.executable).parent / "ansible-runner"

# Everything there is of ours on a node, and how it runs. Less what is a time, a counter, or bytecode, which Python does not write the same way twice.
STATE = r"""
for place in /etc/kindnet /etc/cni /opt/cni /var/lib/kindnet /usr/local/lib/kindnet /usr/local/sbin /etc/systemd/system /etc/sysctl.d /etc/tmpfiles.d \
    /etc/iproute2/rt_protos.d; do
  find $place -printf '%p %y %m %U:%G %l\n'
  find $place -type f ! -name '*.pyc' -exec sha256sum {} +
done | sort
cat /etc/kindnet/desired.json
cat /etc/cni/net.d/10-kindnet.conflist
ip -4 route
ip -6 route show proto kindnet
iptables-save | sed -e '/^#/d' -e 's/\[[0-9:]*\]//'
ip6tables-save | sed -e '/^#/d' -e 's/\[[0-9:]*\]//'
sysctl net.ipv4.ip_forward
systemctl is-enabled kindnet-reconcile.timer
systemctl is-active kindnet-reconcile.timer
"""


def state_of(nodes: dict[str, Node]) -> dict[str, str]:
    return {name: node.sh(STATE) for name, node in nodes.items()}


@pytest.fixture(scope="module")
def one_run(nodes: dict[str, Node]) -> dict[str, str]:
    """What the scenario's converge left, a single run over the whole inventory."""
    found = state_of(nodes)
    for name, text in found.items():
        for word in (CHAIN, "desired.json", "10.244.0.0/16", "enabled", *(peer for peer in nodes if peer != name)):
            assert word in text, (name, word)
    return found


@pytest.fixture(scope="module")
def table(nodes: dict[str, Node]) -> list[dict[str, Any]]:
    return [{"name": node.name, "node_ips": node.node_ips, "pod_cidrs": node.pod_cidrs} for node in nodes.values()]


class Slice:
    """A folder as ansible-runner takes it."""

    def __init__(self, folder: Path, names: list[str], **variables: Any) -> None:
        self.folder = folder
        group = load_inventory()["kindnet_nodes"]
        hosts = {name: {key: value for key, value in group["hosts"][name].items() if key.startswith("ansible_") or not variables} for name in names}
        (folder / "inventory").mkdir(parents=True)
        (folder / "env").mkdir()
        inventory = {"kindnet_nodes": {"hosts": hosts, "vars": {**group["vars"], **variables}}}
        (folder / "inventory/hosts.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
        (folder / "env/envvars").write_text(yaml.safe_dump({"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}))

    def give(self, table: Path) -> None:
        """The table, as variables of the group."""
        place = self.folder / "inventory/group_vars/kindnet_nodes"
        place.mkdir(parents=True)
        (place / table.name).write_text(table.read_text())

    def start(self, ident: str) -> subprocess.Popen[str]:
        command = [RUNNER, "run", self.folder, "--ident", ident, "--project-dir", ROOT / "playbooks", "--playbook", "kindnet.yml"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        environment["PATH"] = "%s:%s" % (RUNNER.parent, environment["PATH"])
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stats(self, ident: str) -> dict[str, dict[str, int]]:
        """How often each thing happened on each host, as ansible-runner recorded it."""
        events = (json.loads(path.read_text()) for path in (self.folder / "artifacts" / ident / "job_events").glob("*.json"))
        (stats,) = (event["event_data"] for event in events if event["event"] == "playbook_on_stats")
        return {key: stats[key] for key in ("ok", "changed", "failures", "dark")}


@pytest.fixture(scope="module")
def slices(nodes: dict[str, Node], table: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Slice]:
    names = list(nodes)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    path = tmp_path_factory.mktemp("table") / "kindnet-node-table.json"
    run = play("table.yml", f"--extra-vars=kindnet_table_file={path}")
    assert run.rc == 0 and json.loads(json.loads(path.read_text())["kindnet_node_table"]) == table, run.output
    made = [Slice(tmp_path_factory.mktemp("slice") / "data", half, kindnet_max_removals=0) for half in halves]
    for each in made:
        each.give(path)
    return made


def test_there_are_enough_nodes(nodes: dict[str, Node]) -> None:
    assert len(nodes) == 6


def test_two_slices_at_once_leave_what_one_run_leaves(nodes: dict[str, Node], one_run: dict[str, str], slices: list[Slice]) -> None:
    assert play("teardown.yml", "--extra-vars=kindnet_teardown_force=true").rc == 0
    for node in nodes.values():
        assert node.own_routes() == {}
        assert node.run("test -e /etc/kindnet -o -e /usr/local/lib/kindnet").rc != 0
    for each, process in [(s, s.start("first")) for s in slices]:
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        assert len(each.stats("first")["changed"]) == 3
    for node in nodes.values():
        assert_converged(node, nodes)
    assert state_of(nodes) == one_run


def test_a_slice_that_runs_again_changes_nothing(nodes: dict[str, Node], one_run: dict[str, str], slices: list[Slice]) -> None:
    process = slices[1].start("again")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    stats = slices[1].stats("again")
    assert (len(stats["ok"]), stats["changed"], stats["failures"], stats["dark"]) == (3, {}, {}, {})
    assert state_of(nodes) == one_run


def test_a_slice_without_the_table_takes_nobody_away(nodes: dict[str, Node], one_run: dict[str, str], tmp_path: Path) -> None:
    here, there = list(nodes)[:3], list(nodes)[3:]
    bare = Slice(tmp_path / "data", here)
    process = bare.start("bare")
    said = " ".join(process.communicate(timeout=300)[0].split())
    assert process.returncode != 0
    assert set(bare.stats("bare")["failures"]) == set(here)
    for name in there:
        assert name in said
    assert "kindnet_max_removals" in said
    for node in nodes.values():
        assert len(node.own_routes()) == len(nodes) - 1
    # Its routes are the last that a run looks at, and what it recorded before that is what it had recorded already.
    changed = {name for name, text in state_of(nodes).items() if text != one_run[name]}
    assert changed <= set(here)


NEEDED = ("ansible-core", "jinja2", "MarkupSafe", "PyYAML", "packaging", "resolvelib")
PULL = "/srv/pull/bin/ansible-pull --url file:///srv/pull/fleet.git --directory /srv/pull/checkout --inventory inventory.yml"
COMMAND = "#!/usr/bin/python3\nimport sys\nsys.path.insert(0, '/srv/pull/python')\nfrom ansible.cli.%s import main\nmain()\n"


@pytest.fixture(scope="module")
def puller(nodes: dict[str, Node], table: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with git, Ansible, and a repository that holds the inventory and the collection. Without a network, all of it is carried there."""
    node = nodes["k8s-guide-worker3"]
    folder = tmp_path_factory.mktemp("fleet")
    group = load_inventory()["kindnet_nodes"]
    hosts = {name: {"ansible_connection": "local"} for name in nodes}
    variables = {"kindnet_cluster_cidrs": group["vars"]["kindnet_cluster_cidrs"], "kindnet_node_table": table, "ansible_python_interpreter": "/usr/bin/python3"}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"kindnet_nodes": {"hosts": hosts, "vars": variables}}, sort_keys=False))
    (folder / "ansible.cfg").write_text("[defaults]\ncollections_path = collections\n")
    (folder / "site.yml").write_text("- import_playbook: kindnet.host.kindnet\n")
    collection = folder / "collections/ansible_collections/kindnet/host"
    collection.mkdir(parents=True)
    for part in ("galaxy.yml", "meta", "playbooks", "plugins", "roles", "templates"):
        subprocess.run(["cp", "-a", ROOT / part, collection], check=True)
    git = ["git", "-C", folder, "-c", "user.name=fleet", "-c", "user.email=fleet@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=fleet"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", folder, folder / "fleet.git"], check=True)
    (folder / "bin").mkdir()
    for command, module in (("ansible", "adhoc"), ("ansible-playbook", "playbook"), ("ansible-pull", "pull")):
        (folder / "bin" / command).write_text(COMMAND % module)
        (folder / "bin" / command).chmod(0o755)
    lab_exec(node.name, "mkdir -p /srv/pull/python")
    site = Path(distribution("ansible-core").locate_file(""))
    tops = sorted({Path(f).parts[0] for name in NEEDED for f in distribution(name).files or () if not str(f).startswith("..")})
    carry(node.name, site, "/srv/pull/python", *tops)
    carry(node.name, folder, "/srv/pull", "bin", "fleet.git")
    carry(node.name, Path("/usr/bin"), "/usr/local/bin", "git", "git-upload-pack")
    return node


def lab_exec(node: str, script: str) -> None:
    lab("nodes", "exec", node, "sh", "-euc", script)


def carry(node: str, source: Path, target: str, *names: str) -> None:
    with subprocess.Popen(["tar", "-C", source, "--exclude=__pycache__", "--exclude=./ansible/test", "-czf", "-", *names], stdout=subprocess.PIPE) as tar:
        subprocess.run([ROOT / "lab/nodes", "exec", node, "tar", "-C", target, "-xzf", "-"], stdin=tar.stdout, check=True)
    assert tar.returncode == 0


def test_a_node_that_pulls_comes_to_the_same(nodes: dict[str, Node], one_run: dict[str, str], puller: Node) -> None:
    assert play("teardown.yml", "--limit=%s" % puller.name, "--extra-vars=kindnet_teardown_force=true").rc == 0
    assert puller.own_routes() == {}
    lab_exec(puller.name, "git config --global safe.directory '*'")
    try:
        said = puller.sh("cd /srv/pull; %s --limit %s site.yml" % (PULL, puller.name))
        assert "failed=0" in said
        assert len(puller.own_routes()) == len(nodes) - 1
        assert puller.routes(PROTOCOL) != []
        assert state_of({puller.name: puller})[puller.name] == one_run[puller.name]
        again = puller.sh("cd /srv/pull; %s --limit %s site.yml" % (PULL, puller.name))
        assert "%s : ok=" % puller.name in " ".join(again.split()) and "changed=0 unreachable=0 failed=0" in " ".join(again.split()[-40:])
        assert state_of({puller.name: puller})[puller.name] == one_run[puller.name]
    finally:
        lab_exec(puller.name, "rm -rf /srv/pull /usr/local/bin/git* /root/.gitconfig")
