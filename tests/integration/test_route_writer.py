# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many changes at once, and what may happen among them, as root in namespaces. The oracle is ``ip``."""

from __future__ import annotations

__metaclass__ = type

import json
import os
import re
import subprocess
import sys
import time

import pytest
from route_host import RouteHost, node, table_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ME = node("me", "172.18.0.2 fd00:18::2", "10.99.0.0/24 fd00:99::/64")


@pytest.fixture(scope="module")
def server():
    h = RouteHost()
    yield h
    h.close()


@pytest.fixture
def host(server):
    server.fresh()
    return server


def dual_stack(count):
    peers = [node("peer%d" % i, "172.18.1.%d fd00:18::1:%x" % (i, i), "10.100.%d.0/24 fd00:100:%x::/64" % (i, i)) for i in range(1, count + 1)]
    return [ME, *peers]


def wanted(nodes):
    return {pair for n in nodes[1:] for pair in zip(n["pod_cidrs"], n["node_ips"])}


def ours(host):
    return {(r["dst"], r["gateway"]) for r in host.routes() if r.get("protocol") == "107"}


def recorded(host, nodes):
    """A host whose routes went, so that a pass has to make them all."""
    host.module(nodes=nodes, node_name="me")
    assert ours(host) == wanted(nodes)
    host.sh("ip route flush proto 107; ip -6 route flush proto 107")
    assert not ours(host)


def test_first_application_and_removal_of_dual_stack(host):
    foreign = host.foreign()
    nodes = dual_stack(250)
    real = host.module(nodes=nodes, node_name="me")
    assert real["left_out"] == {"changes": 401, "routes": 400} and "failed" not in real  # the record is one of the changes
    assert len(real["changes"]) == len(real["routes"]) == 100
    assert ours(host) == wanted(nodes) and host.foreign() == foreign
    gone = host.module(state="absent")
    assert len(gone["routes"]) + gone["left_out"]["routes"] == 500
    assert not ours(host) and host.foreign() == foreign


def test_of_many_changes_those_that_take_something_are_told(host):
    nodes = dual_stack(120)
    host.module(nodes=nodes, node_name="me")
    moved = [ME, *(dict(n, node_ips=[n["node_ips"][0].replace("18.1", "18.2"), n["node_ips"][1]]) for n in nodes[1:31]), *nodes[41:]]
    more = [node("more%d" % i, "172.18.3.%d" % i, "10.150.%d.0/24" % i) for i in range(1, 201)]
    result = host.module(check=True, nodes=moved + more, node_name="me", force_removals=True)
    told = [(c["subject"], c["action"]) for c in result["changes"]]
    assert told[-1][0] == "/etc/kindnet/desired.json"
    assert len(told) == 100 and {s for s, action in told if action == "replace"} >= {"route 10.100.%d.0/24" % i for i in range(1, 31)}
    gone = {"route 10.100.%d.0/24" % i for i in range(31, 41)} | {"route fd00:100:%x::/64" % i for i in range(31, 41)}
    assert {s for s, action in told if action == "remove"} == gone
    # All of what comes, goes or is moved; and the record, which is replaced.
    assert len(told) + result["left_out"]["changes"] == 200 + 30 + 20 + 1
    assert len(result["routes"]) + result["left_out"]["routes"] == 200 + 30 + 20


def test_one_bad_among_many_costs_only_itself(host):
    nodes = dual_stack(250)
    recorded(host, nodes)
    # The kernel refuses these two next hops. No plan knows: it asks no policy rules, and of the address it cannot know yet.
    host.sh("ip rule add prio 5 to 172.18.1.70 unreachable")
    done = host.a_pass(meanwhile="ip addr add fd00:18::1:c8/128 dev lo")
    for command in "ip route add 10.9.9.0/24 via 172.18.1.70", "ip route add fd00:9::/64 via fd00:18::1:c8":
        with pytest.raises(AssertionError, match="Error:"):
            host.sh(command)
    assert [p["subject"] for p in done["problems"]] == ["route 10.100.70.0/24", "route fd00:100:c8::/64"], done["problems"]
    for problem, peer in zip(done["problems"], ("peer70", "peer200")):
        assert problem["message"].startswith("peer %s: " % peer) and re.search("EHOSTUNREACH|ENETUNREACH|EINVAL", problem["message"])
    assert wanted(nodes) - ours(host) == {("10.100.70.0/24", "172.18.1.70"), ("fd00:100:c8::/64", "fd00:18::1:c8")}


