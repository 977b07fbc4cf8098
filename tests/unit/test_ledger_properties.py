# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No sequence of joins, leaves, renames, renumberings and reorders moves a block or gives one twice.

The oracle is a second, slow allocator that lists every block with Python's ipaddress, and what hosts were seen to hold before.
"""

from __future__ import annotations

import ipaddress
import re

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_cidr
from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Host, Ledger, plan_free, plan_ledger
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

net = ipaddress.ip_network
# Small enough to be full within a few steps.
RANGES = {4: ["10.1.0.0/27", "10.2.0.0/28", "10.3.0.0/29"], 6: ["fd01::/123", "fd02::/124", "fd03::/125"]}
MASKS = {4: 29, 6: 125}
NAMES = ["n%d" % i for i in range(12)]
SUBNETS = sorted(
    [
        subnet
        for family, ranges in RANGES.items()
        for cidr in map(net, ranges)
        for prefix in range(max(MASKS[family] - 2, cidr.prefixlen), MASKS[family] + 2)
        for subnet in cidr.subnets(new_prefix=prefix)
    ],
    key=str,
)


def overlapping(block, others):
    return any(block.version == o.version and block.overlaps(o) for o in others)


class Fleet(RuleBasedStateMachine):
    """An inventory over time, and what its hosts were given."""

    @initialize(dual=st.booleans(), v6_first=st.booleans())
    def start(self, dual, v6_first):
        families = ([6, 4] if v6_first else [4, 6]) if dual else [6 if v6_first else 4]
        self.clusters = [RANGES[f][0] for f in families]
        self.members = []
        self.explicit = {}
        self.renamed = {}
        self.holding = {}  # every host that was ever given something and was not removed
        self.freed = []  # as the oracle sees it, only blocks of whole size
        self.ledger = None

    def hosts(self):
        return [Host(n, self.explicit.get(n), self.renamed.get(n)) for n in self.members]

    def converge(self):
        """One run; returns the error, if there is one. Nothing may have changed then."""
        expected = dict(self.holding)
        for new, old in self.renamed.items():
            if new not in expected and old in expected:
                expected[new] = expected.pop(old)
        for name, cidrs in self.explicit.items():
            if name in self.members:
                expected[name] = tuple(cidrs)
        needs = [(n, f) for n in self.members if n not in self.explicit for f in self.families() if not any(net(c).version == f for c in expected.get(n, ()))]
        without = set()
        for family in self.families():
            whole = {b for c in self.clusters if net(c).version == family for b in net(c).subnets(new_prefix=MASKS[family])}
            busy = [net(c) for cidrs in expected.values() for c in cidrs]
            room = len([b for b in whole if not overlapping(b, busy)])
            without.update([n for n, f in needs if f == family][room:])
        try:
            planned = plan_ledger(self.ledger, self.hosts(), self.clusters, MASKS)
        except KindnetError as error:
            assert without, "refused without a reason: %s" % error
            assert re.search(r"is full: (\d+) host", str(error)).group(1) == str(len(without))
            return
        assert not without, "given though the range is full"
        for name in self.members:
            has = planned.pod_cidrs[name]
            assert has[: len(expected.get(name, ()))] == expected.get(name, ()), "%s was moved" % name
            if name not in self.explicit:
                assert [net(c).version for c in has].count(4) == (4 in self.families())
                assert [net(c).version for c in has].count(6) == (6 in self.families())
        if planned.ledger is None:
            assert set(self.members) <= set(self.explicit)
            return
        self.freed_come_last(planned, expected)
        before, self.ledger = self.ledger, planned.ledger
        assert bool(planned.plan.changes) == (before is None and bool(self.members) or before is not None and before != planned.ledger)
        self.holding = {n: tuple(b.text for b in blocks) for n, blocks in planned.ledger.pod_cidrs.items()}
        for name, cidrs in expected.items():
            if name in self.holding or name in self.members:
                assert self.holding[name][: len(cidrs)] == cidrs

    def freed_come_last(self, planned, expected):
        given = [net(c) for n in self.members for c in planned.pod_cidrs[n] if c not in expected.get(n, ())]
        busy = [net(c) for cidrs in expected.values() for c in cidrs]
        once = [net(b.text) for b in self.ledger.freed] if self.ledger else []
        for family in self.families():
            mine = [b for b in given if b.version == family]
            old = [overlapping(b, once) for b in mine]
            assert old == sorted(old), "a freed block was given before one that nobody ever had"
            if any(old):
                never = [
                    b
                    for c in self.clusters
                    if net(c).version == family
                    for b in net(c).subnets(new_prefix=MASKS[family])
                    if not overlapping(b, busy + once + mine)
                ]
                assert not never, "a freed block was given while %s was never given" % never
                ages = [max(i for i, f in enumerate(once) if overlapping(b, [f])) for b in mine if overlapping(b, once)]
                assert ages == sorted(ages), "a block freed later was given first"

    def families(self):
        return list(dict.fromkeys(net(c).version for c in self.clusters))

    @rule(name=st.sampled_from(NAMES), at=st.integers(0, 12))
    def join(self, name, at):
        if name not in self.members:
            self.members.insert(at, name)
            self.converge()

    @rule(names=st.lists(st.sampled_from(NAMES), unique=True, min_size=2))
    def join_many(self, names):
        self.members += [n for n in names if n not in self.members]
        self.converge()

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data):
        self.forget(data.draw(st.sampled_from(self.members)))
        self.converge()

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def remove(self, data):
        name = data.draw(st.sampled_from(self.members))
        self.forget(name)
        planned = plan_free(self.ledger, name)
        if self.ledger is not None:
            gone = self.holding.pop(name, ())
            assert [b.text for b in planned.ledger.freed] == [b.text for b in self.ledger.freed] + list(gone)
            assert name not in planned.ledger.pod_cidrs
        self.ledger = planned.ledger
        self.converge()

    def forget(self, name):
        self.members.remove(name)
        self.explicit.pop(name, None)
        self.renamed.pop(name, None)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def reorder(self, data):
        self.members = data.draw(st.permutations(self.members))
        self.converge()

    @precondition(lambda self: any(m in self.holding for m in self.members))
    @rule(data=st.data())
    def rename(self, data):
        old = data.draw(st.sampled_from([m for m in self.members if m in self.holding]))
        new = data.draw(st.sampled_from(NAMES))
        if new in self.members:
            return
        at, explicit = self.members.index(old), self.explicit.get(old)
        self.forget(old)
        if explicit:
            self.explicit[new] = explicit
        self.members.insert(at, new)
        self.renamed[new] = old
        if new in self.holding:
            # Of a host that left: which of the two blocks is this one's, nobody can tell.
            with pytest.raises(KindnetError, match="kindnet_renamed_from of %s: %s: the ledger has both" % (new, old)):
                plan_ledger(self.ledger, self.hosts(), self.clusters, MASKS)
        else:
            self.converge()
        self.renamed.pop(new)
        if old in self.holding:
            # Refused, or the range was full for another host, so nothing was renamed: the operator takes it back.
            self.members[self.members.index(new)] = old
            if explicit:
                self.explicit[old] = self.explicit.pop(new)

    @rule(name=st.sampled_from(NAMES), block=st.sampled_from(SUBNETS))
    def say_explicitly(self, name, block):
        """An operator writes kindnet_pod_cidrs: accepted where it moves nobody, else refused with both names."""
        if name in self.explicit or not any(block.version == net(c).version and block.subnet_of(net(c)) for c in self.clusters):
            return
        others = [n for n, cidrs in self.holding.items() if n != name and overlapping(block, map(net, cidrs))]
        others += [n for n, cidrs in self.explicit.items() if n != name and overlapping(block, map(net, cidrs))]
        moves = set(self.holding.get(name, ())) - {str(block)}
        joined = name not in self.members
        if joined:
            self.members.append(name)
        self.explicit[name] = (str(block),)
        if self.ledger is None and set(self.members) <= set(self.explicit):
            others = []  # no ledger is in play, the node table alone judges what hosts say
            if overlapping(block, [net(c) for n, cidrs in self.explicit.items() if n != name for c in cidrs]):
                self.forget(name)
                return
        if not others and not moves:
            self.converge()
            return
        with pytest.raises(KindnetError) as error:
            plan_ledger(self.ledger, self.hosts(), self.clusters, MASKS)
        assert name in str(error.value)
        assert moves or any(o in str(error.value) for o in others)
        del self.explicit[name]
        if joined:
            self.members.remove(name)

    @precondition(lambda self: self.explicit)
    @rule(data=st.data())
    def drop_the_explicit_line(self, data):
        del self.explicit[data.draw(st.sampled_from(sorted(self.explicit)))]
        self.converge()

    @rule(at=st.integers(0, 5))
    def grow(self, at):
        more = [r for family in self.families() for r in RANGES[family] if r not in self.clusters]
        if at < len(more):
            self.clusters.append(more[at])
            self.converge()

    @invariant()
    def no_block_twice_and_the_file_says_the_same(self):
        if getattr(self, "ledger", None) is None:
            return
        blocks = [net(b.text) for bs in self.ledger.pod_cidrs.values() for b in bs] + [net(b.text) for b in self.ledger.freed]
        assert not any(overlapping(b, blocks[:i]) for i, b in enumerate(blocks))
        assert _ledger_file.parse(_ledger_file.dump(self.ledger).encode(), "ledger") == self.ledger


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

CIDRS = ["10.244.%d.0/24" % i for i in range(8)] + ["fd00:0:0:%x::/64" % i for i in range(8)] + ["2001:db8::/32", "192.168.0.0/30"]


ODD_NAMES = ["Yes", "1", "1e3", "null", "~", "0x1", "12:30", "- a", "a: b", "#", "Nö\n"]


@given(
    name=st.text(min_size=1, max_size=30),
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=250) | st.sampled_from(ODD_NAMES), unique=True),
    blocks=st.permutations(CIDRS),
    freed=st.integers(0, 4),
)
@settings(deadline=None, max_examples=300)
def test_what_is_written_is_what_is_read(name, names, blocks, freed):
    ranges = [parse_cidr("test", b) for b in blocks]
    held = {n: (b,) for n, b in zip(names, ranges[freed:])}
    ledger = Ledger(name.encode("utf-8", "replace").decode(), held, tuple(ranges[:freed]))
    assert _ledger_file.parse(_ledger_file.dump(ledger).encode(), "ledger") == ledger
