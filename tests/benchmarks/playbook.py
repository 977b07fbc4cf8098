# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of playbooks/kindnet.yml takes, beside a playbook that somebody writes by hand (by_hand.yml). Needs root; brings the lab's nodes up.

Three nodes over SSH, as ansible.cfg of this checkout has it. Each round takes one after the other: out with everything, a first converge, a run
without changes; then the same by hand. Twice: with the peers that there are, and with a hundred, of which all but two are members of the inventory
that nobody connects to. Their next hops lie in the nodes' network, and no packet is sent to them.

--profile tells of a run without changes what each task takes, instead.
KINDNET_BENCH=small makes it one round with few peers, in which nothing is measured but that it works.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
LAB = Path("/run/kindnet-lab")
INVENTORY = ROOT / ".lab/inventory.yml"

SMALL = os.environ.get("KINDNET_BENCH") == "small"
ROUNDS = 1 if SMALL else 5
PEERS = 5 if SMALL else 100

# Of the time by hand, without changes: with the peers that there are, and with PEERS.
LIMITS = {2: 0.5, PEERS: 0.1}

OURS, BY_HAND = "playbooks/kindnet.yml", "tests/benchmarks/by_hand.yml"

# What by_hand.yml makes.
UNDO_BY_HAND = """
systemctl --quiet disable pod-network.service
rm -f /etc/sysctl.d/90-pod-network.conf /etc/cni/net.d/10-pod-network.conflist /etc/systemd/system/pod-network.service /opt/cni/bin
systemctl daemon-reload
iptables -t nat -D POSTROUTING -s 10.244.0.0/16 -j POD-MASQ
iptables -t nat -F POD-MASQ
iptables -t nat -X POD-MASQ
ip route flush proto boot
sysctl -qw net.ipv4.ip_forward=0
"""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([ROOT / "lab/nodes", "up"], check=True)
        (LAB / "scenarios").touch()  # make up makes the nodes anew
        self.nodes = list(yaml.safe_load(INVENTORY.read_text())["kindnet_nodes"]["hosts"])

    def inventory(self, peers: int) -> list[str]:
        """The options for an inventory in which each node has so many."""
        further = {
            "far-%03d" % n: {"kindnet_node_ips": ["172.18.%d.%d" % divmod(256 + n, 256)], "kindnet_pod_cidrs": ["10.244.%d.0/24" % (n + 100)]}
            for n in range(peers - len(self.nodes) + 1)
        }
        path = self.folder / "further.yml"
        path.write_text(yaml.safe_dump({"kindnet_nodes": {"hosts": further}}))
        return ["--inventory=%s" % INVENTORY, "--inventory=%s" % path, "--limit=%s" % ",".join(self.nodes)]

    def seconds(self, playbook: str, *options: str, **environment: str) -> float:
        command = [BIN / "ansible-playbook", playbook, *options]
        start = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        taken = time.monotonic() - start
        assert done.returncode == 0, done.stdout + done.stderr
        assert "changed=" in done.stdout and "unreachable=0" in done.stdout, done.stdout
        self.changed = sum(int(word.partition("=")[2]) for word in done.stdout.split() if word.startswith("changed="))
        return taken

    def clean(self) -> None:
        self.seconds("playbooks/teardown.yml", "--inventory=%s" % INVENTORY, "--extra-vars=kindnet_teardown_force=true")

    def clean_by_hand(self) -> None:
        for node in self.nodes:
            subprocess.run([ROOT / "lab/nodes", "exec", node, "sh", "-euc", UNDO_BY_HAND], check=True, stdin=subprocess.DEVNULL)

    def routes(self, node: str, *selector: str) -> int:
        shown = [ROOT / "lab/nodes", "exec", node, "ip", "-json", "route", "show", *selector]
        return len(json.loads(subprocess.run(shown, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout))

    def bytes_over_the_network(self) -> int:
        """Both ways, by the nodes' own count."""
        total = 0
        for node in self.nodes:
            shown = [ROOT / "lab/nodes", "exec", node, "ip", "-json", "-statistics", "link", "show", "eth0"]
            (link,) = json.loads(subprocess.run(shown, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout)
            total += link["stats64"]["rx"]["bytes"] + link["stats64"]["tx"]["bytes"]
        return total


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.partition(":")[2].strip() for line in f if line.startswith("model name")), platform.machine())
    return "%s, %d CPUs, Linux %s, Python %s" % (model, os.cpu_count() or 1, platform.release(), platform.python_version())