def test_what_appears_in_the_way_meanwhile_is_left_alone(host):
    nodes = dual_stack(250)
    recorded(host, nodes)
    foreign = "ip route add 10.100.9.0/24 via 172.18.0.9 proto static; ip -6 route add fd00:100:9::/64 via fd00:18::9"
    done = host.a_pass(meanwhile=foreign)
    assert [(p["subject"], "peer9: another route to it appeared" in p["message"]) for p in done["problems"]] == [
        ("route 10.100.9.0/24", True),
        ("route fd00:100:9::/64", True),
    ]
    assert host.lines("10.100.9.0/24") == ["via 172.18.0.9 dev eth0 proto static"]
    assert host.lines("fd00:100:9::/64") == ["via fd00:18::9 dev eth0 metric 1024"]
    assert len(ours(host)) == 498


def test_what_goes_meanwhile_is_not_brought_back_as_something_else(host):
    nodes = dual_stack(50)
    host.module(nodes=[ME, *(dict(n, node_ips=[n["node_ips"][0].replace("18.1", "18.2"), n["node_ips"][1]]) for n in nodes[1:])], node_name="me")
    host.start("module", {"nodes": json.dumps(nodes), "node_name": "me"}, trouble={"meanwhile": "ip route del 10.100.9.0/24"})
    done = json.loads(host.finish().splitlines()[-1])
    assert [p["subject"] for p in done["problems"]] == ["route 10.100.9.0/24"] and "gone meanwhile" in done["msg"], done
    assert ours(host) == wanted(nodes) - {("10.100.9.0/24", "172.18.1.9")}


def test_each_new_route_comes_before_any_old_one_goes(host):
    nodes = dual_stack(150)
    moved = [ME, *(dict(n, pod_cidrs=[cidr.replace("100", "150", 1) for cidr in n["pod_cidrs"]]) for n in nodes[1:])]
    host.module(nodes=nodes, node_name="me")
    watcher = subprocess.Popen(host.command("ip", "monitor", "route"), stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.3)
        host.module(nodes=moved, node_name="me", force_removals=True)
        host.sh("ip route add 10.255.255.0/24 via 172.18.0.9")
        assert watcher.stdout is not None
        events = []
        for line in watcher.stdout:
            if line.startswith("10.255.255.0/24"):
                break
            events.append(line)
    finally:
        watcher.kill()
        watcher.wait()
    assert [e.startswith("Deleted") for e in events] == [False] * 300 + [True] * 300
    assert ours(host) == wanted(moved)


@pytest.mark.parametrize("datagrams", [0, 1, 30])
def test_killed_half_way_and_repaired(host, datagrams):
    nodes = table_of(5000)
    foreign = host.foreign()
    host.module(nodes=[*nodes[:3], node("old", "172.18.0.90", "10.200.0.0/24")], node_name="me")
    host.start("module", {"nodes": json.dumps(nodes), "node_name": "me", "force_removals": True}, trouble={"datagrams": datagrams})
    assert host.finish() == ""
    count = len(ours(host))
    assert (count == 3) if not datagrams else 3 + 50 * datagrams < count < 5000
    assert host.lines("10.200.0.0/24"), "the old one goes last"
    assert len(host.a_pass()["changes"]) == 5000 - count + 2
    assert ours(host) == wanted(nodes) and host.foreign() == foreign
    assert host.module(nodes=nodes, node_name="me", read_only=True)["changed"] is False


def test_a_small_receive_buffer_only_makes_it_slower(host):
    nodes = dual_stack(250)
    recorded(host, nodes)
    done = host.a_pass(RECEIVE_BUFFER=1)  # the kernel gives as little as it gives anybody
    assert done["problems"] == [] and ours(host) == wanted(nodes)


def test_lost_answers_are_told_by_name_and_the_next_pass_looks(host):
    nodes = dual_stack(250)
    recorded(host, nodes)
    host.sh("ip rule add prio 5 to 172.18.1.70 unreachable")
    # So little room, and so much asked for at once, that the kernel drops most answers.
    done = host.a_pass(RECEIVE_BUFFER=1, ANSWER=1)
    lost = [p for p in done["problems"] if "ENOBUFS" in p["message"]]
    assert 300 < len(lost) < 500 and all(p["message"].startswith("peer peer") and "not known" in p["message"] for p in lost)
    # They were made all the same, but for the one that is bad; the next pass finds nothing else to do, and names it.
    assert wanted(nodes) - ours(host) == {("10.100.70.0/24", "172.18.1.70")}
    again = host.a_pass()
    assert [c[0] for c in again["changes"]] == ["route 10.100.70.0/24"] == [p["subject"] for p in again["problems"]]


