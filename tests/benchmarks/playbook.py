# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of playbooks/kindnet.yml takes, beside a playbook that somebody writes by hand (by_hand.yml). Needs root; brings the lab's nodes up.

Three nodes over SSH, as ansible.cfg of this checkout has it. Each round takes one after the other: out with everything, a first converge, a run
without changes; then the same by hand. Twice: with the peers that there are, and with a hundred, of which all but two are members of the inventory
that nobody connects to. Their next hops lie in the nodes' network, and no packet is sent to them.

Run as: playbook.py [ROUNDS [ROUNDS WITH A HUNDRED]]. With --profile it tells of a run without changes what each task takes, instead.
KINDNET_BENCH=small makes it one round with the peers that there are, in which nothing is measured but that it works.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from _table import SMALL, Table, ratio, spread, title, verdict

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
LAB = Path("/run/kindnet-lab")
INVENTORY = ROOT / ".lab/inventory.yml"

PEERS = 100

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
        # Anew, and by make up again.
        for verb in ("down", "up"):
            subprocess.run([ROOT / "lab/nodes", verb, "guide"], check=True)
        (LAB / "scenarios").touch()
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


def compare(lab: Lab, few: int, many: int) -> None:
    title(
        "Runs of the playbook, beside one that is written by hand",
        "Three nodes over SSH, from start to end of ansible-playbook: median of %d rounds, and of %d with %d peers (lowest-highest), the two in turns."
        % (few, many, PEERS),
    )
    table = Table("peers", "run", "kindnet.yml", "by hand", "ours/by hand", "limit", wide=(5, 15, 18, 18))
    for peers, wanted in ((len(lab.nodes) - 1, few), (PEERS, many)):
        if not wanted:
            continue
        rounds = [round_of(lab, peers) for _round in range(wanted)]
        for run in ("first", "again"):
            ours, hand = ([each["%s, %s" % (run, whose)] for each in rounds] for whose in ("ours", "by hand"))
            limit = verdict(ratio(ours, hand), LIMITS[peers]) if run == "again" else ""
            what = "first" if run == "first" else "without changes"
            table.row(str(peers), what, spread(ours, "s"), spread(hand, "s"), "%.2f" % ratio(ours, hand), limit)
    table.end()


def count(lab: Lab) -> None:
    """The modules that a run without changes starts on a host, which must not depend on the number of peers."""
    table = Table("peers", "modules on each host, kindnet.yml", "by hand")
    counts = {}
    for peers in (len(lab.nodes) - 1, PEERS):
        found = []
        for playbook, clean in ((OURS, lab.clean), (BY_HAND, lab.clean_by_hand)):
            lab.seconds(playbook, *lab.inventory(peers))
            found.append(modules_per_host(tasks_of(lab, peers, playbook), len(lab.nodes)))
            clean()
        table.row(str(peers), *("%.0f" % modules for modules in found))
        counts[peers] = found[0]
    table.end()
    assert len(set(counts.values())) == 1, counts


def profile(lab: Lab) -> None:
    peers = len(lab.nodes) - 1
    options = lab.inventory(peers)
    lab.seconds(OURS, *options)
    before = lab.bytes_over_the_network()
    whole = lab.seconds(OURS, *options)
    sent = lab.bytes_over_the_network() - before
    rows = tasks_of(lab, peers)
    title("A run without changes, task by task", "Three nodes, %.2f s, %d kB over the network in all." % (whole, sent // 1000))
    table = Table("ms", "modules started", "hosts that skip it", "task", wide=(6, 0, 0, 100))
    for row in rows:
        table.row("%.0f" % (row["seconds"] * 1000), str(row["modules"]), str(row["skipped"]), row["task"])
    inside = sum(row["seconds"] for row in rows)
    table.row("%.0f" % ((whole - inside) * 1000), "", "", "before the first task and after the last")
    table.end()
    lab.clean()


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        if arguments == ["--profile"]:
            profile(lab)
        else:
            few = int(arguments[0]) if arguments else 1 if SMALL else 5
            compare(lab, few, int(arguments[1]) if arguments[1:] else 0 if SMALL else few)
            if not SMALL:
                count(lab)


if __name__ == "__main__":
    main(sys.argv[1:])
