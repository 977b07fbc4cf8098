# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table out of real inventories, read by Ansible's own classes. No host of them exists, so a connection would be seen.

What the run as a whole decides (--limit, serial, -v) is tried with ansible-playbook; the rest would only be slower by it.
"""

from __future__ import annotations

__metaclass__ = type

import json
import os
import subprocess
import sys

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.kindnet.host.plugins.action import kindnet_node_table as plugin
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError

PLAYBOOK = [
    {
        "hosts": "kindnet_nodes",
        "gather_facts": False,
        "serial": "{{ serial | default('100%') }}",
        "tasks": [
            {
                "kindnet.host.kindnet_node_table": {
                    "group": "{{ group | default('kindnet_nodes') }}",
                    "cluster_cidrs": "{{ kindnet_cluster_cidrs | default([]) }}",
                    "node_table": "{{ kindnet_node_table | default(omit) }}",
                },
                "run_once": True,
                "register": "table",
            },
            {
                "ansible.builtin.copy": {
                    # Templated as a module's option is, on its way to the module.
                    "content": "{{ table.nodes_json | string }}\n{{ table.nodes | to_json }}\n{{ table.families }} {{ table.count }}\n",
                    "dest": "{{ out }}/{{ inventory_hostname }}",
                },
                "delegate_to": "localhost",
                "connection": "local",
            },
        ],
    }
]


def hosts(*rows, **variables):
    return {"kindnet_nodes": {"hosts": {name: dict(v) for name, v in rows}, "vars": dict({"kindnet_cluster_cidrs": ["10.244.0.0/16"]}, **variables)}}


A = ("a", {"ansible_host": "192.0.2.1", "kindnet_pod_cidrs": ["10.244.0.0/24"]})
B = ("b", {"ansible_host": "192.0.2.2", "kindnet_pod_cidrs": ["10.244.1.0/24"]})
AB = [
    {"name": "a", "node_ips": ["192.0.2.1"], "pod_cidrs": ["10.244.0.0/24"]},
    {"name": "b", "node_ips": ["192.0.2.2"], "pod_cidrs": ["10.244.1.0/24"]},
]


class Run:
    def __init__(self, folder, inventory, *args):
        out = folder / "out"
        out.mkdir(exist_ok=True)
        (folder / "inventory.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
        (folder / "play.yml").write_text(yaml.safe_dump(PLAYBOOK))
        command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "inventory.yml", "play.yml", "-e", "out=%s" % out]
        env = dict(
            os.environ,
            ANSIBLE_COLLECTIONS_PATH=os.path.abspath(".ansible/collections"),
            ANSIBLE_LOCALHOST_WARNING="false",
            ANSIBLE_PYTHON_INTERPRETER=sys.executable,
            LC_ALL="C.UTF-8",
        )
        done = subprocess.run(
            command + list(args), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
        )
        self.rc, self.text = done.returncode, done.stdout
        self.message = " ".join(done.stdout.split())
        self.tables = {p.name: json.loads(p.read_text().splitlines()[0]) for p in out.iterdir()}
        self.by_name = {p.name: json.loads(p.read_text().splitlines()[1]) for p in out.iterdir()}


@pytest.mark.parametrize(
    "args, members",
    [
        ((), {"a", "b"}),
        (("--limit", "b"), {"b"}),
        (("-e", "serial=1"), {"a", "b"}),
        (("--check",), set()),
    ],
)
def test_the_table_is_the_inventory_whoever_takes_part(tmp_path, args, members):
    run = Run(tmp_path, hosts(A, B), *args)
    assert run.rc == 0, run.text
    assert set(run.tables) == members
    assert all(table == AB for table in run.tables.values())
    assert all(table == {n.pop("name"): n for n in json.loads(json.dumps(AB))} for table in run.by_name.values())


def test_verbose_output_does_not_repeat_the_table(tmp_path):
    run = Run(tmp_path, hosts(A, B), "-v", "--check")
    assert run.rc == 0 and "nodes_json" not in run.text, run.text


def test_a_bad_table_stops_every_host(tmp_path):
    run = Run(tmp_path, hosts(A, ("b", dict(B[1], ansible_host="b.example.org"))))
    assert run.rc == 2 and not run.tables, run.text
    assert run.text.count("node_ips of b: b.example.org") >= 1 and "never looked up" in run.message and "Traceback" not in run.text


def read(folder, inventory):
    """The table as the action plugin makes it."""
    path = folder / "inventory.yml"
    path.write_text(yaml.safe_dump(inventory, sort_keys=False))
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(path)])
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(manager, variables, loader)
    members = [h.name for h in manager.get_hosts("kindnet_nodes")]
    plugin.refuse_differing_values(hostvars, members)
    raw = hostvars.raw_get(members[0])
    rows = raw.get("kindnet_node_table") or plugin.declared_nodes(hostvars, manager.get_groups_dict(), raw.get("group", "kindnet_nodes"))
    nodes = plugin.parse_nodes(rows, plugin.parse_cidrs("kindnet_cluster_cidrs", raw["kindnet_cluster_cidrs"]))
    plugin.refuse_hosts_outside([n.name for n in nodes], members)
    return json.loads(plugin.dump_nodes(nodes))


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"kindnet_node_ips": ["192.0.2.9", "2001:DB8::9"]}, ["192.0.2.9", "2001:db8::9"]),
        ({"kindnet_node_ips": "192.0.2.9, 2001:db8::9"}, ["192.0.2.9", "2001:db8::9"]),
        ({"kindnet_node_ips": ["192.0.2.9"], "ansible_host": "name.example.org"}, ["192.0.2.9"]),
        ({"kindnet_node_ips": "{{ [own_ip] }}", "own_ip": "192.0.2.9"}, ["192.0.2.9"]),
        ({"ansible_host": "{{ own_ip }}", "own_ip": "192.0.2.9"}, ["192.0.2.9"]),
        ({"ansible_host": "[2001:db8::9]", "kindnet_pod_cidrs": ["fd00:10:244::/64"]}, ["2001:db8::9"]),
        ({"ansible_host": "192.0.2.9", "kindnet_node_ips": []}, ["192.0.2.9"]),
    ],
)
def test_where_an_address_comes_from(tmp_path, variables, expected):
    cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
    table = read(tmp_path, hosts(A, ("b", dict(B[1], **variables)), kindnet_cluster_cidrs=cidrs))
    assert table[1]["node_ips"] == expected


def test_without_ansible_host_the_name_is_the_address(tmp_path):
    table = read(tmp_path, hosts(("192.0.2.7", {"kindnet_pod_cidrs": ["10.244.7.0/24"]})))
    assert table[0]["node_ips"] == ["192.0.2.7"]


@pytest.mark.parametrize(
    "inventory, words",
    [
        (hosts(A, ("b", dict(B[1], ansible_host="b.example.org"))), ["node_ips of b", "b.example.org", "never looked up", "kindnet_node_ips"]),
        (hosts(A, ("b", {"kindnet_pod_cidrs": ["10.244.1.0/24"]})), ["node_ips of b", "never looked up"]),
        (hosts(A, ("b", dict(B[1], ansible_host="fe80::1%eth0"))), ["node_ips of b", "zone"]),
        (hosts(A, ("b", {"ansible_host": "192.0.2.2"}), ("c", {"ansible_host": "192.0.2.3"})), ["kindnet_pod_cidrs", "b, c", "10.244.1.0/24"]),
        (hosts(A, ("b", dict(B[1], kindnet_pod_cidrs=["10.244.1.5/24"]))), ["pod_cidrs of b", "host bits", "Write 10.244.1.0/24."]),
        (hosts(A, ("b", dict(B[1], kindnet_pod_cidrs=["10.245.1.0/24"]))), ["pod_cidrs of b", "outside"]),
        (hosts(A, ("b", dict(B[1], kindnet_node_ips=["{{ ansible_facts.default_ipv4.address }}"]))), ["kindnet_node_ips of b", "facts"]),
        (hosts(A, ("b", dict(B[1], ansible_host="{{ nowhere }}"))), ["ansible_host of b", "nowhere"]),
        (hosts(A, ("b", dict(B[1], kindnet_cluster_cidrs=["10.0.0.0/8"]))), ["kindnet_cluster_cidrs", "differs between a and b"]),
        (hosts(A, B, kindnet_cluster_cidrs=["10.244.0.1/16"]), ["kindnet_cluster_cidrs", "host bits"]),
        (hosts(A, kindnet_node_table=AB[1:]), ["node_name", "a", "not in the node table (b)"]),
        (hosts(A, group="nobody"), ["kindnet_nodes", "nobody", "no host in this group"]),
    ],
)
def test_bad_inventories(tmp_path, inventory, words):
    with pytest.raises(KindnetError) as caught:
        read(tmp_path, inventory)
    assert not [w for w in words if w not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize("given", [AB, json.dumps(AB)], ids=["list", "json"])  # as a string, 2.18 makes a list of it
def test_an_explicit_table_wins(tmp_path, given):
    run = Run(tmp_path, hosts(("b", {"ansible_host": "by.name", "kindnet_pod_cidrs": "nonsense"}), kindnet_node_table=given))
    assert run.rc == 0 and run.tables == {"b": AB}, run.text
