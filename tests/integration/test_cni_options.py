# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of cni_conflist with the real plugins: what is asked for is so in the pod, what a plugin would refuse is refused before."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _conflist
from ansible_collections.kindnet.host.plugins.module_utils._conflist_data import OPTIONS, parse_text, read_text, template_variables
from cni_runtime import cni, ip
from cni_sandbox import ROOT, Sandbox
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MODULE = "kindnet.host.cni_conflist"
PATH = "/etc/cni/net.d/10-kindnet.conflist"
OURS = ("/etc/cni", "/etc/kindnet", "/opt/cni")
V4, V6 = "10.244.0.0/24", "fd00:10:244::/64"
TEMPLATE = Path(ROOT) / "templates" / "10-kindnet.conflist.j2"


@pytest.fixture
def host(tmp_path):
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


def rendered(**options):
    """The configuration as the action plugin makes it, without Ansible's part in it."""
    environment = Environment()
    environment.filters["to_json"] = json.dumps
    given_options = {name: options.pop(name) for name in OPTIONS if name in options}
    variables = template_variables(options.get("pod_cidrs", [V4]), options.get("mtu"), "kindnet", options.get("cni_version", "1.0.0"), given_options)
    return parse_text("template", environment.from_string(TEMPLATE.read_text()).render(**variables))


def converge(host, **options):
    result = host.module(MODULE, {"conflist": rendered(**options)})
    assert not result.get("failed"), result
    return host.json(PATH)


def start(host, pod, conflist, **runtime):
    host.sh("ip netns add %s; ip -n %s link set lo up" % (pod, pod))
    return cni(host, "ADD", pod, conflist, runtime=runtime)


def addresses(host, pod):
    (eth0,) = ip(host, "-n", pod, "address", "show", "eth0")
    return [a["local"] for a in eth0["addr_info"] if a["scope"] == "global"]


def veth(host, address):
    (route,) = ip(host, "route", "show", address)
    return route["dev"]


def bucket(host, interface):
    """Rate in bytes per second and burst in bytes of an interface's token bucket."""
    (qdisc,) = [q for q in json.loads(host.run("tc", "-json", "qdisc", "show", "dev", interface).stdout) if q["kind"] == "tbf"]
    return qdisc["options"]["rate"], qdisc["options"]["burst"]


