# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan, apply, read back, plan again is empty, for generated options and each backend; and what is then there says what was asked for."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nat_sandbox import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

V4, V6 = "10.244.0.0/16", "fd00:10:244::/56"
TABLE = "nft -j list table inet kindnet"

CONVERGES = """
import json, sys
from ansible_collections.kindnet.host.plugins.module_utils import _converge, _masq
for line in sys.stdin:
    try:
        outcome = _converge.converge(_masq, json.loads(line), "kindnet", True, False, 5)
        again = _converge.converge(_masq, json.loads(line), "kindnet", True, True, 5)
        said = [[p.message for p in outcome.plan.problems + outcome.failures], [c.reason for c in again.plan.changes], again.record is not None]
    except Exception as e:
        said = repr(e)
    print(json.dumps(said), flush=True)
"""

PREFIXES4 = ["10.0.0.0/8", "10.244.0.0/17", "10.244.128.0/17", "11.0.0.0/8", "0.0.0.0/0", "240.0.0.0/4", "255.255.255.255/32"]
PREFIXES4 += ["0.0.0.0/1", "128.0.0.0/1", "192.0.2.1/32"]
PREFIXES6 = ["::/0", "fd00::/8", "fd00:10:244:100::/56", "::ffff:10.0.0.0/104", "2001:db8::1/128", "8000::/1", "ff00::/8"]
some4, some6 = (st.lists(st.sampled_from(p), unique=True, max_size=5) for p in (PREFIXES4, PREFIXES6))
both = st.tuples(some4, some6).filter(lambda lists: bool(lists[0]) == bool(lists[1])).map(lambda lists: lists[0] + lists[1])
some_options = st.fixed_dictionaries(
    {
        "cluster_cidrs": st.permutations([V4, V6, "10.96.0.0/12"]),
        "non_masquerade_cidrs": st.tuples(some4, some6).map(lambda lists: lists[0] + lists[1]),
        "masquerade_cidrs": both,
        "source_cidrs": both,
        "masquerade_link_local": st.booleans(),
        "masquerade_link_local_ipv6": st.booleans(),
        "random_fully": st.booleans(),
        "jump_position": st.sampled_from(["last", "first", "before KUBE-POSTROUTING"]),
        "chain": st.sampled_from(["KIND-MASQ-AGENT", "X_1.y"]),
    }
)
FIXED = {"lock_wait": 5, "state": "present", "tools_predicted": False}
PROBES = ["10.244.1.1", "10.1.1.1", "11.2.3.4", "192.0.2.1", "192.0.2.2", "241.1.1.1", "255.255.255.255", "169.254.1.1", "1.1.1.1", "9.255.255.255"]
PROBES6 = ["fd00:10:244::1", "fd00:10:244:1ff::1", "fe80::1", "::ffff:10.1.1.1", "2001:db8::1", "2001:db8::2", "ffff::1", "1::1"]


