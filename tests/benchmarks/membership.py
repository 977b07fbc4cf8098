# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a longer inventory costs the controller: node table, ledger and templating, as a whole run of the role.

Ten hosts take part in each run, so that the number of hosts in the inventory is all that differs. None of them is connected to, except
that in "one joins" the new one and the few who are asked are this machine. The time of the CPU is given too: the clock tells of a busy machine.
KINDNET_BENCH=small makes it a matter of seconds, in which nothing is measured but that it works.
"""

from __future__ import annotations

__metaclass__ = type

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

import yaml
from _table import SMALL, Table, title, verdict

COLLECTIONS = os.path.abspath(".ansible/collections")
sys.path.insert(0, COLLECTIONS)

from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Host, plan_ledger

PLAY = """
- hosts: kindnet_nodes
  gather_facts: false
  roles: [kindnet.host.node_table]
  tasks:
    - name: Use of the table by each host, as options of modules
      ansible.builtin.assert:
        that:
          - __kindnet_nodes.nodes_json | string | length > 0
          - __kindnet_nodes.nodes[inventory_hostname].pod_cidrs | length == 2
        quiet: true
"""
CLUSTER = ["10.0.0.0/8", "fd00:10::/40"]
MOST = 3.0  # seconds that the longest inventory may take more than the shortest
SIZES = (10, 20) if SMALL else (10, 100, 1000)


def names(count):
    return ["node%04d" % i for i in range(count)]


def prepare(folder, count, known):
    """An inventory of ``count`` dual-stack hosts, of which the ledger has the last ``known``."""
    hosts = {
        name: {"kindnet_node_ips": ["172.18.%d.%d" % (i // 250, i % 250 + 1), "2001:db8::%x" % (i + 1)]} for i, name in enumerate(names(count))
    }
    variables = {"kindnet_cluster_cidrs": CLUSTER, "ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    with open(os.path.join(folder, "inventory.yml"), "w", encoding="utf-8") as f:
        yaml.safe_dump({"kindnet_nodes": {"hosts": hosts, "vars": variables}}, f, sort_keys=False)
    with open(os.path.join(folder, "play.yml"), "w", encoding="utf-8") as f:
        f.write(PLAY)
    planned = plan_ledger(None, [Host(n) for n in names(count)[count - known :]], CLUSTER)
    with open(os.path.join(folder, _ledger_file.NAME), "w", encoding="utf-8") as f:
        f.write(_ledger_file.dump(planned.ledger))


def run(folder):
    """Seconds on the clock, and of the CPU."""
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "inventory.yml", "play.yml", "--limit", "kindnet_nodes[0:9]"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=COLLECTIONS), stdout=subprocess.DEVNULL, check=True)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(count, joining, rounds=1 if SMALL else 3):
    """The best of some rounds."""
    taken = []
    for _unused in range(rounds):
        folder = tempfile.mkdtemp()
        try:
            prepare(folder, count, count - joining)
            taken.append(run(folder))
        finally:
            shutil.rmtree(folder)
    return [min(column) for column in zip(*taken)]


if __name__ == "__main__":
    title("The role node_table by the length of the inventory", "Ten hosts take part. The best of three runs.")
    table = Table("run", "of", *("%d hosts" % n for n in SIZES), "more", "limit", wide=(10, 5))
    for what, joining in (("as before", 0), ("one joins", 1)):
        columns = [measure(count, joining) for count in SIZES]
        for unit, taken in zip(("clock", "CPU"), zip(*columns)):
            more = taken[-1] - taken[0]
            table.row(what, unit, *("%.1f s" % t for t in taken), "%.1f s" % more, verdict(more, MOST, "s"))
    table.end()
