# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""iptables or nft does not end and is killed: what it did is looked at, not guessed.

On a busy kernel the real ones stand still in close(2) after their transaction, which cannot be brought about; these do so in sleep(1).
"""

from __future__ import annotations

import json
import os
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CIDR = "10.244.0.0/16"
# With 5 s for a program, of which a module gives 21 at least.
RUN = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kindnet.host.plugins.module_utils import _firewall, _nftables
_firewall.SPARE_TIME, _nftables.SPARE_TIME = 4, 5
module = importlib.import_module("ansible_collections.kindnet.host.plugins.modules." + sys.argv[1])
with patch_module_args(json.loads(sys.argv[2])):
    module.main()
"""
# What writes rules stands still, once there is /run/hang, which says when.
SLOW = """
case "$*" in *--file*|*--noflush*) ;; *) exec $REAL "$@" ;; esac
case "$(cat /run/hang)" in
  before) exec sleep 600 ;;
  after) $REAL "$@"; exec sleep 600 ;;
esac
exec $REAL "$@"
"""
RIGHT, NOTHING = (["return", "masquerade"], 1), ([], 0)


@pytest.fixture
def slow(sandbox, backend):
    if backend == "nftables":
        sandbox.run("cp /usr/sbin/nft /run/real-nft; : >/run/hang")
        sandbox.replace_tool("nft", "REAL=/run/real-nft" + SLOW)
    else:
        sandbox.run(": >/run/hang")
        sandbox.replace_tool(backend + "-restore", SLOW)
    return sandbox


def module(sandbox, name, hang, **options):
    sandbox.run("echo %s >/run/hang" % hang)
    options = dict({"cluster_cidrs": [CIDR], "lock_wait": 1}, **options)
    done = sandbox.run([sys.executable, "-c", RUN, name, json.dumps(options)], check=False, env=sandbox.module_env())
    return json.loads(done.stdout.splitlines()[-1])


def masq(sandbox, backend, hang="", **options):
    return module(sandbox, "kindnet_masq", hang, backend=backend, **options)


def rules(sandbox, backend):
    """What the rules of our chain come to, and how many lead there."""
    if backend == "nftables":
        lines = [line.strip() for line in sandbox.run("/run/real-nft list table inet kindnet", check=False).stdout.splitlines()]
        return [word for line in lines for word in ("return", "masquerade") if word in line.split()], sum("jump KIND-MASQ-AGENT" in line for line in lines)
    lines = sandbox.out([backend + "-save", "-t", "nat"]).splitlines()
    own = [line.split(" -j ")[1].lower() for line in lines if line.startswith("-A KIND-MASQ-AGENT ")]
    return own, sum(line.endswith("-j KIND-MASQ-AGENT") for line in lines)


def test_what_it_had_done_is_done(slow, backend):
    for options, expected in (({}, RIGHT), ({"state": "absent"}, NOTHING)):
        result = masq(slow, backend, "after", **options)
        assert not result.get("failed") and result["changed"] and result["problems"] == [], result
        assert rules(slow, backend) == expected
        assert masq(slow, backend, **options)["changed"] is False


def test_what_it_had_not_done_is_a_failure(slow, backend):
    result = masq(slow, backend, "before")
    assert result["failed"] and "5 s and was killed" in result["msg"], result
    assert rules(slow, backend) == NOTHING
    assert masq(slow, backend)["changed"] and rules(slow, backend) == RIGHT
    result = masq(slow, backend, "before", state="absent")
    assert result["failed"] and rules(slow, backend) == RIGHT, result


def test_rules_for_forwarding_likewise(sandbox):
    sandbox.run("iptables-nft -P FORWARD DROP; : >/run/hang")
    sandbox.replace_tool("iptables-nft-restore", SLOW)
    for hang, options, count in (("before", {}, 0), ("after", {}, 2), ("before", {"state": "absent"}, 2), ("after", {"state": "absent"}, 0)):
        result = module(sandbox, "kindnet_neighbours", hang, **options)
        assert bool(result.get("failed")) is (hang == "before") and result["changed"], result
        assert sandbox.out("iptables-nft-save -t filter").count("kindnet.host: ") == count
        assert hang == "before" or module(sandbox, "kindnet_neighbours", "", **options)["changed"] is False
