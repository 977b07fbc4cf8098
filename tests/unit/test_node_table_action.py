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
            command + list(args), cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False
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


def read(folder, inventory, here=(), **arguments):
    """The table as the action plugin makes it; by default all hosts take part."""
    path = folder / "inventory.yml"
    path.write_text(yaml.safe_dump(inventory, sort_keys=False))
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(path)])
    variables = VariableManager(loader=loader, inventory=manager)
    hostvars = HostVars(manager, variables, loader)
    members = [h.name for h in manager.get_hosts("kindnet_nodes")]
    plugin.refuse_differing_values(hostvars, members)
    raw = hostvars.raw_get(members[0])
    cidrs = plugin.parse_cidrs("kindnet_cluster_cidrs", raw["kindnet_cluster_cidrs"])
    if raw.get("kindnet_node_table"):
        nodes = plugin.explicit_table(raw["kindnet_node_table"], cidrs, None)
    else:
        args = dict({"group": raw.get("group")}, **arguments)
        nodes = plugin.Inventory(hostvars, manager.get_groups_dict(), args, [str(path)]).make(cidrs, here or members, False).nodes
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
        (hosts(A, ("b", {"ansible_host": "192.0.2.2"}), kindnet_cluster_cidrs=[]), ["kindnet_pod_cidrs of b", "nothing to give", "kindnet_cluster_cidrs"]),
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


# --- The ledger


def answer(name, pod_cidrs=None, interface="", addresses=(), allocations=()):
    """What kindnet_node_info returns."""
    return {
        "name": name,
        "pod_cidrs": pod_cidrs or {},
        "interface": interface,
        "addresses": list(addresses),
        "allocations": list(allocations),
    }


def bare(*names, **variables):
    """Hosts whose pod CIDRs are left to the ledger."""
    return hosts(*((n, {"ansible_host": "192.0.2.%d" % (ord(n) - 96)}) for n in names), **variables)


def pod_cidrs(table):
    return {row["name"]: row["pod_cidrs"] for row in table}


def book(folder):
    path = folder / "kindnet-ledger.yml"
    return yaml.safe_load(path.read_text())["kindnet_ledger"]["vars"] if path.exists() else None


def asked(folder, inventory, **arguments):
    with pytest.raises(plugin.Ask) as caught:
        read(folder, inventory, **arguments)
    return caught.value.hosts


GIVEN = {"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"], "c": ["10.244.2.0/24"]}


def converged(folder, *names, **variables):
    """A ledger in which these hosts are."""
    read(folder, bare(*names, **variables), answers=[answer(n) for n in names])
    return book(folder)


def test_pod_cidrs_are_given_when_nobody_holds_any_and_kept_then(tmp_path):
    assert asked(tmp_path, bare("a", "b", "c")) == ["a", "b", "c"] and book(tmp_path) is None
    table = read(tmp_path, bare("a", "b", "c"), answers=[answer(n) for n in "abc"])
    assert pod_cidrs(table) == GIVEN and book(tmp_path)["pod_cidrs"] == GIVEN
    # Nobody is asked any more, whoever is listed where.
    assert pod_cidrs(read(tmp_path, bare("c", "a"))) == {"c": ["10.244.2.0/24"], "a": ["10.244.0.0/24"]}
    assert book(tmp_path)["pod_cidrs"] == GIVEN


def test_a_host_that_joins_asks_itself_and_a_few_who_would_know(tmp_path):
    converged(tmp_path, *"abcdefgh")
    assert asked(tmp_path, bare("z", *"abcdefgh")) == ["z", "a", "b", "c", "d"]
    assert asked(tmp_path, bare("z", *"abcdefgh"), here=["z"]) == ["z", "a", "b", "c", "d"]
    # The new one, too, where a run leaves it out: nobody else can say what it holds.
    assert asked(tmp_path, bare("z", *"abcdefgh"), here=["h"]) == ["z", "h"]
    assert asked(tmp_path, bare("y", "z", *"abcdefgh"), here=["y", "a"]) == ["y", "z", "a"]


def test_a_bad_table_gives_nothing(tmp_path):
    inventory = bare("a", "b", "c")
    inventory["kindnet_nodes"]["hosts"]["c"]["ansible_host"] = "192.0.2.1"
    with pytest.raises(KindnetError, match="also the address of a"):
        read(tmp_path, inventory, answers=[answer(n) for n in "abc"])
    assert os.listdir(tmp_path) == ["inventory.yml"]


