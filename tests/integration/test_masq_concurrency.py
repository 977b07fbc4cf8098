# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passes and runs of kindnet_masq while another program rewrites chains of its own in the nat table all the time, as kube-proxy does.

For KINDNET_CONCURRENCY_SECONDS per backend, 5 unless said otherwise; ``make test-all`` has two minutes of it. The oracle is what iptables-save and nft print.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time

import pytest
from reconcile_sandbox import AS_THE_TIMER, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

SECONDS = float(os.environ.get("KINDNET_CONCURRENCY_SECONDS", "5"))
BOUND = 30  # seconds, of one pass: what systemd gives it
TOOLS = ("iptables", "ip6tables")
CIDRS = [["10.244.0.0/16", "fd00:10:244::/56"], ["10.244.0.0/16", "10.96.0.0/12", "fd00:10:244::/56", "fd00:10:96::/112"]]
JUMP = (
    '-A POSTROUTING -m addrtype ! --dst-type LOCAL -m comment --comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL '
    'destination traffic to our custom KIND-MASQ-AGENT chain" -j KIND-MASQ-AGENT'
)
RETURN = '-A KIND-MASQ-AGENT -d %s -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
MASQUERADE = (
    '-A KIND-MASQ-AGENT -m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE'
)
# What goes wrong with ours meanwhile, each as one transaction of somebody with a restore.
DAMAGE = [
    [":KIND-MASQ-AGENT - [0:0]"],
    ["-D" + MASQUERADE[2:]],
    ["-I KIND-MASQ-AGENT -j ACCEPT"],
    ["-D" + JUMP[2:]],
    [JUMP],
    ["-D" + JUMP[2:], "-F KIND-MASQ-AGENT", "-X KIND-MASQ-AGENT"],
    [],
]
NFT_DAMAGE = [
    "flush chain inet kindnet KIND-MASQ-AGENT",
    "insert rule inet kindnet KIND-MASQ-AGENT accept",
    "flush set inet kindnet non_masquerade_ipv4",
    "flush chain inet kindnet postrouting",
    "delete table inet kindnet",
    "",
]


