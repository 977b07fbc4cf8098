# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_verify as root in namespaces of its own, where one thing after another is made wrong with the host's own commands."""

from __future__ import annotations

__metaclass__ = type

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PRELUDE = """
import json, os, subprocess, sys
def sh(command):
    subprocess.run(command, shell=True, check=True)
sh("mount -t tmpfs none /usr/local/sbin && mount -t tmpfs none /run")
sh("ip link set lo up && ip link add name eth0 type veth peer name lan && ip link set eth0 up && ip link set lan up")
sh("ip address add 172.18.0.2/16 dev eth0 && ip address add fd00::2/64 dev eth0 nodad")
sh("ip route add 10.244.1.0/24 via 172.18.0.3 && ip -6 route add fd00:10:244:1::/64 via fd00::3")
sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
def reconcile(text, code):
    with open("/usr/local/sbin/kindnet-reconcile", "w") as f:
        f.write("#!/bin/sh\\necho '%s'\\nexit %d\\n" % (text, code))
    os.chmod("/usr/local/sbin/kindnet-reconcile", 0o755)
# What the host's timer does is another test's; here there is none.
sh("printf '#!/bin/sh\\nexit 0\\n' >/usr/local/sbin/systemctl && chmod +x /usr/local/sbin/systemctl")
reconcile('{"changes": [], "problems": [], "notes": []}', 0)
CODE = '''
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kindnet.host.plugins.modules import kindnet_verify
with patch_module_args(json.loads(sys.argv[1])):
    kindnet_verify.main()
'''
NODES = [
    {"name": "a", "node_ips": ["172.18.0.2", "fd00::2"], "pod_cidrs": ["10.244.0.0/24", "fd00:10:244::/64"]},
    {"name": "b", "node_ips": ["172.18.0.3", "fd00::3"], "pod_cidrs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
]
def verify(**args):
    args = dict({"nodes": json.dumps(NODES), "node_name": "a", "cluster_cidrs": ["10.244.0.0/16", "fd00:10:244::/48"], "ping": False}, **args)
    out = subprocess.run([sys.executable, "-c", CODE, json.dumps(args)], stdout=subprocess.PIPE, check=False).stdout
    return json.loads(out.decode().strip().splitlines()[-1])
def wrong(**args):
    result = verify(**args)
    assert bool(result["problems"]) == bool(result.get("failed")), result
    return {p["subject"]: p["message"] for p in result["problems"]}
"""


def in_namespaces(code):
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        env=dict(os.environ, PYTHONPATH=os.path.abspath(".ansible/collections"), PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_right_host_has_no_problem():
    in_namespaces("""
        result = verify()
        assert not result.get("failed") and result["routes"] == 2 and result["problems"] == [], result
    """)


def test_routes_and_forwarding():
    in_namespaces("""
        sh("ip route replace 10.244.1.0/24 via 172.18.0.9 && ip -6 route del fd00:10:244:1::/64")
        sh("sysctl -qw net.ipv4.ip_forward=0")
        found = wrong()
        assert set(found) == {"forwarding of IPv4", "route to 10.244.1.0/24 of b", "route to fd00:10:244:1::/64 of b"}, found
        assert "via 172.18.0.9" in found["route to 10.244.1.0/24 of b"] and "172.18.0.3" in found["route to 10.244.1.0/24 of b"]
        assert "there is none" in found["route to fd00:10:244:1::/64 of b"]

        sh("ip route replace unreachable 10.244.1.0/24")
        assert "there is none" in wrong()["route to 10.244.1.0/24 of b"]
        sh("ip route replace 10.244.1.0/24 dev eth0")
        assert "on the link" in wrong()["route to 10.244.1.0/24 of b"]
    """)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_a_firewall_that_drops(flavour):
    in_namespaces("TOOL = 'iptables-%s'\n" % flavour + textwrap.dedent("""
        sh(TOOL + " -P FORWARD DROP")
        found = wrong()
        assert set(found) == {"FORWARD of " + TOOL} and "-s 10.244.0.0/16 -j ACCEPT" in found["FORWARD of " + TOOL], found
        sh(TOOL + " -I FORWARD -s 10.244.0.0/16 -j ACCEPT; " + TOOL + " -I FORWARD -d 10.244.0.0/16 -j ACCEPT")
        assert wrong() == {}
    """))


def test_drift_and_a_failing_reconcile():
    in_namespaces("""
        reconcile('{"changes": [{"subject": "route 10.244.1.0/24", "before": "", "after": "via 172.18.0.3", "reason": "missing"}], "paused_seconds": 60}', 2)
        result = verify()
        assert [p["subject"] for p in result["problems"]] == ["route 10.244.1.0/24"] and "absent" in result["msg"], result
        assert "paused" in result["notes"][0]
        reconcile("damaged", 1)
        assert "damaged" in wrong()["kindnet-reconcile --check"]
        os.unlink("/usr/local/sbin/kindnet-reconcile")
        assert "not installed" in wrong()["kindnet-reconcile"]
    """)


def test_a_peer_that_does_not_answer_and_one_that_does():
    in_namespaces("""
        assert set(wrong(ping=True, ping_timeout=1)) == {"node IP 172.18.0.3 of b", "node IP fd00::3 of b"}
        sh("ip address add 172.18.0.3/32 dev lo && ip address add fd00::3/128 dev lo nodad")
        result = verify(ping=True, ping_timeout=1)
        assert result["answering"] == 2, result
    """)


def test_a_host_that_is_not_in_the_table():
    in_namespaces("""
        result = verify(node_name="c")
        assert result["failed"] and result["field"] == "node_name" and "a, b" in result["msg"], result
    """)