def test_hosts_that_say_their_own_need_no_ledger_and_make_none(tmp_path):
    assert pod_cidrs(read(tmp_path, hosts(A, B))) == {"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}
    assert book(tmp_path) is None


def test_a_lost_ledger_is_never_begun_anew(tmp_path):
    converged(tmp_path, "a", "b", "c")
    (tmp_path / "kindnet-ledger.yml").unlink()
    # One that answers knows all.
    for answers in ([answer("b", GIVEN)], [answer("a"), answer("c", {"c": GIVEN["c"]})]):
        with pytest.raises(KindnetError, match="does not know what nodes already hold") as caught:
            read(tmp_path, bare("a", "b", "c"), answers=answers)
        assert "c (10.244.2.0/24)" in str(caught.value) and str(tmp_path) in str(caught.value)
    # What one holds tells nothing of another that is silent.
    said = bare("a", "b", "c")
    said["kindnet_nodes"]["hosts"]["a"]["kindnet_pod_cidrs"] = GIVEN["a"]
    for inventory, answers in ((bare("a", "b", "c"), [answer("a"), answer("b")]), (said, [answer("a", {"a": GIVEN["a"]}), answer("b")])):
        with pytest.raises(KindnetError, match="kindnet_pod_cidrs of c: .* cannot be asked"):
            read(tmp_path, inventory, answers=answers)
    assert book(tmp_path) is None


def test_an_old_ledger_gives_nothing_that_was_given_since(tmp_path):
    converged(tmp_path, "a", "b")
    with pytest.raises(KindnetError, match="c .10.244.2.0/24"):
        read(tmp_path, bare("a", "b", "d"), answers=[answer("a", GIVEN), answer("d")])
    assert set(book(tmp_path)["pod_cidrs"]) == {"a", "b"}


@pytest.mark.parametrize("here", [["a", "b", "d", "c"], ["d"], ["a", "b"]])
def test_an_old_ledger_gives_no_block_that_a_host_holds_alone(tmp_path, here):
    """c was converged alone, by a ledger that is not here: neither a nor b has heard of it."""
    before = converged(tmp_path, "a", "b")
    inventory = bare("a", "b", "d", "c")
    assert {"c", "d"} <= set(asked(tmp_path, inventory, here=here))
    known = {"a": GIVEN["a"], "b": GIVEN["b"]}
    for answers, words in (
        ([answer("a", known), answer("d"), answer("c", GIVEN)], "does not know what nodes already hold: c .10.244.2.0/24"),
        ([answer("a", known), answer("d")], "kindnet_pod_cidrs of c: .* cannot be asked"),
    ):
        with pytest.raises(KindnetError, match=words):
            read(tmp_path, inventory, here=here, answers=answers)
        assert book(tmp_path) == before


def test_an_old_ledger_gives_no_other_block_to_a_host_that_it_has_under_its_old_name(tmp_path):
    """b became c elsewhere, and kindnet_renamed_from was dropped since."""
    before = converged(tmp_path, "a", "b")
    with pytest.raises(KindnetError, match="c .10.244.1.0/24.*kindnet_renamed_from"):
        read(tmp_path, bare("a", "c"), answers=[answer("a", {"a": GIVEN["a"], "c": GIVEN["b"]}), answer("c", {"a": GIVEN["a"], "c": GIVEN["b"]})])
    assert book(tmp_path) == before
    # It is a new host where nobody ever converged it under that name.
    table = read(tmp_path, bare("a", "c"), answers=[answer("a"), answer("c", {"a": GIVEN["a"], "b": GIVEN["b"]})])
    assert pod_cidrs(table)["c"] == ["10.244.2.0/24"]


def test_so_many_new_hosts_outside_of_a_run_are_not_asked_one_by_one(tmp_path):
    converged(tmp_path, "a", "b")
    names = [chr(99 + i) for i in range(17)]
    with pytest.raises(KindnetError, match="17 hosts do not take part now") as caught:
        read(tmp_path, bare("a", "b", *names), here=["a"])
    assert "--tags node_table" in str(caught.value)
    assert asked(tmp_path, bare("a", "b", *names)) == ["a", "b", *names]


def test_a_second_family_asks_everybody_who_is_given_a_block_of_it(tmp_path):
    both = {"kindnet_cluster_cidrs": ["10.244.0.0/16", "fd00:10:244::/48"]}
    converged(tmp_path, *"abcdef")
    inventory = bare(*"abcdef", **both)
    for name in "ef":
        inventory["kindnet_nodes"]["hosts"][name]["kindnet_node_ips"] = ["192.0.2.%d" % ord(name), "2001:db8::%s" % name]
    assert asked(tmp_path, inventory, here=["a"]) == ["a", "e", "f"]
    # With an address to be read, all is asked in one go.
    inventory["kindnet_nodes"]["hosts"]["e"] = {"kindnet_node_interface": "eth1"}
    assert asked(tmp_path, inventory, here=["a"]) == ["a", "e", "f"]


def test_a_run_of_few_hosts_does_not_begin_a_ledger_for_many(tmp_path):
    names = [chr(97 + i) for i in range(20)]
    with pytest.raises(KindnetError, match="19 hosts do not take part") as caught:
        read(tmp_path, bare(*names), here=["a"])
    assert "--tags node_table" in str(caught.value)
    assert asked(tmp_path, bare(*names[:10]), here=["a"]) == names[:10]


def test_a_block_that_was_freed_is_nobodys_though_a_node_that_was_down_still_has_it(tmp_path):
    """It is given last, and then without a word about who once had it."""
    small = {"kindnet_cluster_cidrs": ["10.244.0.0/23"]}
    converged(tmp_path, "a", "b", **small)
    text = (tmp_path / "kindnet-ledger.yml").read_text()
    (tmp_path / "kindnet-ledger.yml").write_text(
        text.replace("      b: [10.244.1.0/24]\n", "").replace("freed_pod_cidrs: []", "freed_pod_cidrs: [10.244.1.0/24]")
    )
    table = read(tmp_path, bare("a", "c", **small), answers=[answer("a", {"a": GIVEN["a"], "b": GIVEN["b"]}), answer("c")])
    assert pod_cidrs(table) == {"a": ["10.244.0.0/24"], "c": ["10.244.1.0/24"]}


@pytest.mark.parametrize(
    "ips, expected",
    [(["192.0.2.9"], ["10.244.0.0/24"]), (["2001:db8::9"], ["fd00:10:244::/64"]), (["192.0.2.9", "2001:db8::9"], ["10.244.0.0/24", "fd00:10:244::/64"])],
)
def test_a_host_gets_blocks_of_the_families_of_its_addresses(tmp_path, ips, expected):
    inventory = hosts(("a", {"kindnet_node_ips": ips}), kindnet_cluster_cidrs=["10.244.0.0/16", "fd00:10:244::/48"])
    assert read(tmp_path, inventory, answers=[answer("a")])[0]["pod_cidrs"] == expected


def test_mask_sizes_may_be_strings_as_ini_has_them(tmp_path):
    inventory = hosts(("a", {"kindnet_node_ips": ["192.0.2.1"]}))
    assert read(tmp_path, inventory, answers=[answer("a")], node_cidr_mask_size="26")[0]["pod_cidrs"] == ["10.244.0.0/26"]


# --- The address of an interface


def on(interface="eth1", **variables):
    return hosts(A, ("b", dict({"kindnet_pod_cidrs": ["10.244.1.0/24"], "kindnet_node_interface": interface, "ansible_host": "198.51.100.2"}, **variables)))


def test_an_address_is_read_once_and_stays(tmp_path):
    assert asked(tmp_path, on(), here=["a"]) == ["a", "b"]
    first = [answer("b", {}, "eth1", ["192.0.2.2", "192.0.2.77", "2001:db8::2"])]
    assert read(tmp_path, on(), answers=first)[1]["node_ips"] == ["192.0.2.2", "2001:db8::2"]
    assert book(tmp_path)["node_ips"] == {"b": {"eth1": ["192.0.2.2", "2001:db8::2"]}}
    assert read(tmp_path, on(), here=["a"])[1]["node_ips"] == ["192.0.2.2", "2001:db8::2"]
    # Another address that would now be the best one changes nothing while the old one is there.
    again = [answer("b", {}, "eth1", ["192.0.2.1", "192.0.2.2", "2001:db8::2"])]
    assert asked(tmp_path, on(), reread_node_ips=True) == ["a", "b"]
    assert read(tmp_path, on(), answers=again, reread_node_ips=True)[1]["node_ips"] == ["192.0.2.2", "2001:db8::2"]
    moved = [answer("b", {}, "eth1", ["192.0.2.3"])]
    assert read(tmp_path, on(), answers=moved)[1]["node_ips"] == ["192.0.2.2", "2001:db8::2"]
    assert read(tmp_path, on(), answers=moved, reread_node_ips=True)[1]["node_ips"] == ["192.0.2.3"]
    # Of a host that takes no part, what is known stays.
    assert read(tmp_path, on(), here=["a"], reread_node_ips=True)[1]["node_ips"] == ["192.0.2.3"]


def test_another_interface_is_asked_for_and_kindnet_node_ips_wins(tmp_path):
    read(tmp_path, on(), answers=[answer("b", {}, "eth1", ["192.0.2.2"])])
    assert asked(tmp_path, on("eth2")) == ["a", "b"]
    assert read(tmp_path, on("eth2"), answers=[answer("b", {}, "eth2", ["192.0.2.4"])])[1]["node_ips"] == ["192.0.2.4"]
    assert read(tmp_path, on("eth2", kindnet_node_ips=["192.0.2.5"]))[1]["node_ips"] == ["192.0.2.5"]
    assert "node_ips" not in book(tmp_path)


@pytest.mark.parametrize(
    "answers, words",
    [
        ([answer("a")], ["kindnet_node_interface of b", "never read", "kindnet_node_ips"]),
        ([answer("a"), answer("b", {}, "eth1", [])], ["kindnet_node_interface of b", "eth1", "no address", "link-local"]),
    ],
)
def test_no_address_no_table(tmp_path, answers, words):
    with pytest.raises(KindnetError) as caught:
        read(tmp_path, on(), answers=answers)
    assert not [w for w in words if w not in str(caught.value)], str(caught.value)
    assert book(tmp_path) is None


def test_a_renamed_host_keeps_its_address_and_its_block(tmp_path):
    read(tmp_path, on(), answers=[answer("b", {}, "eth1", ["192.0.2.2"])])
    renamed = hosts(A, ("bb", {"kindnet_node_interface": "eth1", "kindnet_renamed_from": "b"}))
    assert read(tmp_path, renamed)[1] == {"name": "bb", "node_ips": ["192.0.2.2"], "pod_cidrs": ["10.244.1.0/24"]}
    assert book(tmp_path)["node_ips"] == {"bb": {"eth1": ["192.0.2.2"]}}


# --- One that leaves


def test_the_table_without_the_node_that_leaves(tmp_path):
    assert pod_cidrs(read_leaving(tmp_path, hosts(A, B), "b")) == {"a": ["10.244.0.0/24"]}
    assert read_leaving(tmp_path, hosts(A), "a") == []
    assert pod_cidrs(read_leaving(tmp_path, hosts(A, kindnet_node_table=AB), "b")) == {"a": ["10.244.0.0/24"]}
    for inventory in (hosts(A, B), hosts(A, kindnet_node_table=AB)):
        with pytest.raises(KindnetError, match="neither a node .a, b. nor in the ledger"):
            read_leaving(tmp_path, inventory, "c")


def read_leaving(folder, inventory, name):
    table = inventory["kindnet_nodes"]["vars"].get("kindnet_node_table")
    if table:
        return json.loads(plugin.dump_nodes(plugin.explicit_table(table, [], name)))
    members = list(inventory["kindnet_nodes"]["hosts"])
    hostvars = {n: dict(v) for n, v in inventory["kindnet_nodes"]["hosts"].items()}
    args = {"group": "kindnet_nodes", "removed_node": name, "ledger": str(folder / "kindnet-ledger.yml")}
    return json.loads(plugin.dump_nodes(plugin.Inventory(hostvars, {"kindnet_nodes": members}, args, []).make(["10.244.0.0/16"], members, False).nodes))


def test_one_that_left_the_inventory_before_is_known_by_the_ledger(tmp_path):
    converged(tmp_path, "a", "b")
    assert pod_cidrs(read_leaving(tmp_path, hosts(A), "b")) == {"a": ["10.244.0.0/24"]}


# --- One that gets another pod CIDR


def renumbered(*names):
    inventory = bare(*names)
    inventory["kindnet_nodes"]["hosts"]["b"].update(kindnet_pod_cidrs=["10.244.77.0/24"], kindnet_renumbered_from=["10.244.1.0/24"])
    return inventory


def test_a_host_is_renumbered_when_none_of_its_pods_would_be_lost(tmp_path):
    before = converged(tmp_path, "a", "b")
    inventory = renumbered("a", "b")
    assert asked(tmp_path, inventory, here=["a"]) == ["a", "b"]
    for answers, words in (
        ([answer("a")], ["kindnet_pod_cidrs of b", "cannot be asked"]),
        ([answer("a"), answer("b", allocations=["10.244.1.5", "10.244.77.2"])], ["kindnet_pod_cidrs of b", "1 pods", "10.244.1.5"]),
    ):
        with pytest.raises(KindnetError) as caught:
            read(tmp_path, inventory, answers=answers)
        assert not [w for w in words if w not in str(caught.value)], str(caught.value)
        assert "10.244.77.2" not in str(caught.value) and book(tmp_path) == before
    table = read(tmp_path, inventory, answers=[answer("a"), answer("b", allocations=["10.244.77.2"])])
    assert pod_cidrs(table)["b"] == ["10.244.77.0/24"] and book(tmp_path)["freed_pod_cidrs"] == ["10.244.1.0/24"]
    assert pod_cidrs(read(tmp_path, inventory))["b"] == ["10.244.77.0/24"], "nobody is asked again"


def test_a_host_is_renumbered_by_force(tmp_path):
    converged(tmp_path, "a", "b")
    assert pod_cidrs(read(tmp_path, renumbered("a", "b"), here=["a"], force_pod_cidr_change=True))["b"] == ["10.244.77.0/24"]