class Host(Sandbox):
    def __init__(self, folder, backend):
        super().__init__(folder)
        self.backend = backend
        self.flavour = "legacy" if backend == "iptables-legacy" else "nft"  # of the other program
        self.undisturbed = []  # our table of nftables for each of CIDRS

    def masq(self, cidrs):
        """The module by itself, without the seconds that Ansible needs around it."""
        arguments = {"ANSIBLE_MODULE_ARGS": {"cluster_cidrs": cidrs, "backend": self.backend}}
        code = "import sys; sys.path.insert(0, sys.argv[1]); sys.argv[1:] = []; import runpy; runpy.run_module('%s', run_name='__main__')"
        module = "ansible_collections.kindnet.host.plugins.modules.kindnet_masq"
        done = self.run(sys.executable, "-c", code % module, str(self.collections), stdin=json.dumps(arguments), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def one_pass(self):
        done = subprocess.run(self.command(*AS_THE_TIMER), capture_output=True, text=True, timeout=BOUND, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def restore(self, tool, lines, *flags):
        self.run("%s-%s-restore" % (tool, self.flavour), "-w", "10", *flags, stdin="\n".join(["*nat", *lines, "COMMIT", ""]))

    def nat(self, tool):
        return [line for line in self.run("%s-%s-save" % (tool, self.flavour), "-t", "nat").stdout.splitlines() if not line.startswith("#")]

    def damage(self, chance):
        if self.backend == "nftables":
            self.run("nft", "-f", "-", stdin=chance.choice(NFT_DAMAGE))
            return
        for tool in TOOLS:
            self.restore(tool, chance.choice(DAMAGE), "--noflush")

    def table(self):
        return self.run("nft", "--stateless", "list", "table", "inet", "kindnet").stdout

    def assert_ours(self, cidrs):
        if self.backend == "nftables":
            assert self.table() == self.undisturbed[CIDRS.index(cidrs)]
            return
        for tool in TOOLS:
            rules = [line for line in self.nat(tool) if line.startswith("-A KIND-MASQ-AGENT ") or line == JUMP]
            assert rules == [JUMP] + [RETURN % cidr for cidr in cidrs if (":" in cidr) == (tool == "ip6tables")] + [MASQUERADE]


class Rival(threading.Thread):
    """Keeps a chain of services in both families, another one each time, and looks whether all of it is there."""

    def __init__(self, host):
        super().__init__()
        self.host, self.rounds, self.lost = host, 0, []
        self.over = threading.Event()
        self.last = {}
        for tool in TOOLS:
            host.restore(tool, [":RIVAL - [0:0]", "-I POSTROUTING -m mark --mark 0x4000/0x4000 -j RIVAL"], "--noflush")

    def run(self):
        try:
            for generation in itertools.count():
                for tool in TOOLS:
                    if self.over.is_set():
                        return
                    self.rewrite(tool, generation)
                    self.rounds += 1
        except BaseException as e:  # told by the test, in its own thread
            self.lost.append(repr(e))

    def rewrite(self, tool, generation):
        rules = ["-A RIVAL -p tcp -m tcp --dport %d -j MASQUERADE" % (1 + (generation * 7 + n) % 60000) for n in range(100)]
        self.last[tool] = rules
        self.host.restore(tool, [":RIVAL - [0:0]", *rules], "--noflush")
        found = self.found(tool)
        if found != (rules, 1):
            self.lost.append("%s, generation %d: %s" % (tool, generation, found))

    def found(self, tool):
        lines = self.host.nat(tool)
        return [line for line in lines if line.startswith("-A RIVAL ")], lines.count("-A POSTROUTING -m mark --mark 0x4000/0x4000 -j RIVAL")


@pytest.fixture(params=["iptables-nft", "iptables-legacy", "nftables"])
def host(request, tmp_path):
    host = Host(tmp_path, request.param)
    lacks = "".join(host.run("%s-%s" % (tool, host.flavour), "-t", "nat", "-S", check=False).stderr for tool in TOOLS)
    if host.flavour == "legacy" and lacks:
        host.close()
        pytest.skip("this kernel has no legacy iptables: " + lacks)
    host.module()
    if request.param == "nftables":
        for cidrs in CIDRS:
            host.masq(cidrs)
            host.undisturbed.append(host.table())
    yield host
    host.close()


def test_neither_loses_a_rule_to_the_other(host):
    """Meanwhile ours are damaged and the options change, so that passes and runs have something to write each time."""
    rival = Rival(host)
    host.masq(CIDRS[0])
    rival.start()
    try:
        chance = random.Random(4)
        wanted = CIDRS[0]
        end = time.monotonic() + SECONDS
        turns = 0
        while time.monotonic() < end or turns < 4:
            host.damage(chance)
            if turns % 4 == 3:
                wanted = CIDRS[(turns // 4 + 1) % 2]
                host.masq(wanted)
            else:
                host.one_pass()
            host.assert_ours(wanted)
            turns += 1
    finally:
        rival.over.set()
        rival.join()
    assert rival.lost == []
    assert rival.rounds > 4, "the other program had no turn: this test tested nothing"
    assert {tool: rival.found(tool) for tool in TOOLS} == {tool: (rules, 1) for tool, rules in rival.last.items()}
    host.assert_ours(wanted)


def test_after_a_restore_of_the_whole_table_ours_are_back_in_one_pass(host):
    host.masq(CIDRS[1])
    if host.backend == "nftables":
        host.run("nft", "flush", "ruleset")
    theirs = ["-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "-A OTHER -j RETURN"]
    for tool in TOOLS:
        host.restore(tool, [":OTHER - [0:0]"] + (theirs if tool == "iptables" else theirs[1:]))
        assert "KIND-MASQ-AGENT" not in str(host.nat(tool))
    host.one_pass()
    host.assert_ours(CIDRS[1])
    assert [line for line in host.nat("iptables") if line in theirs] == theirs
    assert theirs[1] in host.nat("ip6tables")
