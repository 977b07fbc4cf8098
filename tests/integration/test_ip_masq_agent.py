# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_masq by Ansible itself, with a file of ip-masq-agent on the controller. The oracle is iptables-save and desired.json."""

from __future__ import annotations

import json
import os

import pytest
from reconcile_sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

CIDRS = ["10.244.0.0/16", "fd00:10:244::/56"]


@pytest.fixture
def host(tmp_path):
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


def masq(host, *flags, **options):
    return host.module(*flags, name="kindnet.host.kindnet_masq", **dict({"cluster_cidrs": CIDRS, "backend": "iptables-nft"}, **options))


def spared(host):
    """The destinations that our chains spare, in their order."""
    lines = (host.sh("iptables-nft-save") + host.sh("ip6tables-nft-save")).splitlines()
    return [line.split()[3] for line in lines if line.startswith("-A KIND-MASQ-AGENT -d ")]


def test_without_a_file_the_module_is_run_as_ever(host):
    assert masq(host, "--check")["changed"] is True
    assert not host.exists("/etc/kindnet/desired.json")
    assert masq(host)["changed"] is True
    assert spared(host) == CIDRS
    assert masq(host, "-B", "60", "-P", "1")["changed"] is False


def test_a_file_is_what_the_agent_would_do_with_it(host):
    host.write("/etc/agent/config", "nonMasqueradeCIDRs: [10.96.0.0/12, 172.16.0.0/12]\nmasqLinkLocalIPv6: true\nresyncInterval: 60s\n")
    options = {"ip_masq_agent_config": "/etc/agent/config", "non_masquerade_cidrs": ["192.0.2.0/24", "10.96.0.0/12"]}
    assert masq(host, "--check", **options)["changed"] is True
    done = masq(host, **options)
    assert "resyncInterval has no effect" in done["notes"][0]
    assert sorted(spared(host)) == sorted([*CIDRS, "192.0.2.0/24", "10.96.0.0/12", "172.16.0.0/12", "169.254.0.0/16"])
    assert "agent" not in json.dumps(json.loads(host.read("/etc/kindnet/desired.json"))["sections"]["masq"]).replace("KIND-MASQ-AGENT", "")
    assert masq(host, **options)["changed"] is False
    host.write("/etc/agent/config", "nonMasqueradeCIDRs: []\nmasqLinkLocal: true\nmasqLinkLocalIPv6: true\n")
    assert masq(host, ip_masq_agent_config="/etc/agent/config")["changed"] is True
    assert spared(host) == CIDRS


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("nonMasqueradeCIDRs: [10.0.0.1/8]\n", {}, "ip_masq_agent_config /etc/agent/config: nonMasqueradeCIDRs: '10.0.0.1/8': has host bits set"),
        ("nonMasqueradeCIDRs: []\nmasqLinkLocal: false\n", {"masquerade_link_local": True}, "masquerade_link_local: True: is not what ip_masq_agent_config"),
        (None, {}, "/etc/agent/config"),
    ],
)
def test_a_bad_file_changes_nothing(host, text, options, said):
    if text is not None:
        host.write("/etc/agent/config", text)
    done = masq(host, expect=2, ip_masq_agent_config="/etc/agent/config", **options)
    assert said in done["msg"]
    assert done["msg"].startswith("localhost: ")
    assert not host.exists("/etc/kindnet")
    assert spared(host) == []