def test_what_is_asked_for_is_so_in_the_pod(host):
    args = {
        "pod_cidrs": [V4, V6],
        "cni_version": "1.0.0",
        "ranges": [{"rangeStart": 10, "rangeEnd": 19, "gateway": 254}],
        "extra_ranges": [{"subnet": "10.99.0.0/24"}],
        "tuning": {"sysctl": {"net.core.somaxconn": 500, "net.ipv4.conf.IFNAME.arp_filter": "1"}, "allmulti": True, "mac": "02:00:00:00:00:0A"},
        "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 16000000, "egressBurst": 1600000},
        "firewall": {"backend": "iptables", "iptablesAdminChainName": "OURS-FIRST"},
        "portmap": {"snat": False},
    }
    ((check, _real),) = host.played_quartets(MODULE, [args])
    outside = "10.99.0.0/24 lies in no pod CIDR: peers have no route to pods at these addresses."
    assert check["notes"] == [outside] and "localhost: " + outside in check["warnings"]
    conflist = host.json(PATH)
    assert [p["type"] for p in conflist["plugins"]] == ["ptp", "tuning", "bandwidth", "firewall", "portmap"]
    result = start(host, "pod-1", conflist, portMappings=[{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}])

    assert addresses(host, "pod-1") == ["10.244.0.10", "10.99.0.2", "fd00:10:244::a"]
    (default,) = ip(host, "-n", "pod-1", "route", "show", "default")
    assert default["gateway"] == "10.244.0.254"
    assert ip(host, "-n", "pod-1", "-6", "route", "show", "default")[0]["gateway"] == "fd00:10:244::fe"
    (eth0,) = ip(host, "-n", "pod-1", "link", "show", "eth0")
    assert eth0["address"] == "02:00:00:00:00:0a" and "ALLMULTI" in eth0["flags"]
    assert host.sh("ip netns exec pod-1 sysctl -n net.core.somaxconn net.ipv4.conf.eth0.arp_filter") == "500\n1\n"
    (ifb,) = [link["ifname"] for link in ip(host, "link") if link["ifname"].startswith("bwp")]
    assert bucket(host, veth(host, "10.244.0.10")) == (1000000, 100000)
    assert bucket(host, ifb) == (2000000, 200000)
    for save, address in (("iptables-save", "10.244.0.10/32"), ("ip6tables-save", "fd00:10:244::a/128")):
        rules = host.sh(save + " -t filter")
        assert "-A CNI-FORWARD -s %s -j ACCEPT\n" % address in rules
        assert "-j OURS-FIRST\n" in rules
    nat = host.sh("iptables-save -t nat")
    assert "--to-destination 10.244.0.10:80" in nat
    assert "-j CNI-HOSTPORT-SETMARK" not in nat

    cni(host, "DEL", "pod-1", conflist, result, {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    assert "10.244.0.10" not in host.sh("iptables-save") + host.sh("ip route")
    assert not [link for link in ip(host, "link") if link["ifname"].startswith("bwp")]


def test_source_based_routing(host):
    conflist = converge(host, pod_cidrs=[V4, V6], sbr={})
    start(host, "pod-1", conflist)
    rules = {r["src"]: r["table"] for r in ip(host, "-n", "pod-1", "rule") if r["src"] != "all"}
    assert rules == {"10.244.0.2": "100"}
    assert ip(host, "-n", "pod-1", "route", "show", "table", "100")[0]["gateway"] == "10.244.0.1"
    (rule6,) = [r for r in ip(host, "-n", "pod-1", "-6", "rule") if r["src"] != "all"]
    assert rule6["table"] == "101"


def test_limits_of_one_pod_come_from_the_runtime(host):
    limits = {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 0, "egressBurst": 0}
    start(host, "pod-1", converge(host, bandwidth={}), bandwidth=limits)
    assert bucket(host, veth(host, "10.244.0.2")) == (1000000, 100000)
    # but not where the file has one of its own
    start(host, "pod-2", converge(host, bandwidth={"ingressRate": 16000000, "ingressBurst": 160000}), bandwidth=limits)
    assert bucket(host, veth(host, "10.244.0.3")) == (2000000, 20000)


@pytest.mark.parametrize("rate", [8000000, 10**10])
def test_the_smallest_burst_passes_a_whole_packet_and_no_smaller_one_does(host, rate):
    """At a rate where every byte counts, and at one where the plugin's microseconds do."""
    refused = host.module(MODULE, {"conflist": rendered(bandwidth={"ingressRate": rate, "ingressBurst": 8})}, True)
    assert refused.get("failed") and refused["field"] == "bandwidth.ingressBurst", refused
    least = int(refused["remedy"].split()[3])
    too_small = {8000000: 8 * 1514, 10**10: 8 * 2499}[rate]
    for number, (burst, passes) in enumerate(((least, True), (too_small, False)), 2):
        conflist = rendered(bandwidth={"ingressRate": rate, "ingressBurst": burst})
        result = host.module(MODULE, {"conflist": conflist}, True)
        assert bool(result.get("failed")) is not passes, result
        start(host, "pod-%d" % number, conflist)
        # Until the first answer, as the link may not pass anything for a moment; without one it is over soon.
        bound = ("-c", "1", "-w", "20") if passes else ("-c", "2", "-i", "0.2", "-W", "1")
        ping = host.run("ping", *bound, "-M", "do", "-s", "1472", "10.244.0.%d" % number, check=False)
        assert (ping.returncode == 0) is passes, ping.stdout


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_each_version_that_the_plugins_speak(host, version):
    options = {"tuning": {"sysctl": {"net.core.somaxconn": 500}}, "bandwidth": {}, "portmap": {"markMasqBit": 7}}
    if version >= "0.4.0":
        options["firewall"] = {}
    conflist = converge(host, pod_cidrs=[V4, V6], cni_version=version, **options)
    result = start(host, "pod-1", conflist)
    assert result["cniVersion"] == conflist["cniVersion"] == version
    assert addresses(host, "pod-1") == ["10.244.0.2", "fd00:10:244::2"]


def test_a_template_of_the_users_and_options(host):
    host.write(
        str(host.playbooks / "mine.j2"),
        """{% set bridge = {"type": "bridge", "ipam": {"type": "host-local", "ranges": ranges}} %}
{{ {"cniVersion": cni_version, "name": name, "plugins": [bridge] + (chained | rejectattr("type", "eq", "tuning") | list)} | to_json }}
""",
    )
    args = {"pod_cidrs": [V4], "template": "mine.j2", "cni_version": "0.4.0", "firewall": {"ingressPolicy": "same-bridge"}, "ranges": [{"rangeStart": 10}]}
    host.played_quartets(MODULE, [args])
    assert host.json(PATH)["plugins"] == [
        {"type": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": V4, "rangeStart": "10.244.0.10"}]]}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    before = host.tree(*OURS)
    (result,) = host.play(MODULE, [(dict(args, tuning={"promisc": True}), False)])
    assert result.get("failed") and "localhost: tuning: {'promisc': True}: is not in what template" in result["msg"]
    assert host.tree(*OURS) == before


BAD = [
    ({"cni_version": "1.1.0"}, "CNI plugin", "does not speak CNI 1.1.0, it speaks ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0']"),
    ({"cni_version": "0.3.1", "firewall": {}}, "cni_version", "is older than what the plugin firewall speaks"),
    ({"ranges": [{"rangeStart": 20, "rangeEnd": 10}]}, "ranges[0].rangeEnd", "ends before it starts"),
    ({"ranges": "10.244.0.0/24"}, "ranges", "is not a list"),
    ({"extra_ranges": [{"subnet": "10.99.0.0/24", "gateway": "10.98.0.1"}]}, "extra_ranges[0].gateway", "lies outside of the subnet"),
    ({"portmap": {"masqAll": True}}, "portmap.masqAll", "is not known to the installed plugin /usr/lib/cni/portmap. Install"),
    ({"portmap": {"backend": "nftables"}}, "portmap.backend", "of release 1.6.0 or newer"),
    ({"portmap": {"Snat": True}}, "portmap.Snat", "is no field of the plugin portmap"),
    ({"tuning": {"txQLen": 100}}, "tuning.txQLen", "of release 1.4.0 or newer"),
    ({"tuning": {"sysctl": {"net.core.somaxcon": "1"}}}, "tuning.sysctl.net.core.somaxcon", "cannot be set in a pod"),
    ({"tuning": {"sysctl": {"net.core.somaxconn": "1", "net.ipv4.conf.IFNAME.arp_filter": "on"}}}, "net.ipv4.conf.IFNAME.arp_filter", "cannot be set"),
    ({"bandwidth": {"ingressRate": "10M", "ingressBurst": 1}}, "bandwidth.ingressRate", "is not a number of bits per second"),
    ({"bandwidth": {"ingressRate": 8000000, "ingressBurst": 1000}}, "bandwidth.ingressBurst", "is less than one packet"),
    ({"firewall": {"ingressPolicy": "isolated"}}, "plugins[1].ingressPolicy", "works with the plugin bridge only"),
    ({"sbr": {"table": 77}}, "sbr.table", "of release 1.6.0 or newer"),
    ({"sbr": {"table": 254}}, "sbr.table", "is the kernel's own table main"),
    ({"pod_cidrs": None, "conflist": {}, "bandwidth": {}}, "conflist", "excludes bandwidth"),
]


def test_bad_values_change_nothing_and_are_named(host):
    converge(host)
    before, tables = host.tree(*OURS), host.sh("sysctl net.core.somaxconn")
    cases = [({"pod_cidrs": [V4], "cni_version": "1.0.0", **args}, check) for args, _field, _said in BAD for check in (True, False)]
    results = host.play(MODULE, [({k: v for k, v in args.items() if v is not None}, check) for args, check in cases])
    for i, result in enumerate(results):
        _args, field, said = BAD[i // 2]
        assert result.get("failed"), BAD[i // 2]
        assert field in result["field"] and said in result["msg"], result["msg"]
        assert result["remedy"] and result["host"] and "\n" not in result["msg"]
    assert host.tree(*OURS) == before and host.sh("sysctl net.core.somaxconn") == tables
    assert "Traceback" not in host.output


def test_addresses_that_live_pods_have_are_not_set_aside(host):
    conflist = converge(host)
    for pod in ("pod-1", "pod-2"):  # .2 and .3
        start(host, pod, conflist)
    before = host.tree(*OURS)
    for options, field, said in (
        ({"ranges": [{"rangeStart": 3}]}, "ranges", "1 live allocations of host-local are not among the addresses for pods: 10.244.0.2 (pod-1)"),
        ({"ranges": [{"rangeEnd": 2}]}, "ranges", "10.244.0.3 (pod-2)"),
        ({"ranges": [{"gateway": 3}]}, "ranges", "10.244.0.3 (pod-2)"),
        # still routed to this node, and so nobody else's business
        ({"ranges": [{"subnet": "10.244.0.128/25"}]}, "ranges", "2 live allocations"),
        ({"pod_cidrs": ["10.244.9.0/24"], "ranges": [{"rangeStart": 3}]}, "pod_cidrs", "2 live allocations of host-local would be outside"),
    ):
        args = {"conflist": rendered(**options), "pod_cidrs": options.get("pod_cidrs", [V4])}
        for check in (True, False):
            result = host.module(MODULE, args, check)
            assert result.get("failed"), options
            assert (result["field"], said in result["msg"], "force_pod_cidr_change" in result["remedy"]) == (field, True, True), result["msg"]
    assert host.tree(*OURS) == before
    host.quartet(MODULE, {"conflist": rendered(ranges=[{"rangeStart": 2, "rangeEnd": 3, "gateway": 254}])})
    aside = {"conflist": rendered(ranges=[{"rangeStart": 100}]), "force_pod_cidr_change": True}
    host.quartet(MODULE, aside)
    assert host.module(MODULE, dict(aside, force_pod_cidr_change=False))["changed"] is False
    start(host, "pod-3", host.json(PATH))
    assert addresses(host, "pod-3") == ["10.244.0.100"]
    # what peers never had a route to is not a matter of pod CIDRs
    extra = {"conflist": rendered(extra_ranges=[{"subnet": "10.99.0.0/24"}]), "pod_cidrs": [V4], "force_pod_cidr_change": True}
    host.quartet(MODULE, extra)
    assert host.json("/etc/kindnet/desired.json")["sections"]["conflist"]["pod_cidrs"] == [V4]
    assert host.module("kindnet.host.kindnet_node_info", {"name": "node-a"})["pod_cidrs"] == {"node-a": [V4]}
    start(host, "pod-4", host.json(PATH))
    result = host.module(MODULE, {"conflist": rendered(), "pod_cidrs": [V4]})
    assert (result["field"], "10.99.0.2 (pod-4)" in result["msg"]) == ("ranges", True), result
    # pods of before end as ever
    cni(host, "DEL", "pod-1", host.json(PATH))
    assert "10.244.0.2\n" not in host.sh("ls /run/cni-ipam-state/kindnet")


# --- Whatever the options: what is planned and applied is what is there, and the real plugin makes of it what was meant.

RATES = st.integers(10**5, 10**11)


@st.composite
def option_sets(draw):
    cidrs = draw(st.sampled_from([[V4], [V6], [V4, V6], [V6, V4]]))
    options = {"pod_cidrs": cidrs, "mtu": draw(st.sampled_from([None, 1280, 1500, 9000]))}
    first, last = sorted(draw(st.tuples(st.integers(2, 253), st.integers(2, 253))))
    span = {}
    if draw(st.booleans()):
        span.update(rangeStart=first)
    if draw(st.booleans()):
        span.update(rangeEnd=last)
    if draw(st.booleans()):
        span.update(gateway=draw(st.integers(1, 254).filter(lambda g: not (g == first == last))))
    options["ranges"] = draw(st.sampled_from([[], [span], [dict(span, subnet=cidrs[0])]]))
    options["extra_ranges"] = draw(st.sampled_from([[], [{"subnet": "10.99.0.0/28"}], [{"subnet": "fd99::/126"}, {"subnet": "10.99.0.0/30"}]]))
    options["portmap"] = draw(
        st.fixed_dictionaries({}, optional={"snat": st.booleans(), "markMasqBit": st.integers(0, 31), "conditionsV4": st.just(["!", "-d", "192.0.2.0/24"])})
    )
    if draw(st.booleans()):
        names = st.sampled_from(["net.core.somaxconn", "net.ipv4.conf.IFNAME.arp_filter", "net.ipv4.ip_unprivileged_port_start"])
        options["tuning"] = draw(
            st.fixed_dictionaries({}, optional={"sysctl": st.dictionaries(names, st.integers(0, 1)), "promisc": st.booleans(), "mtu": st.just(1280)})
        )
    if draw(st.booleans()):
        rate = draw(RATES)
        options["bandwidth"] = {"egressRate": rate, "egressBurst": min(rate, 8 * 10**8)}
    if draw(st.booleans()):
        options["firewall"] = draw(st.fixed_dictionaries({}, optional={"backend": st.just("iptables"), "ingressPolicy": st.just("open")}))
    if draw(st.booleans()):
        options["sbr"] = draw(st.fixed_dictionaries({}, optional={"table": st.integers(1, 252)}))
    return options


def host_local(conflist, folder, pod):
    """The addresses that the real plugin gives a pod out of a configuration."""
    ipam = dict(conflist["plugins"][0]["ipam"], dataDir=folder)
    done = subprocess.run(
        ["/usr/lib/cni/host-local"],
        input=json.dumps({"cniVersion": conflist["cniVersion"], "name": "kindnet", "ipam": ipam}),
        env={"CNI_COMMAND": "ADD", "CNI_CONTAINERID": pod, "CNI_NETNS": "/dev/null", "CNI_IFNAME": "eth0", "CNI_PATH": "/usr/lib/cni"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)["ips"]


@settings(max_examples=60, deadline=None)
@given(option_sets())
def test_generated_options_round_trip(options):
    conflist = rendered(**options)
    with tempfile.TemporaryDirectory() as folder:
        section = {"path": folder + "/10-kindnet.conflist", "former_paths": [], "made_folders": [], "conflist": conflist}
        plan = _conflist.plan(section, _conflist.read(section, None))
        assert [change.action for change in plan.changes] == ["add"]
        assert _conflist.apply(section, plan) == ()
        assert _conflist.plan(section, _conflist.read(section, None)).changes == ()
        assert read_text(Path(section["path"]).read_bytes()) == conflist
        # the plugin's own view of the ranges
        given_ips = host_local(conflist, folder, "pod")
        assert len(given_ips) == len(options["pod_cidrs"]) + len(options["extra_ranges"])
        for position, (cidr, ip_config) in enumerate(zip(options["pod_cidrs"], given_ips)):
            network, address = ipaddress.ip_network(cidr), ipaddress.ip_interface(ip_config["address"]).ip
            ranges = [r for r in options["ranges"] if r.get("subnet") in (None, cidr)]
            span = ranges[0] if ranges else {}
            gateway = network[span.get("gateway", 1)]
            assert network[span.get("rangeStart", 1)] <= address <= network[span.get("rangeEnd", -1 if network.version == 6 else -2)]
            assert ipaddress.ip_address(ip_config["gateway"]) == gateway != address
            assert conflist["plugins"][0]["ipam"]["routes"][position] == {"dst": "0.0.0.0/0" if network.version == 4 else "::/0"}
        kinds = [k for k in ("tuning", "bandwidth", "firewall", "sbr") if k in options]
        assert [p["type"] for p in conflist["plugins"]] == ["ptp", *kinds, "portmap"]
