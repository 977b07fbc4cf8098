# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken and what is refused of the plugins' fields, as options and in a finished configuration."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _cni_fields as fields
from ansible_collections.kindnet.host.plugins.module_utils import _conflist_data as data
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError

PORTS = {"portMappings": True}


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("portmap", {}, {"capabilities": PORTS}),
        ("portmap", {"snat": False, "markMasqBit": 0}, {"snat": False, "markMasqBit": 0, "capabilities": PORTS}),
        ("portmap", {"snat": "False", "markMasqBit": "31"}, {"snat": False, "markMasqBit": 31, "capabilities": PORTS}),  # out of a template
        ("portmap", {"masqAll": True, "backend": "iptables"}, {"masqAll": True, "backend": "iptables", "capabilities": PORTS}),
        ("portmap", {"externalSetMarkChain": "KUBE-MARK-MASQ"}, {"externalSetMarkChain": "KUBE-MARK-MASQ", "capabilities": PORTS}),
        ("portmap", {"conditionsV4": ["!", "-d", "192.0.2.0/24"]}, {"conditionsV4": ["!", "-d", "192.0.2.0/24"], "capabilities": PORTS}),
        (
            "portmap",
            {"backend": "nftables", "conditionsV6": ["ip6", "daddr", "!=", "fc00::/7"]},
            {"backend": "nftables", "conditionsV6": ["ip6", "daddr", "!=", "fc00::/7"], "capabilities": PORTS},
        ),
        ("portmap", {"capabilities": {"portMappings": False}}, {"capabilities": {"portMappings": False}}),
        ("bandwidth", {}, {"capabilities": {"bandwidth": True}}),
        (
            "bandwidth",
            {"ingressRate": "1000000", "ingressBurst": 100000},
            {"ingressRate": 1000000, "ingressBurst": 100000, "capabilities": {"bandwidth": True}},
        ),
        ("bandwidth", {"egressRate": 0, "egressBurst": 0}, {"egressRate": 0, "egressBurst": 0, "capabilities": {"bandwidth": True}}),
        ("tuning", {}, {}),
        (
            "tuning",
            {"sysctl": {"net.core.somaxconn": 500, "net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_local_port_range": "1024 2000"}},
            {"sysctl": {"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_local_port_range": "1024 2000"}},
        ),
        ("tuning", {"mac": "02:00:00:00:00:AB"}, {"mac": "02:00:00:00:00:ab"}),
        ("tuning", {"promisc": "true", "mtu": "1400", "allmulti": False, "txQLen": 0}, {"promisc": True, "mtu": 1400, "allmulti": False, "txQLen": 0}),
        ("tuning", {"capabilities": {"mac": True}}, {"capabilities": {"mac": True}}),
        ("firewall", {"backend": "firewalld", "firewalldZone": "trusted"}, {"backend": "firewalld", "firewalldZone": "trusted"}),
        ("firewall", {"iptablesAdminChainName": "CNI-ADMIN"}, {"iptablesAdminChainName": "CNI-ADMIN"}),
        ("sbr", {"table": 100}, {"table": 100}),
    ],
)
def test_what_a_user_says_of_a_plugin(kind, given, expected):
    assert fields.plugin_of(kind, given) == dict(expected, type=kind)


GIB = 2**30

