# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node table costs on the controller: made once per play and handed to each host, beside loops over hostvars in every host's task.

Run as: controller.py [HOSTS ...]. Nobody is connected to. Each row is a whole ansible-playbook run in which all hosts take part; "without" is the same play
whose tasks say nothing of a table, so the difference is ours. KINDNET_BENCH=small makes it a matter of seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from _table import SMALL, Table, spread, title, verdict

ROOT = Path(__file__).resolve().parents[2]
SIZES = (3, 6) if SMALL else (10, 100, 1000, 5000)
LOOPED = 300  # hosts at most: it grows with the square
# A host may take so many times what it takes without a table, as what Ansible's own part grows by is not ours, and for the table, which is
# handed to every host, so many microseconds for each of its kB.
MOST, MOST_PER_KB = 1.1, 60

ONCE = """
- name: A table for all
  kindnet.host.kindnet_node_table:
    cluster_cidrs: "{{ kindnet_cluster_cidrs }}"
  run_once: true
  register: table
- name: Its use by each host, as options of modules
  ansible.builtin.assert:
    that:
      - table.nodes_json | string | length > 0
      - table.nodes[inventory_hostname].pod_cidrs | length == 1
    quiet: true
"""
WITHOUT = """
- name: No table
  ansible.builtin.assert:
    that: kindnet_cluster_cidrs | length > 0
    quiet: true
  run_once: true
  register: table
- name: Nor its use
  ansible.builtin.assert:
    that:
      - inventory_hostname | string | length > 0
      - kindnet_pod_cidrs | length == 1
    quiet: true
"""
LOOP = """
- name: A table in every host's own task
  ansible.builtin.set_fact:
    table: >-
      {% set rows = [] %}{% for h in groups['kindnet_nodes'] %}{{ rows.append({'name': h, 'node_ips': hostvars[h].kindnet_node_ips,
      'pod_cidrs': hostvars[h].kindnet_pod_cidrs}) }}{% endfor %}{{ rows | to_json }}
"""
PLAY = """
- hosts: kindnet_nodes
  gather_facts: false
  tasks:
"""


class Taken(NamedTuple):
    cpu: float  # seconds
    peak: float  # MB, of the largest process


def inventory(count: int) -> dict[str, object]:
    hosts = {}
    for i in range(count):
        third, fourth = divmod(i, 250)
        hosts["node%04d" % i] = {"kindnet_node_ips": ["172.18.%d.%d" % (third, fourth + 1)], "kindnet_pod_cidrs": ["10.%d.%d.0/24" % (third, fourth)]}
    return {"kindnet_nodes": {"hosts": hosts, "vars": {"kindnet_cluster_cidrs": ["10.0.0.0/8"]}}}


def run(folder: Path, count: int, tasks: str) -> Taken:
    (folder / "inventory.json").write_text(json.dumps(inventory(count)))
    (folder / "play.yml").write_text(PLAY + "".join("    %s\n" % line for line in tasks.strip().splitlines()))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "inventory.json"), str(folder / "play.yml")]
    playbook = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    _pid, status, used = os.wait4(playbook.pid, 0)
    assert status == 0, status
    return Taken(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)


def per_host(runs: list[Taken], count: int, first: list[Taken], first_count: int) -> float:
    """Milliseconds of each host beyond those of the first size, so that the start of Ansible is left out."""
    return (statistics.median(r.cpu for r in runs) - statistics.median(r.cpu for r in first)) / (count - first_count) * 1000


def hand_out(folder: Path, sizes: tuple[int, ...]) -> None:
    table = Table(
        "hosts", "table", "CPU, with the table", "without", "of each further host", "without", "for each kB of the table", "MB", "without", "limit",
        wide=(5, 7, 22, 22, 20, 8, 24, 4),
    )
    runs: dict[tuple[int, str], list[Taken]] = {}
    for count in sizes:
        for _round in range(1 if SMALL or count > 300 else 3):
            for tasks in (ONCE, WITHOUT):
                runs.setdefault((count, tasks), []).append(run(folder, count, tasks))
        with_it, without = ([r.cpu for r in runs[count, tasks]] for tasks in (ONCE, WITHOUT))
        size = table_bytes(count) / 1000
        further, limit = ["", "", ""], ""
        if count != sizes[0]:
            each = [per_host(runs[count, tasks], count, runs[sizes[0], tasks], sizes[0]) for tasks in (ONCE, WITHOUT)]
            per_kb = max(0.0, each[0] - each[1]) / size * 1000
            further = [*("%.1f ms" % milliseconds for milliseconds in each), "%.0f us" % per_kb]
            limit = verdict(each[0], each[1] * MOST + size * MOST_PER_KB / 1000, "ms")
        table.row(
            str(count),
            "%.0f kB" % size,
            spread(with_it, "s"),
            spread(without, "s"),
            *further,
            *("%.0f" % max(r.peak for r in runs[count, tasks]) for tasks in (ONCE, WITHOUT)),
            limit,
        )
    table.end()


def loops(folder: Path, sizes: tuple[int, ...]) -> None:
    table = Table("hosts", "CPU, once for all", "in every host's own task", "once / own", wide=(5, 18))
    for count in (n for n in sizes if n <= LOOPED):
        once, own = run(folder, count, ONCE), run(folder, count, LOOP)
        table.row(str(count), "%.1f s" % once.cpu, "%.1f s" % own.cpu, "%.2f" % (once.cpu / own.cpu))
    table.end()


def table_bytes(count: int) -> int:
    hosts = inventory(count)["kindnet_nodes"]["hosts"]  # type: ignore[index]
    return len(json.dumps([{"name": n, "node_ips": v["kindnet_node_ips"], "pod_cidrs": v["kindnet_pod_cidrs"]} for n, v in hosts.items()]))


def main() -> None:
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    title(
        "The node table on the controller",
        "CPU of the whole run, forks as in ansible.cfg; MB is the peak of the largest process. A further host is to take at most %g times what it takes in the"
        " same play without a table, and %g us for each kB of the table, however many hosts there are." % (MOST, MOST_PER_KB),
    )
    with tempfile.TemporaryDirectory() as folder:
        hand_out(Path(folder), sizes)
        loops(Path(folder), (*sizes, LOOPED) if not SMALL else sizes)


if __name__ == "__main__":
    main()
