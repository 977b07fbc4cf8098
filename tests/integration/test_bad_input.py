# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gets one clear error, and nothing is changed or lost: every way to be wrong, on one host that is converged and stays so."""

from __future__ import annotations

__metaclass__ = type

import json
import os
import platform
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
from route_host import RouteHost, node

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ME = node("me", "172.18.0.2 fd00:18::2", "10.244.0.0/24 fd00:10:244::/64")
ONE = node("one", "172.18.0.3 fd00:18::3", "10.244.1.0/24 fd00:10:244:1::/64")
TWO = node("two", "172.18.0.4 fd00:18::4", "10.244.2.0/24 fd00:10:244:2::/64")
THREE = node("three", "172.18.0.5", "10.244.3.0/24")
NODES = [ME, ONE, TWO, THREE]
CLUSTER = ["10.244.0.0/16", "fd00:10:244::/56"]
CONFLIST = {
    "cniVersion": "0.3.1",
    "name": "kindnet",
    "plugins": [
        {"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "kindnet_route": {"nodes": NODES, "node_name": "me"},
    "kindnet_masq": {"cluster_cidrs": CLUSTER, "backend": "iptables-nft"},
    "cni_conflist": {"conflist": CONFLIST, "plugin_dirs": ["/run/plugins"]},
}

# The oracle's tools, also for when the host has none; plugins that say what real ones say; and what somebody else has on the host.
SETUP = """
mkdir /run/tools /run/plugins
cp -a /usr/sbin/*tables* /usr/sbin/xtables* "$(command -v ip)" /run/tools
for p in ptp host-local portmap loopback; do
  printf '#!/bin/sh\\necho %s\\n' "'{\\"supportedVersions\\": [\\"0.3.1\\"]}'" >/run/plugins/$p
  chmod 755 /run/plugins/$p
done
ip route add 10.77.0.0/16 via 172.18.0.9; ip -6 route add fd00:77::/64 via fd00:18::9
iptables-nft -w 5 -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE
iptables-legacy -w 5 -t filter -A FORWARD -s 192.0.2.0/24 -j DROP
"""

SNAPSHOT = """
PATH=/run/tools:$PATH
for family in -4 -6; do ip $family -json -details route show table all | sed 's/"expires":[0-9]*,//g'; done
for save in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do $save -c | sed '/^#/d'; done
find /etc/kindnet /etc/cni -printf '%p %y %m %U:%G %i %T@ %s\\n'
find /run/kindnet ! -name problems.json -printf '%p %y %m %U:%G\\n'  # which is what passes remember to have said
find /etc/kindnet /etc/cni -type f -exec md5sum {} +
"""


@pytest.fixture(scope="module")
def host():
    h = RouteHost()
    h.sh(SETUP)
    for name, options in OPTIONS.items():
        result = h.module(name=name, **options)
        assert not result.get("failed"), result
    yield h
    h.close()


class Case(NamedTuple):
    module: str
    options: dict[str, Any]
    words: str  # that the message must have, separated by "|": field, value and what to do
    before: str = ""  # commands that make things bad
    after: str = ""  # and good again
    uid: int = 0


def table(*nodes: Any, **options: Any) -> dict[str, Any]:
    return dict(options, nodes=list(nodes))


def peer(ips: Any = "172.18.0.5", cidrs: Any = "10.244.3.0/24", name: str = "three") -> dict[str, Any]:
    """This table's third peer, otherwise."""

    def as_list(value: Any) -> Any:
        return value.split() if isinstance(value, str) else value

    return {"name": name, "node_ips": as_list(ips), "pod_cidrs": as_list(cidrs)}


def route(words: str, *nodes: Any, **options: Any) -> Case:
    return Case("kindnet_route", table(*nodes, **options) if nodes else options, words)


def changed(words: str, ips: Any = "172.18.0.5", cidrs: Any = "10.244.3.0/24", **options: Any) -> Case:
    return route(words, ME, ONE, TWO, peer(ips, cidrs), **options)


def masq(words: str, **options: Any) -> Case:
    return Case("kindnet_masq", options, words)


def record(module: str, words: str, command: str) -> Case:
    keep = "cp -p /etc/kindnet/desired.json /run/kept; "
    return Case(module, {}, "/etc/kindnet|" + words, keep + command, "chown root /etc/kindnet; mv /run/kept /etc/kindnet/desired.json")


HIDDEN = "mount -t tmpfs none /usr/sbin"
RECORDS = {
    "damaged": ("is damaged, it is not JSON|Move it away", "echo '{' >/etc/kindnet/desired.json"),
    "empty": ("is damaged|0 bytes", ": >/etc/kindnet/desired.json"),
    "of an unknown schema": ("schema 99|it knows 1|converge with that version", """echo '{"schema": 99}' >/etc/kindnet/desired.json"""),
    "without sections": ("is damaged, cluster_name or sections", """echo '{"schema": 1}' >/etc/kindnet/desired.json"""),
    "world-writable": ("may be written by others than root|chmod", "chmod o+w /etc/kindnet/desired.json"),
    "in a folder of somebody else": ("may be written by others than root|chown", "chown 1000 /etc/kindnet"),
}

CASES = {
    # --- pod CIDRs
    "malformed": changed("pod_cidrs of three|10.244.3/24|is not a CIDR|Write the whole address and a prefix length", cidrs="10.244.3/24"),
    "prefix length": changed("pod_cidrs of three|10.244.3.0/240|from 0 to 32", cidrs="10.244.3.0/240"),
    "host bits": changed("pod_cidrs of three|10.244.3.1/24|has host bits set|Write 10.244.3.0/24.", cidrs="10.244.3.1/24"),
    "IPv6 host bits": changed("fd00:10:244:3::1/64|Write fd00:10:244:3::/64.", ips="fd00:18::5", cidrs="fd00:10:244:3::1/64"),
    "outside": changed("three|10.245.3.0/24|outside every cluster CIDR (10.244.0.0/16|kindnet_cluster_cidrs", cidrs="10.245.3.0/24", cluster_cidrs=CLUSTER),
    "another node's": changed("three|10.244.2.128/25|overlaps 10.244.2.0/24 of two|kindnet_pod_cidrs of two or three", cidrs="10.244.2.128/25"),
    "around another node's": changed("10.244.0.0/22|overlaps|kindnet_pod_cidrs of", cidrs="10.244.0.0/22"),
    "a node's address": changed("three|172.18.0.0/29|overlaps the node network|172.18.0.2, the address of me|no node's address", cidrs="172.18.0.0/29"),
    "in the node network": changed("three|172.18.5.0/24|overlaps the node network 172.18.0.0/16 (dev eth0|outside of 172.18.0.0/16", cidrs="172.18.5.0/24"),
    "in the IPv6 node network": changed(
        "three|fd00:18:0:0:5::/80|overlaps the node network fd00:18::/64 (dev eth0|outside of fd00:18::/64", ips="fd00:18::5", cidrs="fd00:18:0:0:5::/80"
    ),
    "in the node network, seen first of all": Case(
        "kindnet_host_info", table(ME, ONE, TWO, peer(cidrs="172.18.5.0/24"), node_name="me"), "pod_cidrs of three|172.18.5.0/24|dev eth0|outside of"
    ),
    "its own in the node network": route("pod_cidrs of me|172.18.5.0/24|dev eth0", dict(ME, pod_cidrs=["172.18.5.0/24"]), ONE, TWO, THREE),
    "none": changed("pod_cidrs of three|none|no pod CIDR|Set kindnet_pod_cidrs of three", cidrs=""),
    "null": changed("pod_cidrs of three|none|no pod CIDR|Set kindnet_pod_cidrs", cidrs=None),
    "IPv6 pods of an IPv4 node": changed("pod_cidrs of three|IPv6|node_ips: 172.18.0.5|Add an IPv6 address", cidrs="fd00:10:244:3::/64"),
    "IPv4 pods of an IPv6 node": changed("pod_cidrs of three|IPv4|fd00:18::5|Add an IPv4 address", ips="fd00:18::5"),
    "a YAML float": changed("pod_cidrs of three|10.244|is not a CIDR|as a string", cidrs=[10.244]),
    "a YAML exponent": changed("pod_cidrs of three|11.0|is not a CIDR|as a string", cidrs=[1.1e1]),
    "a YAML octal": changed("node_ips of three|8|is not an IP address|as a string", ips=[0o10]),
    "a truth": changed("node_ips of three|True|is not an IP address", ips=[True]),
    "a list of lists": changed("pod_cidrs of three|is not a CIDR", cidrs=[["10.244.3.0/24"]]),
    # --- nodes
    "one address, two nodes": changed("node_ips of three|172.18.0.4|the address of two|kindnet_node_ips or ansible_host of two or three", ips="172.18.0.4"),
    "one address, two spellings": changed("fd00:18::4|is also the address of two", ips="172.18.0.5 FD00:18:0::4"),
    "IPv4-mapped": changed("node_ips of three|::ffff:172.18.0.5|an IPv4-mapped address", ips="::ffff:172.18.0.5"),
    "a name for an address": changed("node_ips of three|three.example.org|names are never looked up", ips="three.example.org"),
    "no address": changed("node_ips of three|none|Set kindnet_node_ips of three", ips=""),
    "this host is missing": route("node_name|me|is not in the node table (one, two, three)|kindnet_nodes", ONE, TWO, THREE),
    "one node twice": route("nodes|two|more than once|Keep one", ME, ONE, TWO, TWO, THREE),
    "an empty table": route("nodes|0 entries|the node table is empty|kindnet_nodes", nodes=[]),
    "a shorter table": route("nodes|a table with 0 peers|every peer that this host has: one, three, two|put them back|kindnet_force_removals=true", ME),
    "a shorter table than allowed": route(
        "a table with 1 peers|2 of its peers at once, where at most 1 may go: three, two|kindnet_max_removals", ME, ONE, max_removals=1
    ),
    "no removal allowed": route("1 of its peers at once, where at most 0 may go: three|kindnet_max_removals", ME, ONE, TWO, max_removals=0),
    "the last peer": route("every peer|one, three, two|kindnet_force_removals", ME, max_removals=1000),
    "a negative bound": route("max_removals|-1|is negative|Write 0 or more", max_removals=-1),
    "not JSON": route("nodes|2 characters|is not JSON|one JSON string", nodes="[{"),
    "no JSON at all": route("nodes|0 characters|is not JSON", nodes=""),
    "JSON, but no list": route("nodes|is not a list|name, node_ips, pod_cidrs", nodes='{"me": {}}'),
    "an entry that is no mapping": route("nodes[4]|four|is not a mapping", *NODES, "four"),
    "an unknown key": route("nodes[0]|pod_cidr|is no key of a node|pod_cidrs", dict(ME, pod_cidr="10.244.0.0/24"), ONE, TWO, THREE),
    "a number for a name": route("nodes[4].name|5|is not a name", *NODES, dict(peer(), name=5)),
    "a bad cluster CIDR": changed("cluster_cidrs|10.244.0.1/16|Write 10.244.0.0/16.", cluster_cidrs=["10.244.0.1/16"]),
    # --- another cluster's host
    "route of another cluster": route("cluster_name|other|a member of cluster 'kindnet'|playbooks/teardown.yml", cluster_name="other"),
    "route of no cluster": route("cluster_name|''|is not a name|kindnet_cluster_name", cluster_name=""),
    "route of another cluster, unrecorded": route("cluster_name|a member of cluster 'kindnet'", cluster_name="other", persist=False),
    "masq of another cluster": masq("cluster_name|other|a member of cluster 'kindnet'|kindnet_cluster_name", cluster_name="other"),
    "conflist of another cluster": Case("cni_conflist", {"cluster_name": "other"}, "cluster_name|other|a member of cluster 'kindnet'"),
    # --- chains
    "a line in the chain": masq("chain|'X\\nCOMMIT|is not the name of a chain|KIND-MASQ-AGENT", chain="X\nCOMMIT\n*filter\n-A INPUT -j DROP"),
    "options in the chain": masq("chain|'X -j ACCEPT'|is not the name of a chain", chain="X -j ACCEPT"),
    "an option for a chain": masq("chain|'-F'|no dash in front", chain="-F"),
    "no chain": masq("chain|''|is not the name of a chain", chain=""),
    "a long chain": masq("chain|29 characters, iptables takes at most 28", chain="x" * 29),
    "a target for a chain": masq("chain|'MASQUERADE'|means something else to iptables", chain="MASQUERADE"),
    "a line in a cluster CIDR": masq("cluster_cidrs|is not a network", cluster_cidrs=["10.244.0.0/16\n-A POSTROUTING -j ACCEPT"]),
    "iptables is missing": Case("kindnet_masq", {}, "iptables|package iptables", HIDDEN, "umount /usr/sbin"),
    # --- the CNI configuration
    "a CNI configuration that is not JSON": Case("cni_conflist", {"conflist": '{"name": "kindnet",}'}, "conflist|JSON|line 1 column"),
    "a CNI configuration without plugins": Case("cni_conflist", {"conflist": {"cniVersion": "0.3.1", "name": "kindnet"}}, "conflist|plugins"),
    "a plugin is missing": Case(
        "cni_conflist", {}, "CNI plugin|portmap|is in none of /run/plugins|Install", "mv /run/plugins/portmap /run", "mv /run/portmap /run/plugins"
    ),
    "a plugin that does not run": Case(
        "cni_conflist",
        {},
        "CNI plugin|/run/plugins/ptp|does not run (Permission denied)|chmod 755 /run/plugins/ptp",
        "chmod 644 /run/plugins/ptp",
        "chmod 755 /run/plugins/ptp",
    ),
    # --- no permission
    "routes without permission": Case("kindnet_route", {}, "user|uid 65534|Run as root (become: true)", uid=65534),
    "rules without permission": Case("kindnet_masq", {"chain": "OTHER"}, "user|uid 65534|Run as root (become: true)", uid=65534),
    "a file without permission": Case(
        "cni_conflist", {"conflist": dict(CONFLIST, plugins=CONFLIST["plugins"][:1])}, "user|uid 65534|Run as root (become: true)", uid=65534
    ),
    # --- the record
    **{"a record %s" % name: record("kindnet_route", *bad) for name, bad in RECORDS.items()},
    "masq and a damaged record": record("kindnet_masq", *RECORDS["damaged"]),
    "conflist and a damaged record": record("cni_conflist", *RECORDS["damaged"]),
}


@pytest.mark.parametrize("name", CASES)
def test_one_clear_error_and_nothing_changed(host, name):
    case = CASES[name]
    options = dict(OPTIONS.get(case.module, {}), **case.options)
    host.sh(case.before)
    try:
        before = host.sh(SNAPSHOT)
        results = [host.module(name=case.module, check=check, uid=case.uid, **options) for check in (True, False)]
        after = host.sh(SNAPSHOT)
    finally:
        host.sh(case.after)
    assert after == before
    for result in results:
        message = result["msg"]
        assert result["failed"] and not result.get("changed"), result
        assert message.startswith("%s: " % options.get("node_name", platform.node())) and "\n" not in message and len(message) < 600, message
        assert not [w for w in case.words.split("|") if w not in message], message
        assert message.endswith("."), message  # a sentence that says what to do
        assert result["field"] in message and result["remedy"] in message, result
        assert "exception" not in result, result
    assert results[0]["msg"] == results[1]["msg"]


@pytest.mark.parametrize("name", RECORDS)
def test_a_pass_changes_nothing_by_a_record_that_is_not_to_be_trusted(host, name):
    words, damage = RECORDS[name]
    host.sh("ip route del 10.244.3.0/24; iptables-nft -w 5 -t nat -D KIND-MASQ-AGENT 1; cp -p /etc/kindnet/desired.json /run/kept; " + damage)
    try:
        before = host.sh(SNAPSHOT)
        told = [host.reconcile(), host.reconcile("--check")]
        assert host.sh(SNAPSHOT) == before
    finally:
        host.sh("chown root /etc/kindnet; mv /run/kept /etc/kindnet/desired.json")
        repaired = host.reconcile()
    for output in told:
        line, code = output.splitlines()
        assert line.startswith("problem: /etc/kindnet") and code == "exit code 1", output
        assert not [w for w in words.split("|") if w not in line], output
    assert "add route 10.244.3.0/24" in repaired and "KIND-MASQ-AGENT" in repaired and repaired.endswith("exit code 0\n"), repaired


def test_a_lock_held_by_somebody_else(host):
    """Nobody waits in check mode, which neither takes the lock nor changes anything."""
    holder = subprocess.Popen(host.command("flock", "/run/kindnet/lock", "sh", "-c", "echo held; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        before = host.sh(SNAPSHOT)
        results = {name: host.module(name=name, lock_timeout=0.2, **options) for name, options in OPTIONS.items()}
        assert host.sh(SNAPSHOT) == before
    finally:
        holder.communicate()
    for name, result in results.items():
        message = "/run/kindnet/lock: waited 0.2 s: another run of kindnet.host holds the lock. Try again; 'fuser -v /run/kindnet/lock' names the holder."
        assert result["failed"] and result["msg"] == "%s: %s" % (OPTIONS[name].get("node_name", platform.node()), message), result


def test_a_peer_that_is_not_on_link_costs_that_peer(host):
    """Its name and what to do are told, by whatever is run; the others are programmed, and nothing of anybody else is changed."""
    off = dict(THREE, node_ips=["172.19.0.5"])
    new = node("new", "172.18.0.6", "10.244.6.0/24")
    before = host.foreign()
    message = (
        "me: route 10.244.3.0/24: peer three: its next hop 172.19.0.5 is not on-link: no interface of this host is in its network."
        " Correct kindnet_node_ips of three, or the interface of the node network on this host; of a peer in another network, kindnet_non_l2 says what to do."
    )
    try:
        results = [host.module(check=check, nodes=[ME, ONE, TWO, off, new], node_name="me") for check in (True, False)]
        assert [r["msg"] for r in results] == [message] * 2 and all(r["failed"] for r in results), results
        assert host.lines("10.244.6.0/24") == ["via 172.18.0.6 dev eth0 proto 107"] and host.lines("10.244.1.0/24") != []
        assert host.lines("10.244.3.0/24") == ["via 172.18.0.5 dev eth0 proto 107"]  # what it had is not lost
        told = host.reconcile()
        assert message.partition("me: ")[2] in told and told.endswith("exit code 1\n") and len(told.splitlines()) == 2, told
        assert host.foreign() == before
    finally:
        assert not host.module(max_removals=1, **OPTIONS["kindnet_route"]).get("failed")
        host.reconcile()


@pytest.mark.parametrize(
    "ahead",
    ["ip -6 route add blackhole fd00:10:244:1::/64 metric 10", "ip route prepend 10.244.1.0/24 via 172.18.0.9 proto static"],
)
def test_a_check_sees_a_foreign_route_put_ahead_of_ours(host, ahead):
    """A pass, which has its routes as recorded, has no time to look for that; a person who asks is told, and ours stays."""
    cidr = "fd00:10:244:1::/64" if "-6" in ahead else "10.244.1.0/24"
    assert host.reconcile("--check") == "exit code 0\n"
    host.sh(ahead)
    before = host.sh(SNAPSHOT)
    try:
        told = host.reconcile("--check")
        assert told.startswith("problem: route %s: peer one: a foreign route is in the way" % cidr) and told.endswith("exit code 1\n"), told
        assert len(told.splitlines()) == 2 and host.sh(SNAPSHOT) == before
    finally:
        host.sh(ahead.replace(" add ", " del ").replace(" prepend ", " del "))
    assert host.reconcile("--check") == "exit code 0\n"


def test_many_problems_are_told_in_brief(host):
    """All peers behind a link that is down are one thing to read, not thousands of lines; each is named, and the first of them with what is wrong."""
    many = [node("peer%d" % i, "172.19.0.%d" % i, "10.101.%d.0/24" % i) for i in range(1, 61)]
    result = host.module(check=True, nodes=NODES + many, node_name="me")
    lines = result["msg"].splitlines()
    assert result["failed"] and len(lines) == 21 and all(line.startswith("me: ") for line in lines), result["msg"]
    assert "peer peer20: its next hop 172.19.0.20 is not on-link" in lines[19] and "40 more problems: route 10.101.21.0/24, " in lines[20]
    assert "route 10.101.60.0/24. 'kindnet-reconcile --check'" in lines[20]
    assert result["left_out"] == {"problems": 40, "routes": 40} and {r["action"] for r in result["routes"]} == {"fail"}


SPELLINGS = {
    "JSON": json.dumps(NODES),
    "blanks": [dict(n, node_ips=[" %s " % a for a in n["node_ips"]], pod_cidrs=[" %s\t" % c for c in n["pod_cidrs"]]) for n in NODES],
    "one string": [dict(n, node_ips=", ".join(n["node_ips"]), pod_cidrs=",".join(n["pod_cidrs"])) for n in NODES],
    "upper case": [dict(n, node_ips=[a.upper() for a in n["node_ips"]], pod_cidrs=[c.upper() for c in n["pod_cidrs"]]) for n in NODES],
    "not compressed": [dict(n, node_ips=[a.replace("::", ":0:0:0:0:0000:") for a in n["node_ips"]]) for n in NODES],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_only_spelled_otherwise_is_the_same(host, spelling):
    before = host.sh(SNAPSHOT)
    result = host.module(nodes=SPELLINGS[spelling], node_name="me", max_removals=0)
    assert not result.get("failed") and result["changed"] is False, result
    assert host.sh(SNAPSHOT) == before


def test_of_no_cluster_name_is_the_usual_one(host):
    """Recorded is "kindnet", which a host is a member of when nobody says a name; persist or not."""
    for persist in (True, False):
        assert host.module(persist=persist, cluster_name="kindnet", **OPTIONS["kindnet_route"])["changed"] is False
        assert host.module(persist=persist, **OPTIONS["kindnet_route"])["changed"] is False


# --- on the controller, before any host is touched

HOSTS = {"h%d" % i: {"ansible_host": "192.0.2.%d" % i, "kindnet_pod_cidrs": ["10.244.%d.0/24" % i]} for i in range(1, 8)}


@pytest.mark.parametrize(
    ("hosts", "arguments", "words"),
    [
        (dict(HOSTS, h7=dict(HOSTS["h7"], kindnet_pod_cidrs=["10.244.7.1/24"])), ["-vvv"], "kindnet_pod_cidrs of h7|10.244.7.1/24|Write 10.244.7.0/24."),
        (HOSTS, ["--check", "-e", '{"kindnet_node_table": []}'], "kindnet_node_table|the node table is empty"),
        (HOSTS, ["-e", '{"kindnet_cluster_name": null}'], "cluster_name|is not a name|kindnet_cluster_name"),
    ],
    ids=["host bits", "an empty table", "an empty name"],
)
def test_a_bad_inventory_stops_before_any_host(host, tmp_path, hosts, arguments, words):
    """Told once, in few lines. The hosts do not exist, so one that was asked for anything would be unreachable."""
    before = host.sh(SNAPSHOT)
    inventory = {"kindnet_nodes": {"hosts": hosts, "vars": {"kindnet_cluster_cidrs": ["10.244.0.0/16"], "ansible_ssh_common_args": "-o ConnectTimeout=1"}}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    playbook = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
    done = subprocess.run(
        host.command("env", "--chdir", os.getcwd(), "ANSIBLE_NOCOLOR=1", playbook, "-i", str(tmp_path / "inventory.json"), "playbooks/kindnet.yml", *arguments),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 2 and "Traceback" not in printed and "MODULE FAILURE" not in printed, printed
    tail = printed[printed.index("TASK [kindnet.host.node_table : Make the node table]") :]
    assert tail.count("    msg: ") == 1 and len(tail[: tail.index("PLAY RECAP")].splitlines()) < 25, tail
    message = " ".join(tail.split())
    assert not [w for w in words.split("|") if w not in message], tail
    assert "unreachable=1" not in printed and "nodes_json" not in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inventory.json"]  # no ledger was begun
    assert host.sh(SNAPSHOT) == before
