# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pod CIDR that changes in an inventory without a ledger: no peer hears of it while pods could be cut off, however the run is cut.

Three hosts, each in namespaces of its own, to which ansible-playbook comes by a python of their own. What they route and keep is asked of ip and cat.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from cni_sandbox import ROOT, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NAMES = ("a", "b", "c")
CONFLIST = "/etc/cni/net.d/10-kindnet.conflist"
PLAY = [
    {
        "hosts": "kindnet_nodes",
        "gather_facts": False,
        "serial": "{{ kindnet_serial | default('100%') }}",
        "max_fail_percentage": "{{ 0 if kindnet_serial is defined else 100 }}",
        "roles": [{"role": "kindnet.host.conflist", "tags": ["conflist"]}, {"role": "kindnet.host.routes", "tags": ["routes"]}],
    }
]
OLD = {name: "10.244.%d.0/24" % i for i, name in enumerate(NAMES)}
NEW = dict(OLD, b="10.244.77.0/24")
PLUGIN = "#!/bin/sh\necho '{\"cniVersion\": \"1.0.0\", \"supportedVersions\": [\"0.3.1\"]}'\n"


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts = {}
        for i, name in enumerate(NAMES):
            (folder / name).mkdir()
            host = self.hosts[name] = Sandbox(folder / name)
            host.sh("ip link add eth0 type veth peer name lan; ip link set eth0 up; ip link set lan up; ip address add 172.18.0.%d/16 dev eth0" % (i + 2))
            for plugin in ("ptp", "host-local", "portmap", "loopback"):
                host.write("/opt/cni/bin/" + plugin, PLUGIN)
                host.sh("chmod +x /opt/cni/bin/" + plugin)
            python = folder / ("python-" + name)
            python.write_text("#!/bin/sh\nexec nsenter --target %d --mount --net -- %s \"$@\"\n" % (host.process.pid, sys.executable))
            python.chmod(0o755)
        (folder / "play.yml").write_text(yaml.safe_dump(PLAY))

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()

    def play(self, pod_cidrs: dict[str, str], *arguments: str, down: str = "") -> tuple[int, str]:
        rows: dict[str, Any] = {}
        for name, cidr in pod_cidrs.items():
            rows[name] = {
                "kindnet_node_ips": ["172.18.0.%d" % (NAMES.index(name) + 2)],
                "kindnet_pod_cidrs": [cidr],
                "ansible_connection": "local",
                "ansible_python_interpreter": str(self.folder / ("python-" + name)),
            }
            if name == down:  # nobody listens on this port
                rows[name].update(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1)
        (self.folder / "inventory.yml").write_text(
            yaml.safe_dump({"kindnet_nodes": {"hosts": rows, "vars": {"kindnet_cluster_cidrs": ["10.244.0.0/16"]}}}, sort_keys=False)
        )
        command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "inventory.yml", "play.yml", *arguments]
        env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible/collections"), LC_ALL="C.UTF-8", ANSIBLE_NOCOLOR="1")
        done = subprocess.run(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
        return done.returncode, " ".join(done.stdout.split())

    def routes(self, name: str) -> set[str]:
        return {r["dst"] for r in json.loads(self.hosts[name].sh("ip -json route show proto 107"))}

    def has(self, pod_cidrs: dict[str, str], *peers: str) -> bool:
        return all(self.routes(name) == {cidr for n, cidr in pod_cidrs.items() if n != name} for name in peers or NAMES)

    def subnet(self, name: str) -> str:
        return self.hosts[name].json(CONFLIST)["plugins"][0]["ipam"]["ranges"][0][0]["subnet"]  # type: ignore[index]

    def exists(self) -> bool:
        return self.hosts["b"].exists(CONFLIST)

    def pod(self, name: str, ip: str) -> None:
        self.hosts[name].write("/run/cni-ipam-state/kindnet/" + ip, "0123abcd")

    def no_pods(self, name: str) -> None:
        self.hosts[name].sh("rm -rf /run/cni-ipam-state")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(made: Cluster) -> Cluster:
    """As converged, with a pod on b."""
    if not made.exists() or not made.has(OLD) or made.subnet("b") != OLD["b"]:
        rc, output = made.play(OLD, "-e", "kindnet_force_pod_cidr_change=true")
        assert rc == 0 and made.has(OLD) and made.subnet("b") == OLD["b"], output
    made.pod("b", "10.244.1.2")
    return made


def test_the_host_itself_stops_all_while_pods_run(cluster: Cluster) -> None:
    rc, output = cluster.play(NEW)
    assert rc != 0 and "10.244.1.2" in output and "Route to the pods of the peers" not in output, output
    assert cluster.has(OLD) and cluster.subnet("b") == OLD["b"]


@pytest.mark.parametrize(
    "arguments", [("-e", "kindnet_serial=1"), ("--tags", "routes"), ("--limit", "a"), ("--limit", "c", "--check")], ids=" ".join
)
def test_a_run_in_which_it_has_no_say_yet_is_refused(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    rc, output = cluster.play(NEW, *arguments)
    assert rc != 0 and "10.244.1.0/24 of b" in output and "kindnet_force_pod_cidr_change" in output, output
    assert cluster.has(OLD) and cluster.subnet("b") == OLD["b"]


def test_one_that_is_down_keeps_its_routes(cluster: Cluster) -> None:
    rc, output = cluster.play(NEW, down="b")
    assert rc != 0 and "10.244.1.0/24 of b" in output, output
    assert cluster.has(OLD, "a", "c")
    # What else there is to converge, such as another next hop, is not held up for good: the operator takes the change back.
    rc, output = cluster.play(OLD, down="b")
    assert cluster.has(OLD, "a", "c") and "10.244.1.0/24 of b" not in output, output


def test_without_pods_it_is_one_run(cluster: Cluster) -> None:
    cluster.no_pods("b")
    rc, output = cluster.play(NEW, "--check")
    assert rc == 0 and cluster.has(OLD), output
    rc, output = cluster.play(NEW)
    assert rc == 0 and cluster.has(NEW) and cluster.subnet("b") == NEW["b"], output
    rc, output = cluster.play(NEW, "-e", "kindnet_serial=1")
    assert rc == 0 and "changed=0" in output, output


def test_peers_of_later_batches_know_that_it_had_its_say(cluster: Cluster) -> None:
    cluster.no_pods("b")
    rc, output = cluster.play({name: NEW[name] for name in ("b", "a", "c")}, "-e", "kindnet_serial=1")
    assert rc == 0 and cluster.has(NEW) and cluster.subnet("b") == NEW["b"], output


def test_by_force(cluster: Cluster) -> None:
    rc, output = cluster.play(NEW, "-e", "kindnet_force_pod_cidr_change=true", "-e", "kindnet_serial=1")
    assert rc == 0 and cluster.has(NEW) and cluster.subnet("b") == NEW["b"], output


def test_a_peer_that_was_away_follows_in_a_run_that_leaves_the_conflist_out(cluster: Cluster) -> None:
    """The role shortcut has looked for pods then, by the same plan, and found nothing to do."""
    cluster.no_pods("b")
    rc, output = cluster.play(NEW, down="c")
    assert rc != 0 and cluster.has(NEW, "a", "b") and cluster.has(OLD, "c"), output
    looked = {"__kindnet_look": {"idle": ["cni_conflist"]}, "kindnet_install_packages": False}
    rc, output = cluster.play(NEW, "-e", "@%s/roles/shortcut/vars/main.yml" % ROOT, "-e", json.dumps(looked))
    assert re.search(r"Write the CNI configuration\] \*+ skipping: ", output), output
    assert rc == 0 and cluster.has(NEW), output
