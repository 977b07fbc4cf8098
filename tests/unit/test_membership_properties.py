# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node table and ledger together, over the life of a fleet in which hosts are down and runs see a part.

The oracle is what every host was seen to hold before, Python's ipaddress, and the file as plain YAML.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile

import yaml
from ansible_collections.kindnet.host.plugins.action import kindnet_node_table as plugin
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import plan_free
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

NAMES = ["n%d" % i for i in range(9)]
CLUSTERS = ["10.244.0.0/20", "fd00:10:244::/60"]  # room for 16


def net(text):
    return ipaddress.ip_network(text)


class Cluster(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "kindnet-ledger.yml")
        self.inventory = {}  # by name, its variables; in order
        self.live = {}  # what eth1 of a host has now
        self.recorded = {}  # what a host has recorded by its last converge
        self.holding = {}  # every host that was ever converged and was not removed
        self.addresses = {}
        self.copies = []  # of the ledger, as others may still have it
        self.counter = 0

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def address(self, family):
        self.counter += 1
        return "192.0.%d.%d" % (self.counter // 250, self.counter % 250 + 1) if family == 4 else "2001:db8::%x" % self.counter

    def make(self, here, up, **arguments):
        """A run of the role: hosts that are asked answer if they are up."""
        groups = {"kindnet_nodes": list(self.inventory)}
        args = {"ledger": self.path, **arguments}
        try:
            return plugin.Inventory(self.inventory, groups, args, []).make(CLUSTERS, here, False)
        except plugin.Ask as ask:
            answers = []
            for name in ask.hosts:
                if name in up:
                    interface = self.inventory[name].get("kindnet_node_interface", "")
                    found = self.live[name] if interface else []
                    answers.append({"name": name, "pod_cidrs": self.recorded.get(name, {}), "interface": interface, "addresses": found, "allocations": []})
            return plugin.Inventory(self.inventory, groups, dict(args, answers=answers), []).make(CLUSTERS, here, False)

    def draw_parts(self, data):
        """Who takes part, and who is up."""
        names = list(self.inventory)
        down = data.draw(st.sets(st.sampled_from(names), max_size=1)) if names else set()
        limited = data.draw(st.sets(st.sampled_from(names))) if names and data.draw(st.booleans()) else set(names)
        return sorted(limited - down), set(names) - down

    def is_for_a_reason(self, error):
        """An address that was never read, a new host that cannot be asked, or one that comes again before a run saw that it was gone."""
        removed = [n for n in ((self.book().get("removed_hosts") or ()) if os.path.exists(self.path) else ()) if n in self.inventory]
        expected = "remove_node.yml" if removed else "never read|there is no ledger yet|cannot be asked now"
        assert re.search(expected, str(error)), str(error)

    def converge(self, data):
        if not self.inventory:
            return
        here, up = self.draw_parts(data)
        if not here:
            return
        before = self.content()
        try:
            made = self.make(here, up)
        except KindnetError as error:
            self.is_for_a_reason(error)
            assert self.content() == before
            return
        if before and before != self.content():
            self.copies.append(before)
        table = {n.name: n for n in made.nodes}
        assert list(table) == list(self.inventory), "members are those of the inventory, whoever takes part"
        for name, node in table.items():
            old = self.inventory[name].get("kindnet_renamed_from", name)
            held = self.holding.get(name) or self.holding.get(old)
            if held and "kindnet_renumbered_from" not in self.inventory[name]:
                assert set(held) <= set(node.pod_cidrs), "%s was moved" % name
            known = self.addresses.get(name) or self.addresses.get(old)
            if "kindnet_node_interface" in self.inventory[name] and known:
                assert node.node_ips == known, "an address that was read once stays"
            assert {net(c).version for c in node.pod_cidrs} == {net(ip).version for ip in node.node_ips}
        blocks = [net(c) for n in table.values() for c in n.pod_cidrs]
        assert not any(a.version == b.version and a.overlaps(b) for i, a in enumerate(blocks) for b in blocks[:i])
        for name in table:
            old = self.inventory[name].get("kindnet_renamed_from")
            if old:
                self.holding.pop(old, None)
                self.addresses.pop(old, None)
        self.holding.update({name: node.pod_cidrs for name, node in table.items()})
        self.addresses.update({name: node.node_ips for name, node in table.items() if "kindnet_node_interface" in self.inventory[name]})
        for name in here:
            self.recorded[name] = {n: list(node.pod_cidrs) for n, node in table.items()}
        for variables in self.inventory.values():  # the operator drops what has served its purpose
            for variable in ("kindnet_renamed_from", "kindnet_renumbered_from", "kindnet_pod_cidrs"):
                variables.pop(variable, None)

    @rule(data=st.data(), name=st.sampled_from(NAMES), families=st.sampled_from([(4,), (6,), (4, 6)]), interface=st.booleans(), at=st.integers(0, 9))
    def join(self, data, name, families, interface, at):
        if name in self.inventory:
            return
        if os.path.exists(self.path) and name in (self.book().get("removed_hosts") or ()):
            with open(self.path) as f:
                text = f.read()
            with open(self.path, "w") as f:  # the operator does as the error says
                f.write(text.replace("      - %s\n" % name, ""))
        if name not in self.holding:
            self.forget_copies_with(name)
        known = self.addresses.get(name)
        self.live[name] = list(known) if known else [self.address(f) for f in families]
        if name in self.holding:  # it comes back as it was
            families = [net(c).version for c in self.holding[name]]
            interface, self.live[name] = bool(known), list(known) if known else [self.address(f) for f in families]
        variables = {"kindnet_node_interface": "eth1"} if interface else {"kindnet_node_ips": list(self.live[name])}
        items = list(self.inventory.items())
        items.insert(at, (name, variables))
        self.inventory = dict(items)
        self.converge(data)

    @precondition(lambda self: self.inventory)
    @rule(data=st.data())
    def leave(self, data):
        self.inventory.pop(data.draw(st.sampled_from(list(self.inventory))))
        self.converge(data)

    @precondition(lambda self: len(self.inventory) > 1)
    @rule(data=st.data())
    def remove(self, data):
        name = data.draw(st.sampled_from(list(self.inventory)))
        here, up = self.draw_parts(data)
        try:
            made = self.make([h for h in here if h != name] or list(self.inventory), up, removed_node=name)
        except KindnetError as error:
            self.is_for_a_reason(error)
            return
        assert name not in {n.name for n in made.nodes}
        self.holding.update({n.name: n.pod_cidrs for n in made.nodes})
        self.addresses.update({n.name: n.node_ips for n in made.nodes if "kindnet_node_interface" in self.inventory[n.name]})
        _ledger_file.update(self.path, lambda ledger: plan_free(ledger, name, True), False, 0)
        gone = self.holding.pop(name, ())
        self.addresses.pop(name, None)
        self.recorded.pop(name, None)
        assert set(gone) <= set(self.book()["freed_pod_cidrs"])
        # Still listed, it is not made a node again.
        try:
            self.make(list(self.inventory), set(self.inventory))
            raise AssertionError("%s was made a node again" % name)
        except KindnetError as error:
            assert name in str(error) and "remove_node.yml" in str(error)
        self.inventory.pop(name)
        self.converge(data)

    @precondition(lambda self: self.inventory)
    @rule(data=st.data())
    def reorder(self, data):
        self.inventory = {n: self.inventory[n] for n in data.draw(st.permutations(list(self.inventory)))}
        self.converge(data)

    @precondition(lambda self: any(n in self.holding for n in self.inventory))
    @rule(data=st.data(), new=st.sampled_from(NAMES))
    def rename(self, data, new):
        old = data.draw(st.sampled_from([n for n in self.inventory if n in self.holding]))
        if new in self.inventory:
            return
        before = dict(self.inventory)
        departed = new in self.holding
        if not departed:
            self.forget_copies_with(new)
        self.inventory = {(new if n == old else n): dict(v, **({"kindnet_renamed_from": old} if n == old else {})) for n, v in before.items()}
        if departed:  # which of the two blocks is this host's, nobody can tell
            kept = self.content()
            try:
                self.make(list(self.inventory), set(self.inventory))
                raise AssertionError("%s was given the block of another host" % new)
            except KindnetError as error:
                assert re.search("the ledger has both|remove_node.yml", str(error)) and self.content() == kept
            self.inventory = before
            return
        self.live[new], self.recorded[new] = self.live.pop(old), self.recorded.pop(old, {})
        self.converge(data)
        if new not in self.holding:
            self.inventory = before
            self.live[old], self.recorded[old] = self.live.pop(new), self.recorded.pop(new)

    @precondition(lambda self: self.inventory)
    @rule(data=st.data())
    def other_address(self, data):
        """Of an interface, nobody notices; one that is said counts."""
        name = data.draw(st.sampled_from(list(self.inventory)))
        self.live[name] = [self.address(net(ip).version) for ip in self.live[name]]
        if "kindnet_node_ips" in self.inventory[name]:
            self.inventory[name]["kindnet_node_ips"] = list(self.live[name])
        self.converge(data)

    @precondition(lambda self: any(n in self.holding for n in self.inventory))
    @rule(data=st.data(), block=st.integers(0, 15))
    def renumber(self, data, block):
        name = data.draw(st.sampled_from([n for n in self.inventory if n in self.holding]))
        wanted = {4: "10.244.%d.0/24" % block, 6: str(net("fd00:10:244:%x::/64" % block))}
        cidrs = [wanted[net(c).version] for c in self.holding[name]]
        if any(set(cidrs) & set(held) for n, held in self.holding.items() if n != name):
            return
        self.inventory[name].update(kindnet_pod_cidrs=cidrs, kindnet_renumbered_from=list(self.holding[name]))
        here = list(self.inventory)
        try:
            made = self.make(here, set(here))
        except KindnetError as error:
            assert "is full" in str(error), str(error)
        else:
            self.copies.clear()  # they give it nothing either
            self.holding.update({n.name: n.pod_cidrs for n in made.nodes})
            assert list(self.holding[name]) == cidrs
        self.inventory[name].pop("kindnet_pod_cidrs")
        self.inventory[name].pop("kindnet_renumbered_from")
        self.converge(data)

    @precondition(lambda self: any(self.recorded.get(n) for n in self.inventory))
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def lose_the_ledger(self, data, name):
        """Whoever of those who hold something is asked, nothing is given; and a host that does not answer is no reason to begin anew."""
        if not os.path.exists(self.path):
            return
        kept = self.content()
        os.unlink(self.path)
        here, up = self.draw_parts(data)
        try:
            self.make(here or list(self.inventory), up)
            raise AssertionError("a ledger was begun anew while hosts hold blocks")
        except KindnetError:
            assert not os.path.exists(self.path)
        with open(self.path, "w") as f:
            f.write(kept)

    @precondition(lambda self: self.copies and self.inventory)
    @rule(data=st.data())
    def find_an_older_ledger(self, data):
        """No host is given another block than the one that it knows as its own, whoever takes part."""
        kept = self.content()
        older = data.draw(st.sampled_from(self.copies))
        with open(self.path, "w") as f:
            f.write(older)
        here, up = self.draw_parts(data)
        try:
            made = self.make(here or list(self.inventory), up)
        except KindnetError:
            assert self.content() == older
        else:
            for node in made.nodes:
                own = self.recorded.get(node.name, {}).get(node.name)
                if own and own == list(self.holding[node.name]):
                    assert set(own) <= set(node.pod_cidrs), "%s was moved" % node.name
        with open(self.path, "w") as f:
            f.write(kept)

    def forget_copies_with(self, name):
        """A ledger from before another machine had this name gives it nothing, so nobody is asked. The host itself refuses while pods run."""
        self.copies = [c for c in self.copies if name not in yaml.safe_load(c)["kindnet_ledger"]["vars"]["pod_cidrs"]]

    def content(self):
        if not os.path.exists(self.path):
            return None
        with open(self.path) as f:
            return f.read()

    def book(self):
        with open(self.path) as f:
            return yaml.safe_load(f)["kindnet_ledger"]["vars"]

    @invariant()
    def the_file_says_what_was_seen(self):
        if getattr(self, "holding", None):
            book = self.book()
            assert {n: tuple(c) for n, c in book["pod_cidrs"].items()} == {n: tuple(c) for n, c in self.holding.items()}
            blocks = [net(c) for cidrs in book["pod_cidrs"].values() for c in cidrs] + [net(c) for c in book["freed_pod_cidrs"]]
            assert not any(a.version == b.version and a.overlaps(b) for i, a in enumerate(blocks) for b in blocks[:i])


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