REFUSED = [
    ("portmap", True, "portmap: True: is not a mapping"),
    ("portmap", [], "portmap: .*is not a mapping"),
    ("portmap", {"Snat": True}, r"portmap\.Snat: True: is no field of the plugin portmap\. Known are backend, capabilities, .*snat"),
    ("portmap", {"type": "portmap"}, r"portmap\.type: .*is no field"),
    ("portmap", {"snat": 1}, r"portmap\.snat: 1: is not a boolean"),
    ("portmap", {"snat": None}, r"portmap\.snat: None: is not a boolean"),
    ("portmap", {"markMasqBit": 32}, r"portmap\.markMasqBit: 32: .*from 0 to 31"),
    ("portmap", {"markMasqBit": True}, r"portmap\.markMasqBit: True"),
    ("portmap", {"backend": "nft"}, r"portmap\.backend: nft: is not one of iptables, nftables"),
    ("portmap", {"externalSetMarkChain": "a b"}, r"portmap\.externalSetMarkChain: a b: is not the name of an iptables chain"),
    ("portmap", {"externalSetMarkChain": "-j"}, "is not the name of an iptables chain"),
    ("portmap", {"externalSetMarkChain": "A" * 29}, "is not the name of an iptables chain"),
    ("portmap", {"externalSetMarkChain": "A", "markMasqBit": 3}, r"portmap\.externalSetMarkChain: A: excludes markMasqBit"),
    ("portmap", {"externalSetMarkChain": "A", "backend": "nftables"}, r"portmap\.externalSetMarkChain: .*no meaning with backend nftables"),
    ("portmap", {"markMasqBit": 3, "backend": "nftables"}, r"portmap\.markMasqBit: .*no meaning with backend nftables"),
    ("portmap", {"masqAll": True, "snat": False}, r"portmap\.masqAll: True: has no meaning with snat false"),
    ("portmap", {"conditionsV4": "-d 192.0.2.0/24"}, r"portmap\.conditionsV4: .*is not a list of words"),
    ("portmap", {"conditionsV4": [""]}, r"portmap\.conditionsV4: .*is not a list of words"),
    ("portmap", {"conditionsV4": ["ip", "daddr", "192.0.2.1"]}, r"portmap\.conditionsV4: .*language of nftables, and the backend is iptables"),
    ("portmap", {"conditionsV6": ["-d", "::1"], "backend": "nftables"}, r"portmap\.conditionsV6: .*language of iptables, and the backend is nftables"),
    ("portmap", {"capabilities": ["portMappings"]}, r"portmap\.capabilities: .*is not a mapping"),
    ("portmap", {"capabilities": {"portMappings": "on"}}, r"portmap\.capabilities\.portMappings: on: is not a boolean"),
    ("bandwidth", {"ingressRate": 1000000}, r"bandwidth\.ingressRate: 1000000: is given without ingressBurst"),
    ("bandwidth", {"egressBurst": 1000000}, r"bandwidth\.egressBurst: 1000000: is given without egressRate"),
    ("bandwidth", {"ingressRate": "10M", "ingressBurst": 1}, r"bandwidth\.ingressRate: 10M: is not a number of bits per second"),
    ("bandwidth", {"ingressRate": -1, "ingressBurst": 1}, r"bandwidth\.ingressRate: -1"),
    ("bandwidth", {"ingressRate": 1.5e6, "ingressBurst": 1}, r"bandwidth\.ingressRate: 1500000\.0"),
    ("bandwidth", {"ingressRate": 7, "ingressBurst": 8}, r"bandwidth\.ingressRate: 7: is less than a byte per second"),
    # the plugin: "burst cannot be more than 4GB"
    ("bandwidth", {"ingressRate": GIB, "ingressBurst": 32 * GIB - 8}, r"bandwidth\.ingressBurst: .*is not a number of bits that the plugin takes"),
    ("bandwidth", {"ingressRate": GIB, "ingressBurst": 32 * GIB - 9}, r"bandwidth\.ingressRate: .*larger than 4 GiB"),
    ("bandwidth", {"ingressRate": 10**7, "ingressBurst": 2749 * 10**6}, r"bandwidth\.ingressBurst: .*takes 274 s at this rate.*at most 2740000000 bits"),
    ("bandwidth", {"rate": 1}, r"bandwidth\.rate: 1: is no field .*Known are capabilities, egressBurst"),
    ("tuning", {"sysctl": ["net.core.somaxconn=1"]}, r"tuning\.sysctl: .*is not a mapping"),
    ("tuning", {"sysctl": {"kernel.pid_max": "1"}}, r"tuning\.sysctl: kernel\.pid_max: is not the name of a network sysctl"),
    ("tuning", {"sysctl": {"net": "1"}}, r"tuning\.sysctl: net: is not the name"),
    ("tuning", {"sysctl": {"net.core/../../kernel": "1"}}, r"tuning\.sysctl: .*is not the name"),
    ("tuning", {"sysctl": {"net..core": "1"}}, r"tuning\.sysctl: .*is not the name"),
    ("tuning", {"sysctl": {"net.core.somaxconn": True}}, r"tuning\.sysctl\.net\.core\.somaxconn: True: is not the value of a sysctl"),
    ("tuning", {"sysctl": {"net.core.somaxconn": ""}}, "is not the value of a sysctl"),
    ("tuning", {"sysctl": {"net.core.somaxconn": "1\n2"}}, "is not the value of a sysctl"),
    ("tuning", {"mac": "01:00:5e:00:00:01"}, r"tuning\.mac: .*is not the address of one interface"),
    ("tuning", {"mac": "00:00:00:00:00:00"}, r"tuning\.mac: .*is not the address of one interface"),
    ("tuning", {"mac": "02-00-00-00-00-01"}, r"tuning\.mac: .*is not a MAC address"),
    ("tuning", {"mtu": 67}, r"tuning\.mtu: 67: is not an MTU"),
    ("tuning", {"mtu": "auto"}, r"tuning\.mtu: auto: is not an MTU"),
    ("tuning", {"txQLen": -1}, r"tuning\.txQLen: -1"),
    ("tuning", {"dataDir": "run/x"}, r"tuning\.dataDir: run/x: is not an absolute path"),
    ("firewall", {"backend": "nftables"}, r"firewall\.backend: nftables: is not one of iptables, firewalld"),
    ("firewall", {"ingressPolicy": "closed"}, r"firewall\.ingressPolicy: closed: is not one of open, same-bridge, isolated"),
    ("firewall", {"backend": "firewalld", "iptablesAdminChainName": "A"}, r"firewall\.iptablesAdminChainName: A: has no meaning with backend firewalld"),
    ("firewall", {"backend": "iptables", "firewalldZone": "a"}, r"firewall\.firewalldZone: a: has no meaning with backend iptables"),
    ("firewall", {"firewalldZone": "a" * 18}, "is not the name of a zone"),
    ("sbr", {"table": 0}, r"sbr\.table: 0: is not the number of a routing table"),
    ("sbr", {"table": 254}, r"sbr\.table: 254: is the kernel's own table main"),
    ("sbr", {"gateways": []}, r"sbr\.gateways: .*is no field"),
]