def round_of(lab: Lab, peers: int) -> dict[str, float]:
    """Seconds of a first run and of one that changes nothing, ours and by hand."""
    options = lab.inventory(peers)
    taken = {}
    for whose, playbook, selector, clean in (("ours", OURS, "kindnet", lab.clean), ("by hand", BY_HAND, "boot", lab.clean_by_hand)):
        taken["first, " + whose] = lab.seconds(playbook, *options)
        assert lab.changed > 0
        for node in lab.nodes:
            assert lab.routes(node, "proto", selector) == peers, (whose, node)
        taken["again, " + whose] = lab.seconds(playbook, *options)
        assert lab.changed == 0, "%s: a second run changed something" % playbook
        clean()
    return taken


def tasks_of(lab: Lab, peers: int, playbook: str = OURS) -> list[dict[str, object]]:
    """What a run that changes nothing does, told by a callback; so it is none of those that are measured."""
    told = lab.folder / "tasks"
    lab.seconds(
        playbook,
        *lab.inventory(peers),
        ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback"),
        ANSIBLE_CALLBACKS_ENABLED="tell_tasks",
        KINDNET_TASKS=str(told),
    )
    return [json.loads(line) for line in told.read_text().splitlines()]


def modules_per_host(rows: list[dict[str, int]], hosts: int) -> float:
    return sum(row["modules"] for row in rows) / hosts


def told(values: list[float]) -> str:
    return "%6.1f (%5.1f-%5.1f)" % (statistics.median(values), min(values), max(values))


def compare(lab: Lab) -> None:
    print("Three nodes over SSH, seconds: medians of %d rounds (lowest-highest). %s" % (ROUNDS, machine()))
    print("%6s  %-10s  %20s  %20s  %10s  %s" % ("peers", "run", "kindnet.yml", "by hand", "ours/hand", "limit"))
    for peers in (len(lab.nodes) - 1, PEERS):
        rounds = [round_of(lab, peers) for _round in range(ROUNDS)]
        for run in ("first", "again"):
            ours, hand = ([each["%s, %s" % (run, whose)] for each in rounds] for whose in ("ours", "by hand"))
            limit = "%.2f" % LIMITS[peers] if run == "again" else ""
            ratio = statistics.median(ours) / statistics.median(hand)
            print("%6d  %-10s  %20s  %20s  %10.2f  %s" % (peers, run, told(ours), told(hand), ratio, limit), flush=True)


def count(lab: Lab) -> None:
    """The modules that a run without changes starts on a host, which must not depend on the number of peers."""
    counts = {}
    for peers in (len(lab.nodes) - 1, PEERS):
        options = lab.inventory(peers)
        lab.seconds(OURS, *options)
        counts[peers] = modules_per_host(tasks_of(lab, peers), len(lab.nodes))
    for peers, modules in counts.items():
        print("%6d peers: a run without changes starts %.0f modules on each host" % (peers, modules))
    assert len(set(counts.values())) == 1, counts
    lab.clean()


def profile(lab: Lab) -> None:
    peers = len(lab.nodes) - 1
    options = lab.inventory(peers)
    lab.seconds(OURS, *options)
    before = lab.bytes_over_the_network()
    whole = lab.seconds(OURS, *options)
    sent = lab.bytes_over_the_network() - before
    rows = tasks_of(lab, peers)
    print("A run without changes on three nodes: %.2f s, %d kB over the network in all. %s" % (whole, sent // 1000, machine()))
    print("%8s  %7s  %7s  %s" % ("ms", "modules", "skipped", "task"))
    for row in rows:
        print("%8.0f  %7d  %7d  %s" % (row["seconds"] * 1000, row["modules"], row["skipped"], row["task"]))
    told = sum(row["seconds"] for row in rows)
    print("%8.0f  %7s  %7s  %s" % ((whole - told) * 1000, "", "", "before the first task and after the last"))
    lab.clean()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        lab.clean()
        if sys.argv[1:] == ["--profile"]:
            profile(lab)
        else:
            compare(lab)
            count(lab)


if __name__ == "__main__":
    main()
