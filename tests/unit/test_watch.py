# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watch takes for ours, as tables of messages, and how it counts time, by a clock of the test's."""

from __future__ import annotations

import socket
import struct

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _code_folder, _plan_table, _sysctl, _watch
from ansible_collections.kindnet.host.plugins.module_utils._watch import LONGEST, PASSES, PERIOD, QUIET, Interests, Limit

NEW, DELETED = 24, 25
BOOT, BGP, OURS, KERNEL = 3, 186, 107, 2
MAIN, LOCAL_TABLE, UNICAST, LOCAL = 254, 255, 1, 2


def message(kind, content):
    padding = b"\0" * (-len(content) % 4)
    return struct.pack("=IHHII", 16 + len(content), kind, 0, 0, 0) + content + padding


def attribute(kind, content):
    return struct.pack("=HH", 4 + len(content), kind) + content + b"\0" * (-len(content) % 4)


def route(kind, protocol, destination="10.244.1.0/24", table=MAIN, route_type=UNICAST):
    address, _slash, prefix = destination.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    rtmsg = struct.pack("=8BI", family, int(prefix), 0, 0, table, protocol, 0, route_type, 0)
    rtmsg += attribute(15, struct.pack("=I", table))
    return message(kind, rtmsg + (attribute(1, socket.inet_pton(family, address)) if int(prefix) else b""))


@pytest.mark.parametrize(
    ("data", "matters"),
    [
        (route(NEW, OURS), True),
        (route(DELETED, OURS), True),
        (route(DELETED, OURS, "fd00:10:244:1::/64"), True),
        (route(NEW, BGP), False),
        (route(DELETED, BOOT), False),
        (route(NEW, BGP) + route(DELETED, OURS), True),
        # an interface has an address again, and so the network of peers
        (route(NEW, KERNEL, "172.18.0.0/16"), True),
        (route(NEW, KERNEL, "fd00:18::/64"), True),
        (route(DELETED, KERNEL, "172.18.0.0/16"), False),
        # what comes with every interface, or with that of a pod
        (route(NEW, KERNEL, "fe80::/64"), False),
        (route(NEW, KERNEL, "fe80::/64") + route(NEW, KERNEL, "172.18.0.0/16"), True),
        (route(NEW, KERNEL, "ff00::/8", LOCAL_TABLE, 5), False),
        (route(NEW, KERNEL, "10.244.0.1/32", LOCAL_TABLE, LOCAL), False),
        (route(NEW, KERNEL, "10.244.0.1/32"), False),
        (b"", False),
        (b"\0" * 16, False),
        (b"\1\2\3", False),
    ],
)
def test_events_of_routes(data, matters):
    assert _watch.is_about_our_routes(data, OURS) is matters


def test_without_routes_of_ours_those_of_no_protocol_are_not_ours():
    assert not _watch.is_about_our_routes(route(DELETED, 0), 0)


def nft(kind, table, **names):
    numbers = {"rule_of": 2, "chain": 3}
    content = struct.pack("=BBH", 2, 0, 1) + attribute(1, table.encode() + b"\0")
    if kind in (3, 5):
        content += attribute(2, b"\0" * 8)  # the handle of a chain
    return message(10 << 8 | kind, content + b"".join(attribute(numbers[n], text.encode() + b"\0") for n, text in names.items()))


@pytest.mark.parametrize(
    ("data", "matters"),
    [
        (nft(6, "nat", rule_of="KIND-MASQ-AGENT"), True),
        (nft(8, "nat", rule_of="POSTROUTING"), True),
        (nft(8, "nat", rule_of="KUBE-SERVICES"), False),
        (nft(3, "nat", chain="KIND-MASQ-AGENT"), True),
        (nft(5, "nat", chain="KIND-MASQ-AGENT"), True),
        (nft(5, "nat", chain="KUBE-SVC-1"), False),
        (nft(0, "nat"), False),  # with it go its chains, of which there are messages too
        (nft(2, "kindnet"), True),
        (nft(14, "kindnet"), True),
        (nft(14, "kube-proxy"), False),
        (nft(8, "kindnet", rule_of="postrouting"), True),
        (message(10 << 8 | 15, struct.pack("=BBH", 0, 0, 7) + attribute(1, b"\0\0\0\7")), False),  # the end of a transaction
        (message(1 << 8 | 6, nft(6, "kindnet")[16:]), False),  # another subsystem's
        (nft(8, "nat", rule_of="KUBE-SERVICES") + nft(8, "nat", rule_of="POSTROUTING"), True),
    ],
)
def test_events_of_rules(data, matters):
    assert _watch.is_about_our_rules(data, frozenset(["KIND-MASQ-AGENT", "POSTROUTING"])) is matters