@pytest.mark.parametrize(("kind", "given", "problem"), REFUSED)
def test_what_a_user_may_not_say_of_a_plugin(kind, given, problem):
    with pytest.raises(KindnetError, match="^" + problem if problem.startswith(kind) else problem) as e:
        fields.plugin_of(kind, given)
    assert e.value.field.startswith(kind) and e.value.remedy
    assert "\n" not in str(e.value)


def conflist(*plugins, **more):
    return dict({"cniVersion": "1.0.0", "name": "kindnet", "plugins": [{"type": "ptp", "mtu": 1500}, *plugins]}, **more)


@pytest.mark.parametrize(
    "good",
    [
        conflist({"type": "portmap", "note": "theirs", "snat": True}),
        conflist({"type": "bandwidth", "ingressRate": None}),
        conflist({"type": "firewall", "ingressPolicy": "", "backend": ""}),
        conflist({"type": "tuning", "mtu": "auto"}),
        conflist({"type": "somebodys", "sysctl": 7}),
        conflist(disableCheck=True),
        conflist(disableCheck="true"),
        conflist(disableGC=True, cniVersion="1.1.0"),
        conflist(disableGC=True, cniVersions=["1.1.0", "0.4.0"]),
        {"cniVersion": "0.3.0", "name": "n", "plugins": [{"type": "bridge"}]},
        {"cniVersion": "0.4.0", "name": "n", "plugins": [{"type": "bridge"}, {"type": "firewall", "ingressPolicy": "same-bridge"}]},
    ],
)
def test_finished_configurations(good):
    assert data.parse_conflist("template x.j2", good) == good


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (
            conflist({"type": "bandwidth", "ingressRate": "1000", "ingressBurst": 1000}),
            r"plugins\[1\]\.ingressRate: 1000: is not what the plugin reads\. Write 1000",
        ),
        (conflist({"type": "bandwidth", "ingressRate": 1000}), r"plugins\[1\]\.ingressRate: 1000: is given without ingressBurst"),
        (conflist({"type": "portmap", "snat": "true"}), r"plugins\[1\]\.snat: true: is not what the plugin reads\. Write true"),
        (conflist({"type": "portmap", "capabilities": {"portMappings": 1}}), r"plugins\[1\]\.capabilities\.portMappings: 1: is not a boolean"),
        (conflist({"type": "tuning", "sysctl": {"net.core.somaxconn": 5}}), r'plugins\[1\]\.sysctl: .*Write {"net.core.somaxconn": "5"}'),
        (conflist({"type": "tuning", "mac": "02:00:00:00:00:AB"}), r'plugins\[1\]\.mac: .*Write "02:00:00:00:00:ab"'),
        (conflist({"type": "firewall", "ingressPolicy": "isolated"}), r"plugins\[1\]\.ingressPolicy: isolated: works with the plugin bridge only"),
        (conflist({"type": "firewall"}, cniVersion="0.3.1"), r"cniVersion: 0\.3\.1: is older than what the plugin firewall speaks.*'0\.4\.0'"),
        (conflist({"type": "firewall"}, cniVersions=["0.3.1", "1.0.0"]), r"cniVersion: 0\.3\.1: is older than what the plugin firewall speaks"),
        (conflist(cniVersion="0.2.0"), r"cniVersion: 0\.2\.0: has no lists of plugins.*'0\.3\.0'"),
        (conflist(cniVersions=["one"]), "cniVersion: one: is not a version"),
        (conflist(cniVersions="1.0"), "cniVersion: 1.0: is not a version"),
        (conflist(disableCheck=1), "disableCheck: 1: is not a boolean"),
        (conflist(disableCheck=True, cniVersion="0.3.1"), r"cniVersion: 0\.3\.1: has no disableCheck.*'0\.4\.0'"),
        (conflist(disableGC=True), r"cniVersion: 1\.0\.0: has no disableGC.*'1\.1\.0'"),
    ],
)
def test_what_is_wrong_in_a_finished_configuration(bad, problem):
    with pytest.raises(KindnetError, match="^template x.j2: " + problem):
        data.parse_conflist("template x.j2", bad)