COMPARE = """
import socket, struct, sys
from ansible_collections.kindnet.host.plugins.module_utils._route import Hop, Route
from ansible_collections.kindnet.host.plugins.module_utils._route_writer import Writer

WORDS = {"add": "add", "replace": "change", "remove": "del"}  # of pyroute2's requests
REQUEST_AND_ACK = 0x5  # every message has these when it is sent
DST, TABLE, NH_ID = 1, 15, 30

def compiled(action, route):
    # By pyroute2's own interface, which takes what a user of it writes.
    def text(address):
        return socket.inet_ntop(route.family, address)
    batch = pyroute2.IPBatch()
    arguments = {"family": route.family, "dst": "%s/%d" % (text(route.dst), route.prefix), "table": route.table, "tos": route.tos,
                 "proto": route.protocol, "scope": route.scope, "type": route.type}
    for name, value in (("priority", route.metric), ("oif", route.oif), ("flags", route.flags)):
        if value:
            arguments[name] = value
    for name, value in (("gateway", route.gateway), ("prefsrc", route.prefsrc)):
        if value:
            arguments[name] = text(value)
    if route.hops:
        arguments["multipath"] = [{"oif": h.oif, "hops": h.weight - 1, "gateway": text(h.gateway)} for h in route.hops]
    batch.route(WORDS[action], **arguments)
    return bytes(batch.batch)

def parts(message, route):
    length, kind, flags, _number, _sender = struct.unpack_from("=IHHII", message)
    assert length == len(message)
    fixed, attributes, at = list(message[16:28]), {}, 28
    while at < length:
        size, number = struct.unpack_from("=HH", message, at)
        attributes[number] = bytes(message[at + 4 : at + size])
        at += (size + 3) & ~3
    if TABLE in attributes:  # which is what the kernel takes, if there is one
        (fixed[4],) = struct.unpack("=I", attributes.pop(TABLE))
    if not route.prefix:
        attributes.pop(DST, None)  # that of a default route, all zeros, may be there or not
    if route.nexthop_id:  # pyroute2 does not know it
        assert attributes.pop(NH_ID, None) in (None, struct.pack("=I", route.nexthop_id))
    return kind, flags & ~REQUEST_AND_ACK, fixed, attributes

def routes(family, number):
    def address(n):
        return socket.inet_pton(family, ("10.%d.%d.0" if family == 2 else "fd00:%x:%x::") % (number, n))
    plain = Route(family, 254, address(1), 24, 0, 0, 107, 0, 1, gateway=address(2))
    yield plain
    yield plain._replace(metric=1024, oif=2, flags=4, table=5000)
    yield plain._replace(gateway=b"", oif=2, scope=253)
    yield plain._replace(gateway=b"", type=6)
    yield plain._replace(dst=bytes(len(plain.dst)), prefix=0)
    yield plain._replace(dst=address(2), gateway=address(2))
    yield plain._replace(prefsrc=plain.dst[:1] + bytes(len(plain.dst) - 1), tos=16)
    yield plain._replace(gateway=b"", nexthop_id=7)
    yield plain._replace(gateway=b"", hops=(Hop(address(4), 2, 0, 1), Hop(address(number), 3, 0, 5)))

cases = [(action, route) for action in WORDS for family in (2, 10) for number in (1, 2, 7) for route in routes(family, number)]
with Writer() as writer:
    made = [parts(writer._message(*case), case[1]) for case in cases]
    assert "pyroute2" not in sys.modules  # none of that was by the whole package
    print(len(writer._forms))
import pyroute2
for case, ours in zip(cases, made):
    theirs = parts(compiled(*case), case[1])
    assert ours == theirs, (case, ours, theirs)
"""


def test_messages_are_those_of_pyroute2s_requests(host):
    environment = dict(os.environ, PYTHONPATH=os.path.abspath(".ansible/collections"))
    done = subprocess.run(host.command(sys.executable, "-c", COMPARE), capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    # For each action and family: plain (also with equal addresses), on-link, and with a source hint.
    assert int(done.stdout) == 3 * 2 * 3
