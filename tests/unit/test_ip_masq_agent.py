# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a configuration file of ip-masq-agent comes to. The files are such as clusters have: GKE's guide, a ConfigMap of a cloud, JSON by a program."""

from __future__ import annotations

__metaclass__ = type

import pytest
from ansible_collections.kindnet.host.plugins.action.kindnet_masq import merged
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils._ip_masq_agent import options_of

GUIDE = """\
nonMasqueradeCIDRs:
  - 10.16.0.0/12
  - 192.168.64.0/20
masqLinkLocal: false
resyncInterval: 60s
"""
BOTH_FAMILIES = '{\n\t"nonMasqueradeCIDRs": ["10.0.0.0/8", "fc00::/7"],\n\t"masqLinkLocal": true,\n\t"masqLinkLocalIPv6": true,\n\t"cidrLimit": 2\n}\n'
ANY_CASE = '{"NonMasqueradeCIDRs":["172.20.0.0/16"],"MasqLinkLocal":true,"ResyncInterval":"1m0s"}'


@pytest.mark.parametrize(
    ("text", "cidrs", "link_local", "link_local_ipv6", "notes"),
    [
        (GUIDE, ["10.16.0.0/12", "192.168.64.0/20"], False, None, 1),
        (BOTH_FAMILIES, ["10.0.0.0/8", "fc00::/7"], True, True, 0),
        (ANY_CASE, ["172.20.0.0/16"], True, None, 1),
        ("nonMasqueradeCIDRs: []", [], None, None, 0),
        ("nonMasqueradeCIDRs:\nmasqLinkLocal: yes\nmasqLinkLocalIPv6: null\ncidrLimit:\n", [], True, None, 0),
        ("nonMasqueradeCIDRs: [0.0.0.0/0, FC00:0::/7, 0.0.0.0/0, 'fc00::/7']", ["0.0.0.0/0", "fc00::/7"], None, None, 0),
        ("nonMasqueradeCIDRs: [%s]" % ", ".join("10.%d.0.0/16" % n for n in range(64)), ["10.%d.0.0/16" % n for n in range(64)], None, None, 0),
        ("cidrLimit: 65\nnonMasqueradeCIDRs: [%s]" % ", ".join("10.%d.0.0/16" % n for n in range(65)), ["10.%d.0.0/16" % n for n in range(65)], None, None, 0),
    ],
)
def test_files(text, cidrs, link_local, link_local_ipv6, notes):
    """What the file does not say of link-local is what the agent takes it for: not masqueraded."""
    agent = options_of(text)
    switches = {"masquerade_link_local": link_local, "masquerade_link_local_ipv6": link_local_ipv6}
    assert agent.options == dict({k: v for k, v in switches.items() if v is not None}, non_masquerade_cidrs=cidrs)
    assert agent.defaults == {k: False for k, v in switches.items() if v is None}
    assert len(agent.notes) == notes
    assert all("resyncInterval has no effect" in note for note in agent.notes)


@pytest.mark.parametrize("interval", ["60s", "1m0s", "5m", "1h15m30.5s", "0", "-1.5h", "300ms", "1.s", ".5s", "2\u00b5s"])
def test_intervals(interval):
    assert len(options_of("nonMasqueradeCIDRs: []\nresyncInterval: '%s'" % interval).notes) == 1


