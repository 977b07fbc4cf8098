# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node table costs on the controller: made once per play, beside loops over hostvars in every host's task.

Run from the root of the checkout: .venv/bin/python tests/benchmarks/controller.py
Both as a whole ansible-playbook run that is limited to ten hosts, so that the number of hosts in the inventory is all that differs.
"""

from __future__ import annotations

__metaclass__ = type

import os
import subprocess
import sys
import tempfile
import time

import yaml

LOOP = """
- name: A table in every host's own task
  ansible.builtin.set_fact:
    table: >-
      {% set rows = [] %}{% for h in groups['kindnet_nodes'] %}{{ rows.append({'name': h, 'node_ips': [hostvars[h].ansible_host],
      'pod_cidrs': hostvars[h].kindnet_pod_cidrs}) }}{% endfor %}{{ rows | to_json }}
"""
ONCE = """
- name: A table for all
  kindnet.host.kindnet_node_table:
    cluster_cidrs: "{{ kindnet_cluster_cidrs }}"
  run_once: true
  register: table
- name: Its use by each host, as a module's option
  ansible.builtin.assert:
    that: table.nodes_json | string | length > 0
    quiet: true
"""
PARSE = """
import json, sys, time
from ansible_collections.kindnet.host.plugins.module_utils._node_table import dump_nodes, parse_nodes
n = int(sys.argv[1])
nodes = [{"name": "node%d" % i, "node_ips": ["172.%d.%d.%d" % (16 + i // 62500, i // 250 % 250, i % 250 + 1), "fd00::%x" % (i + 1)],
          "pod_cidrs": ["10.%d.%d.0/24" % (i // 256, i % 256), "fd01:0:0:%x::/64" % i]} for i in range(n)]
text = json.dumps(nodes)
start = time.perf_counter()
parse_nodes(text, ("10.0.0.0/8", "fd01::/32"))
print("%.0f ms" % ((time.perf_counter() - start) * 1000))
"""


def inventory(count):
    hosts = {
        "node%d" % i: {"ansible_host": "172.18.%d.%d" % (i // 250, i % 250 + 1), "kindnet_pod_cidrs": ["10.%d.%d.0/24" % (i // 250, i % 250)]}
        for i in range(count)
    }
    return {"kindnet_nodes": {"hosts": hosts, "vars": {"kindnet_cluster_cidrs": ["10.0.0.0/8"]}}}


def seconds(folder, count, tasks):
    with open(os.path.join(folder, "inventory.yml"), "w", encoding="utf-8") as f:
        yaml.safe_dump(inventory(count), f)
    with open(os.path.join(folder, "play.yml"), "w", encoding="utf-8") as f:
        yaml.safe_dump([{"hosts": "kindnet_nodes", "gather_facts": False, "tasks": yaml.safe_load(tasks)}], f)
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "inventory.yml", "play.yml", "--limit", "kindnet_nodes[0:9]"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


ENVIRONMENT = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.abspath(".ansible/collections"), PYTHONPATH=os.path.abspath(".ansible/collections"))

if __name__ == "__main__":
    print("%-44s %10s %10s" % ("ten hosts converge, of an inventory of", "once", "hostvars"))
    with tempfile.TemporaryDirectory() as folder:
        for count in (10, 100, 300, 1000):
            once = min(seconds(folder, count, ONCE) for _i in range(2))
            loop = "%8.1f s" % seconds(folder, count, LOOP) if count <= 300 else "(quadratic)"
            print("%-44d %8.1f s %11s" % (count, once, loop))
    for count in (1000, 5000):
        done = subprocess.run([sys.executable, "-c", PARSE, str(count)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
        print("parse and check %d dual-stack nodes: %s" % (count, done.stdout.strip()))