def asked(options, source, destination):
    """Whether a packet is to be masqueraded, by the options' own words."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)

    def within(address, networks):
        return any(address in ipaddress.ip_network(n) for n in networks if ipaddress.ip_network(n).version == address.version)

    if within(destination, options["cluster_cidrs"]) or within(destination, options["non_masquerade_cidrs"]):
        return False
    if not options["masquerade_link_local"] and within(destination, ["169.254.0.0/16"]):
        return False
    if not options["masquerade_link_local_ipv6"] and within(destination, ["fe80::/10"]):
        return False
    return all(not options[f] or within(a, options[f]) for f, a in (("masquerade_cidrs", destination), ("source_cidrs", source)))


def live_rules(sandbox, backend, chain):
    """The chain as (source networks, destination networks, verdict) in order, None for everything, out of what the tools print."""
    if backend != "nftables":
        for tool in (backend, backend.replace("iptables", "ip6tables")):
            for line in re.findall("^-A %s (.*)" % chain, sandbox.out("%s-save" % tool), re.MULTILINE):
                found = dict(re.findall(r"-([sd]) (\S+)", line))
                everything = "0.0.0.0/0" if tool == backend else "::/0"
                yield [found.get("s", everything)], [found.get("d", everything)], re.search("-j (.*)", line).group(1)
        return
    objects = json.loads(sandbox.out(TABLE))["nftables"]
    sets = {}
    for item in objects:
        if "set" in item:
            sets["@" + item["set"]["name"]] = [network for one in item["set"].get("elem", []) for network in networks_of(one)]
    for item in objects:
        if "rule" not in item or item["rule"]["chain"] != chain:
            continue
        source = destination = None
        for one in item["rule"]["expr"]:
            if "match" in one and "payload" in one["match"]["left"]:
                payload = one["match"]["left"]["payload"]
                everything = ["0.0.0.0/0"] if payload["protocol"] == "ip" else ["::/0"]
                source = sets[one["match"]["right"]] if payload["field"] == "saddr" else source or everything
                destination = sets[one["match"]["right"]] if payload["field"] == "daddr" else destination or everything
            elif "match" in one:
                source = destination = ["0.0.0.0/0"] if one["match"]["right"] == "ipv4" else ["::/0"]
        yield source, destination, "RETURN" if "return" in one else "MASQUERADE" + (" --random-fully" if one["masquerade"] else "")


def networks_of(element):
    if isinstance(element, str):
        return [element]
    if "prefix" in element:
        return ["%(addr)s/%(len)d" % element["prefix"]]
    first, last = map(ipaddress.ip_address, element["range"])
    return [str(n) for n in ipaddress.summarize_address_range(first, last)]


def verdict(rules, source, destination):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    for sources, destinations, said in rules:
        if all(any(a in n for n in networks) for a, networks in ((source, sources), (destination, destinations))):
            return said
    return "none"


def test_round_trip_for_generated_options(sandbox, backend):
    tools = [] if backend == "nftables" else [backend, backend.replace("iptables", "ip6tables")]
    for tool in tools:
        nat = f"{tool} -t nat"
        sandbox.run(f"{nat} -N KUBE-POSTROUTING; {nat} -A POSTROUTING -o eth7 -j ACCEPT; {nat} -A POSTROUTING -j KUBE-POSTROUTING")

    def assert_jumps_stand(options):
        for tool in tools:
            targets = re.findall("^-A POSTROUTING .*-j (.*)", sandbox.out("%s -t nat -S POSTROUTING" % tool), re.MULTILINE)
            assert sorted(targets) == sorted(["ACCEPT", "KUBE-POSTROUTING", options["chain"]])
            assert options["jump_position"] != "first" or targets[0] == options["chain"]
            assert options["jump_position"] == "last" or targets.index(options["chain"]) < targets.index("KUBE-POSTROUTING")

    env = dict(os.environ, PYTHONPATH=os.path.join(ROOT, ".ansible", "collections"))
    process = subprocess.Popen(sandbox.inside([sys.executable, "-c", CONVERGES]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(some_options)
    def round_trip(options):
        if backend == "nftables" and options["jump_position"].startswith("before"):
            options["jump_position"] = "first"
        process.stdin.write(json.dumps(dict(options, backend=backend, **FIXED)) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == [[], [], False]
        rules = [
            ([ipaddress.ip_network(s) for s in sources], [ipaddress.ip_network(d) for d in destinations], said)
            for sources, destinations, said in live_rules(sandbox, backend, options["chain"])
        ]
        masquerades = "MASQUERADE --random-fully" if options["random_fully"] else "MASQUERADE"
        for source, destination in [*itertools.product(PROBES, PROBES), *itertools.product(PROBES6, PROBES6)]:
            assert (verdict(rules, source, destination) == masquerades) is asked(options, source, destination), (source, destination, rules)
        assert_jumps_stand(options)
        assert ({"X_1.y", "KIND-MASQ-AGENT"} - {options["chain"]}).pop() not in sandbox.out("iptables-save; ip6tables-save; nft list ruleset")

    try:
        round_trip()
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