MASQ = {"chain": "MINE", "backend": "iptables-nft"}


@pytest.mark.parametrize(
    ("sections", "interests"),
    [
        ({}, Interests()),
        ({"routes": {"protocol": 107, "peers": []}}, Interests(protocol=107)),
        ({"routes": {"state": "absent"}}, Interests()),
        ({"masq": MASQ}, Interests(chains=frozenset(["MINE", "POSTROUTING"]), uses_nft=True)),
        ({"masq": dict(MASQ, backend="nftables")}, Interests(chains=frozenset(["MINE", "POSTROUTING"]), uses_nft=True)),
        ({"masq": dict(MASQ, backend="iptables-legacy")}, Interests(chains=frozenset(["MINE", "POSTROUTING"]))),
        ({"masq": {"state": "absent", "former": []}}, Interests()),
        ({"neighbours": {"forward": [["nft", "ipv4"]]}}, Interests(chains=frozenset(["FORWARD", "DOCKER-USER"]), uses_nft=True)),
        ({"neighbours": {"forward": []}}, Interests()),
        ({"conflist": {"path": "/c/a.conflist"}, "cni_plugins": {"links": {"/b/ptp": "x"}}}, Interests(files=frozenset(["/c/a.conflist", "/b/ptp"]))),
        ({"sysctl": {"sysctls": []}}, Interests(files=frozenset([_sysctl.FILE]))),
    ],
)
def test_what_is_recorded_is_what_is_watched(sections, interests):
    assert _watch.interests_of(sections) == interests


def test_names_are_those_of_the_modules():
    assert _watch.CURRENT == _code_folder.LIBRARY + "/current"
    assert _plan_table.SUBJECT and _watch.NFT_TABLE in _plan_table.SUBJECT


class Clock:
    """Events at given times."""

    def __init__(self, *events):
        self.time = 0.0
        self.events = list(events)

    def now(self):
        return self.time

    def wait(self, seconds):
        assert seconds > 0
        if self.events and self.events[0] <= self.time + seconds:
            self.time = self.events.pop(0)
            return True
        self.time += seconds
        return False


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([], QUIET),
        ([0.05], 0.05 + QUIET),
        ([0.05, 0.12, 0.2], 0.2 + QUIET),
        ([QUIET + 0.01], QUIET),  # the next one's affair
        ([i / 1000 for i in range(1, 5000)], LONGEST),
    ],
)
def test_a_burst_is_one_event(events, end):
    clock = Clock(*events)
    _watch.settle(clock.now, clock.wait)
    assert clock.time == pytest.approx(end, abs=0.002)


def test_what_does_not_matter_does_not_prolong_it():
    clock = Clock()

    def wait(seconds):
        clock.time += min(seconds, 0.01)  # woken by something else
        return False

    _watch.settle(clock.now, wait)
    assert clock.time == pytest.approx(QUIET)


def test_the_limit_holds_in_any_period_and_is_told_once():
    limit, now, began, told = Limit(), 1000.0, [], []
    for _event in range(200):  # somebody who changes things back at once
        now += limit.delay(now)
        began.append(now)
        told.append(limit.is_new)
        now += 0.5
    assert began[PASSES - 1] < 1000 + PERIOD and told.index(True) == PASSES and sum(told) == 1
    assert all(began[i + PASSES] - began[i] >= PERIOD for i in range(len(began) - PASSES))
    now += 10 * PERIOD
    for _event in range(PASSES + 1):
        wait = limit.delay(now)
    assert wait > 0 and limit.is_new, "another time is told again"


def test_what_comes_now_and_then_is_never_held_back():
    limit = Limit()
    assert not any(limit.delay(1000.0 + i * PERIOD / PASSES) or limit.is_new for i in range(200))


@pytest.mark.parametrize(
    ("began", "starts"),
    [
        (lambda now: now + 0.001, 1),
        (lambda now: now - 0.001, 2),  # that pass may have looked before what happened
        (lambda now: "", 1),  # systemctl has said why
    ],
)
def test_a_pass_that_had_begun_does_not_count(monkeypatch, began, starts):
    asked = []

    def systemctl(verb, *_arguments):
        asked.append(verb)
        time_of_start = began(5000.0)
        return "%d" % (time_of_start * 1e6) if verb == "show" and time_of_start else ""

    monkeypatch.setattr(_watch, "systemctl", systemctl)
    monkeypatch.setattr(_watch.time, "monotonic", lambda: 5000.0)
    _watch.start_pass()
    assert asked.count("start") == starts