def test_the_order_of_use_is_that_of_the_plugins_and_not_of_the_options():
    variables = data.template_variables(["10.244.0.0/24"], None, "kindnet", "1.0.0", {k: {} for k in ("sbr", "firewall", "portmap", "bandwidth", "tuning")})
    assert [plugin["type"] for plugin in variables["chained"]] == ["tuning", "bandwidth", "firewall", "sbr", "portmap"]


@pytest.mark.parametrize(
    ("version", "options", "problem"),
    [
        ("0.3.1", {"firewall": {}}, r"^cni_version: 0\.3\.1: is older than what the plugin firewall speaks.*kindnet_cni_version.*'0\.4\.0'"),
        ("0.2.0", {}, r"^cni_version: 0\.2\.0: has no lists of plugins"),
    ],
)
def test_versions_that_a_plugin_does_not_speak(version, options, problem):
    with pytest.raises(KindnetError, match=problem):
        data.template_variables(["10.244.0.0/24"], None, "kindnet", version, options)


@pytest.mark.parametrize(
    ("rate", "burst", "mtu", "refused"),
    [
        (8000000, 8 * 1515, 1500, False),
        (8000000, 8 * 1514, 1500, True),
        (8000000, 8 * 1513, None, True),
        (8000000, 8 * 1513, 1400, False),
        # what is less than a microsecond of the rate, or a tick, counts nothing
        (10**10, 8 * 2499, 1500, True),
        (10**10, 8 * 2500, 1500, False),
    ],
)
def test_bursts_that_hold_no_packet(rate, burst, mtu, refused):
    conf = conflist({"type": "bandwidth", "egressRate": rate, "egressBurst": burst})
    if not refused:
        fields.refuse_small_bursts(conf, mtu)
        return
    with pytest.raises(KindnetError, match=r"^bandwidth\.egressBurst: %d: is less than one packet of 1514 bytes" % burst) as e:
        fields.refuse_small_bursts(conf, mtu)
    least = int(e.value.remedy.split()[3])
    fields.refuse_small_bursts(conflist({"type": "bandwidth", "egressRate": rate, "egressBurst": least}), mtu)


def test_a_plugin_with_options_has_to_be_in_what_a_template_makes():
    made = conflist({"type": "portmap"})
    data.refuse_unused("template x.j2", {"portmap": {"snat": True}, "ranges": []}, made)
    data.refuse_unused("template x.j2", {"portmap": {}}, conflist())
    for kind, given in (("bandwidth", {}), ("portmap", {"snat": True})):
        with pytest.raises(KindnetError, match="^%s: .*is not in what template x.j2 makes.*chained" % kind):
            data.refuse_unused("template x.j2", {kind: given}, conflist())
