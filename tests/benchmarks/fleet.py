# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dry fleet: playbooks/kindnet.yml --check from end to end, for many hosts that are not there. Needs root.

The controller does all that it would do: the node table, every task of every host, each module packed with its options. A few hosts really run each
module, in namespaces of their own with one address and nothing of ours, so they predict their first converge, with a route to every other host. All
others answer what the first of those answered. Left out are SSH, sudo, and what modules cost a node: thousands of nodes have thousands of CPUs, and
here they would only take the controller's. What the few take is subtracted.

Run as: fleet.py [HOSTS [FORKS ...]]; a tenth of the hosts comes first, to compare with. KINDNET_BENCH=small makes it few hosts, in which nothing is
measured but that it works.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _table import SMALL, Table, title, verdict
from reconcile_sandbox import ROOT, SYSTEMCTL

HERE = Path(__file__).resolve().parent
HOSTS = 3 if SMALL else 1000
FORKS = (2,) if SMALL else (10, 20, 50)
FORKS_OF_FEW = 20
REAL = 2 if SMALL else 5
MOST = 1.25  # times what a host takes among a tenth of them


class Taken(NamedTuple):
    clock: float  # seconds
    cpu: float  # of the controller
    peak: float  # MB, of its largest process
    tasks: int  # of a host


def prepare(folder: Path, count: int) -> None:
    for place in ("answers", "etc", "opt", "usr/local/bin", "var/lib"):
        (folder / place).mkdir(parents=True)
    systemctl = folder / "usr/local/bin/systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    hosts = {}
    for number in range(count):
        third, fourth = divmod(number, 250)
        hosts["node%04d" % number] = {
            "kindnet_node_ips": ["172.18.%d.%d" % (third, fourth + 2)],
            "kindnet_pod_cidrs": ["10.%d.%d.0/24" % (third, fourth)],
            "dry_host_address": "172.18.%d.%d/16" % (third, fourth + 2),
            "dry_host_echo": number >= REAL,
        }
    variables = {
        "kindnet_cluster_cidrs": ["10.0.0.0/8"],
        "dry_host_folder": str(folder),
        "ansible_connection": "dry_host",
        "ansible_pipelining": True,
        "ansible_become": False,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    (folder / "inventory.json").write_text(json.dumps({"kindnet_nodes": {"hosts": hosts, "vars": variables}}))


def run(count: int, forks: int) -> Taken:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        prepare(folder, count)
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "inventory.json"), "playbooks/kindnet.yml", "--check"]
        environment = dict(os.environ, ANSIBLE_CONNECTION_PLUGINS=str(HERE / "connection"), ANSIBLE_FORKS=str(forks), ANSIBLE_NOCOLOR="1")
        with (folder / "output").open("w") as output:
            start = time.monotonic()
            playbook = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            _pid, status, used = os.wait4(playbook.pid, 0)
            clock = time.monotonic() - start
        told = (folder / "output").read_text()
        assert status == 0, told[-4000:]
        recap = re.findall(r"^node\d+ +: ok=(\d+) +changed=(\d+) +unreachable=0 +failed=0 +skipped=(\d+)", told, re.M)
        assert len(recap) == count and len({changed for _ok, changed, _skipped in recap}) == 1, told[-4000:]
        assert int(recap[0][1]) >= 6, "a first converge changes more than that: %s" % (recap[0],)
        modules = sum(map(float, (folder / "cpu").read_text().split()))
        return Taken(clock, used.ru_utime + used.ru_stime - modules, used.ru_maxrss / 1000, sum(map(int, (recap[-1][0], recap[-1][2]))))


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else HOSTS
    title(
        "A dry fleet",
        "`playbooks/kindnet.yml --check` before the first converge, one run each. %d hosts run each module for real, the others answer what the first of them"
        " answered; no SSH. CPU is the controller's, without what those modules took; MB is the peak of its largest process." % REAL,
    )
    table = Table("hosts", "forks", "time", "CPU", "of a host: time", "CPU", "MB", "tasks of a host", "limit of a host's CPU")
    runs = [(count // 10, FORKS_OF_FEW)] if count >= 10 else []
    few = None
    for hosts, forks in (*runs, *((count, forks) for forks in map(int, sys.argv[2:] or FORKS))):
        taken = run(hosts, forks)
        each = taken.cpu / hosts * 1000
        table.row(
            str(hosts),
            str(forks),
            "%.0f s" % taken.clock,
            "%.0f s" % taken.cpu,
            "%.0f ms" % (taken.clock / hosts * 1000),
            "%.0f ms" % each,
            "%.0f" % taken.peak,
            str(taken.tasks),
            verdict(each, few * MOST, "ms") if few else "",
        )
        few = few or each
    table.end()


if __name__ == "__main__":
    main()