LISTED = "nonMasqueradeCIDRs: [10.0.0.0/8]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["nonMasqueradeCIDRs", "is not in the file", "[10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]"]),
        ("masqLinkLocal: true\n", ["nonMasqueradeCIDRs", "is not in the file"]),
        ("nonMasqueradeCIDR: [10.0.0.0/8]\n", ["nonMasqueradeCIDR: ", "is no key", "It knows nonMasqueradeCIDRs, "]),
        (LISTED + "NONMASQUERADECIDRS: []\n", ["NONMASQUERADECIDRS", "is there twice"]),
        ("nonMasqueradeCIDRs: [10.0.0.1/8]", ["'10.0.0.1/8'", "has host bits set", "Write 10.0.0.0/8."]),
        ("nonMasqueradeCIDRs: [10.256.0.0/16]", ["'10.256.0.0/16'", "is not a network"]),
        ("nonMasqueradeCIDRs: [10.0.0.0]", ["'10.0.0.0'", "is not a network", "ADDRESS/PREFIX"]),
        ("nonMasqueradeCIDRs: [10.0.0.0/255.0.0.0]", ["is not a network"]),
        ("nonMasqueradeCIDRs: ['fe80::1%eth0/64']", ["is not a network"]),
        ("nonMasqueradeCIDRs: [abcdefg]", ["'abcdefg'", "is not a network"]),
        ("nonMasqueradeCIDRs: [10]", ["nonMasqueradeCIDRs: 10: ", "is not a network"]),
        ("nonMasqueradeCIDRs: 10.0.0.0/8", ["'10.0.0.0/8'", "is not a list"]),
        ("nonMasqueradeCIDRs: ''", ["''", "is not a list"]),
        ("nonMasqueradeCIDRs: [%s]" % ", ".join("10.%d.0.0/16" % n for n in range(65)), ["65 networks", "cidrLimit allows, which is 64"]),
        ("cidrLimit: 0\n" + LISTED, ["1 networks", "which is 0"]),
        ("cidrLimit: '64'\n" + LISTED, ["cidrLimit: '64'", "is not a whole number"]),
        ("cidrLimit: true\n" + LISTED, ["cidrLimit: True", "is not a whole number"]),
        (LISTED + "masqLinkLocal: 'true'\n", ["masqLinkLocal: 'true'", "is neither true nor false"]),
        (LISTED + "masqLinkLocalIPv6: 1\n", ["masqLinkLocalIPv6: 1", "is neither true nor false"]),
        (LISTED + "resyncInterval: 60\n", ["resyncInterval: 60: ", "is not a duration"]),
        (LISTED + "resyncInterval: 1 m\n", ["resyncInterval: '1 m': ", "is not a duration"]),
        (LISTED + "resyncInterval:\n", ["resyncInterval: None: ", "is not a duration"]),
        ("*", ["line 1", "is neither YAML nor JSON"]),
        ("{*", ["is neither YAML nor JSON"]),
        ("a: 2001-99-99", ["is neither YAML nor JSON"]),
        ("- 10.0.0.0/8\n", ["['10.0.0.0/8']", "is not a mapping"]),
        ("10.0.0.0/8\n", ["'10.0.0.0/8'", "is not a mapping"]),
    ],
)
def test_refusals_name_the_key_the_value_and_the_remedy(text, said):
    with pytest.raises(KindnetError) as caught:
        options_of(text, "ip_masq_agent_config agent.yml")
    assert str(caught.value).startswith("ip_masq_agent_config agent.yml: ")
    assert all(part in str(caught.value) for part in said), str(caught.value)


@pytest.mark.parametrize("given", [["10.96.0.0/12", "10.16.0.0/12"], "10.96.0.0/12,10.16.0.0/12"])
def test_cidrs_of_the_task_stand_first_and_each_once(given):
    options, notes = merged({"cluster_cidrs": ["10.244.0.0/16"], "non_masquerade_cidrs": given}, GUIDE, "agent.yml")
    assert options == {
        "cluster_cidrs": ["10.244.0.0/16"],
        "non_masquerade_cidrs": ["10.96.0.0/12", "10.16.0.0/12", "192.168.64.0/20"],
        "masquerade_link_local": False,
        "masquerade_link_local_ipv6": False,
    }
    assert notes == ["ip_masq_agent_config agent.yml: resyncInterval has no effect: kindnet-reconcile looks after the rules every 10 s"]


def test_what_the_file_leaves_to_the_agent_the_task_may_say():
    assert merged({"masquerade_link_local_ipv6": True}, GUIDE, "a")[0]["masquerade_link_local_ipv6"] is True
    assert merged({"masquerade_link_local_ipv6": None}, GUIDE, "a")[0]["masquerade_link_local_ipv6"] is False
    assert merged({"masquerade_link_local": "no"}, GUIDE, "a")[0]["masquerade_link_local"] is False


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"masquerade_link_local": "yes"}, "masquerade_link_local: yes: is not what ip_masq_agent_config a.yml says, which is false. "),
        ({"masquerade_link_local": "perhaps"}, "masquerade_link_local: perhaps: "),
        ({"non_masquerade_cidrs": {"a": 1}}, "non_masquerade_cidrs: {'a': 1}: "),
    ],
)
def test_what_task_and_file_disagree_about_is_refused(args, said):
    with pytest.raises(KindnetError) as caught:
        merged(args, GUIDE, "a.yml")
    assert str(caught.value).startswith(said)
