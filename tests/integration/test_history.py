# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes write of themselves: the history of repairs, status.json, and nothing at all when there is nothing to tell. The oracle is ip, and the files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time

import pytest
from reconcile_sandbox import AS_THE_TIMER, COMMAND, Sandbox, without_priorities

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

LIBRARY = "/usr/local/lib/kindnet"
FOLDER = "/var/lib/kindnet/history"
HISTORY, STATUS = FOLDER + "/repairs.jsonl", "/run/kindnet/status.json"
FORWARDING = {"sysctls": [["net/ipv4/ip_forward", "1"]]}
ROUTES = {"node_name": "n0", "peers": [["n1", "10.244.1.0/24", "172.18.0.3"]], "protocol": 107, "table": 254}
# Whoever makes, changes, renames or removes a file changes it or its folder.
SNAPSHOT = "find /run/kindnet /var/lib/kindnet /etc/kindnet /etc/sysctl.d -printf '%p %y %m %U %s %l %T@ %C@\\n' | sort"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    sandbox = Sandbox(tmp_path_factory.mktemp("installed"))
    sandbox.module()
    brought = os.path.dirname(importlib.util.find_spec("pyroute2").origin)
    sandbox.sh(f"mkdir {LIBRARY}/pyroute2; cp -r {brought} {LIBRARY}/pyroute2; rm -rf $(find {LIBRARY}/pyroute2 -name __pycache__)")
    sandbox.sh("ip link add node type veth peer name net; ip link set node up; ip link set net up; ip address add 172.18.0.2/16 dev node")
    yield sandbox
    sandbox.close()


@pytest.fixture
def node(installed):
    """A node in sync, of which nobody remembers anything."""
    installed.desired(sysctl=FORWARDING, routes=ROUTES)
    assert installed.reconcile().returncode == 0
    installed.sh(f"find /run/kindnet {FOLDER} -type f ! -name lock -delete")
    return installed


def history(node):
    return [json.loads(line) for line in node.read(HISTORY).splitlines()]


def status(node):
    return json.loads(node.read(STATUS))


def route(node):
    """What ip says of the route to the peer, as we would: by way of whom, and whose it is."""
    rows = json.loads(node.sh("ip -N -json route show 10.244.1.0/24") or "[]")
    return ["via %s dev %s" % (r["gateway"], r["dev"]) + (" proto " + r["protocol"]) for r in rows]


def turn_off(node):
    node.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")


def forwarding(node):
    return node.read("/proc/sys/net/ipv4/ip_forward").strip()


DAMAGE = {
    "deleted": ("ip route del 10.244.1.0/24", "add"),
    "other next hop": ("ip route replace 10.244.1.0/24 via 172.18.0.9 proto 107", "replace"),
    "of nobody": ("ip route add 10.244.9.0/24 via 172.18.0.9 proto 107", "remove"),
}


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_an_entry_says_what_ip_saw_before_and_after(node, damage, by_hand):
    command, action = DAMAGE[damage]
    place = "10.244.9.0/24" if action == "remove" else "10.244.1.0/24"
    show = "ip -json -N route show %s" % place
    node.sh(command)
    before, began = json.loads(node.sh(show) or "[]"), int(time.time())
    assert node.reconcile(by_hand=by_hand).returncode == 0
    after = json.loads(node.sh(show) or "[]")
    (entry,) = history(node)
    assert (entry["section"], entry["subject"], entry["action"]) == ("routes", "route " + place, action) and entry["reason"]
    for said, seen in ((entry["before"], before), (entry["after"], after)):
        assert (said == "") == (seen == [])
        for found in seen:
            assert "via %s " % found["gateway"] in said and said.endswith("proto %s" % found["protocol"]), (said, found)
    at = time.mktime(time.strptime(entry["at"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert began <= at <= time.time()
    told = status(node)
    assert told["repairs"] == {"routes": 1} and told["last_repair"] == entry and told["at"] == told["since"]


def test_clean_passes_write_nothing(node):
    before = node.sh(SNAPSHOT)
    for by_hand in (False, True, False):
        assert node.reconcile(by_hand=by_hand).returncode == 0
    assert node.sh(SNAPSHOT) == before and not node.exists(STATUS) and not node.exists(HISTORY)
    turn_off(node)
    assert node.reconcile().returncode == 0
    before = node.sh(SNAPSHOT)
    assert STATUS in before and HISTORY in before
    for by_hand in (False, True, False):
        assert node.reconcile(by_hand=by_hand).returncode == 0
    assert node.sh(SNAPSHOT) == before
    node.reconcile("--pause", "1h")
    turn_off(node)
    before = node.sh(SNAPSHOT)
    assert node.reconcile().returncode == 0 and node.sh(SNAPSHOT) == before and forwarding(node) == "0"
    node.reconcile("--resume")


def test_a_problem_that_lasts_is_told_once_and_its_end_too(node):
    node.desired(sysctl=FORWARDING, routes=ROUTES, other={})
    assert node.reconcile().returncode == 1
    (problem,) = status(node)["problems"]
    assert problem["section"] == "other" and "section other" in problem["subject"] and problem["since"] == status(node)["at"]
    assert status(node)["failures"] == 1
    before = node.sh(SNAPSHOT)
    assert node.reconcile().returncode == 1
    assert node.sh(SNAPSHOT) == before
    node.desired(sysctl=FORWARDING, routes=ROUTES)
    assert node.reconcile().returncode == 0
    assert (status(node)["problems"], status(node)["failures"], status(node)["repairs"]) == ([], 1, {}) and not node.exists(HISTORY)


def test_status_tells_the_last_repairs_and_all_of_them_to_a_program(node):
    assert "repaired:   nothing since boot" in node.reconcile("--status").stdout
    for _again in range(7):
        turn_off(node)
        assert node.reconcile().returncode == 0
    lines = node.reconcile("--status").stdout.splitlines()
    at = lines.index("repaired:   sysctl 7 since boot")
    said = ["            %s replace sysctl net.ipv4.ip_forward: 0 -> 1 (routing between pods needs it)" % e["at"] for e in history(node)[-5:]]
    assert lines[at + 1 : at + 6] == said and len(lines) == at + 6
    told = json.loads(node.reconcile("--status", "--json").stdout)
    assert told["history"] == history(node) and len(told["history"]) == 7
    assert told["counters"] == {"since": told["history"][0]["at"], "repairs": {"sysctl": 7}, "failures": 0} and told["history_error"] is None
    nobody = node.run("setpriv", "--reuid=65534", "--clear-groups", COMMAND, "--status", "--json", check=False)
    assert json.loads(nobody.stdout)["history"] == told["history"]


NO_ROOM = {
    # one page, and somebody has it
    "full": (f"mount -t tmpfs -o size=4k none {FOLDER}; echo theirs >{FOLDER}/theirs", "No space left on device"),
    "read-only": (f"mount --bind {FOLDER} {FOLDER}; mount -o remount,ro,bind {FOLDER}", "Read-only file system"),
    "no folder": (f"mount -t tmpfs none {FOLDER}; mkdir {HISTORY}", "Is a directory"),
}


@pytest.mark.parametrize("trouble", NO_ROOM)
def test_no_room_for_the_history_costs_no_repair(node, trouble):
    command, why = NO_ROOM[trouble]
    node.sh(command)
    try:
        for _again in range(2):
            turn_off(node)
            node.sh("ip route del 10.244.1.0/24")
            done = node.reconcile()
            assert (done.returncode, forwarding(node), route(node)) == (0, "1", ["via 172.18.0.3 dev node proto 107"])
            assert len(done.stdout.splitlines()) == 2
            (line,) = done.stderr.splitlines()
            assert line.startswith("problem: %s: %s: cannot be written. " % (HISTORY, why)), line
        assert status(node)["repairs"] == {"sysctl": 2, "routes": 2} and why in status(node)["history_error"]
        assert "note:       %s" % HISTORY in node.reconcile("--status").stdout
        assert (node.reconcile().stderr, node.reconcile().returncode) == ("", 0)
    finally:
        node.sh("umount %s" % FOLDER)
    turn_off(node)
    done = node.reconcile()
    assert (done.returncode, done.stderr, status(node)["history_error"], len(history(node))) == (0, "", "", 1)


def test_a_disk_that_fills_up_in_the_middle_of_a_line_loses_that_line_alone(node):
    node.sh(f"mount -t tmpfs -o size=8k none {FOLDER}")
    try:
        fill = 4096 - 100
        node.sh(f"head -c {fill - 1} /dev/zero | tr '\\0' x >{HISTORY}; echo >>{HISTORY}; head -c 4096 /dev/zero >{FOLDER}/theirs")
        turn_off(node)
        done = node.reconcile()
        assert (done.returncode, forwarding(node)) == (0, "1") and "No space left" in done.stderr
        assert node.sh(f"stat -c %s {HISTORY}").strip() == str(fill)
        node.sh(f"rm {FOLDER}/theirs")
        turn_off(node)
        assert node.reconcile().stderr == ""
        assert [json.loads(line)["section"] for line in node.read(HISTORY).splitlines()[1:]] == ["sysctl"]
    finally:
        node.sh("umount %s" % FOLDER)


# Runs a pass by the code that is installed, and kills it in the middle of what it writes.
KILLED = """
import os, sys
sys.path.insert(0, os.path.realpath("/usr/local/lib/kindnet/current"))
from kindnet_host import _files, _history, _reconcile
def write(fd, content, whole=os.write):
    if os.readlink("/proc/self/fd/%d" % fd).startswith(sys.argv[1]):
        whole(fd, content[: int(len(content) * float(sys.argv[2]))])
        os.kill(os.getpid(), 9)
    return whole(fd, content)
os.write = write
_history.BOUND = int(sys.argv[3])
_reconcile.main()
"""


@pytest.mark.parametrize("share", ["0", "0.5", "1"])
@pytest.mark.parametrize("place", ["appended", "trimmed", "status"])
def test_killed_in_the_middle_of_what_it_writes(node, place, share):
    for _again in range(4):
        turn_off(node)
        assert node.reconcile().returncode == 0
    before = history(node)
    turn_off(node)
    path = STATUS.replace("status.json", ".status.json") if place == "status" else FOLDER
    bound = len(node.read(HISTORY)) + 10 if place == "trimmed" else 1 << 18
    killed = node.run("/usr/bin/python3", "-IB", "-c", KILLED, path, share, str(bound), check=False)
    assert killed.returncode == -9 and forwarding(node) == "1"
    lines = node.read(HISTORY).splitlines()
    assert [json.loads(line) for line in lines[:4]] == before
    known = json.loads(node.reconcile("--status", "--json").stdout)
    assert known["history"][:4] == before and known["counters"]["repairs"] == {"sysctl": 4}
    turn_off(node)
    done = node.reconcile()
    assert (done.returncode, done.stderr) == (0, "")
    known = json.loads(node.reconcile("--status", "--json").stdout)
    assert len(known["history"]) == 5 + (share == "1" and place == "appended" or place == "status") and known["counters"]["repairs"] == {"sysctl": 5}


def test_many_repairs_at_once_are_one_entry_each_up_to_a_bound(node):
    peers = [["n%d" % n, "10.%d.%d.0/24" % (100 + n // 256, n % 256), "172.18.0.3"] for n in range(600)]
    node.desired(routes=dict(ROUTES, peers=peers))
    assert node.reconcile().returncode == 0
    made = history(node)
    adds = [e for e in made if e["action"] == "add"]
    assert len(adds) == 51 and adds[-1]["subject"] == "550 more" and status(node)["repairs"] == {"routes": 601}
    assert int(node.sh(f"stat -c %s {HISTORY}")) < 20_000


def test_a_pass_that_is_ended_records_what_it_repaired(node):
    """systemd ends one that takes too long, here because iptables hangs."""
    masq = {"cluster_cidrs": ["10.244.0.0/16"], "chain": "KIND-MASQ-AGENT", "lock_wait": 60, "backend": "iptables-nft"}
    node.desired(sysctl=FORWARDING, masq=masq)
    tool = os.path.realpath("/usr/sbin/iptables-nft")
    node.write("/run/hangs", "#!/bin/sh\necho >/run/hung\nexec sleep 600\n")
    node.sh("rm -f /run/hung; chmod 0755 /run/hangs; mount --bind /run/hangs %s" % tool)
    turn_off(node)
    passing = subprocess.Popen(node.command(*AS_THE_TIMER), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not node.exists("/run/hung"):
            assert passing.poll() is None
        passing.terminate()
        said = without_priorities(passing.communicate(timeout=60)[1])
    finally:
        node.sh("umount %s" % tool)
    assert passing.returncode == 1 and "was ended from outside" in said
    assert [e["section"] for e in history(node)] == ["sysctl"] and status(node)["repairs"] == {"sysctl": 1}
    assert [p["section"] for p in status(node)["problems"]] == ["masq"]


# Runs a pass by the code that is installed, which stops for a while between reading status.json and writing it.
SLOW = """
import os, sys, time
sys.path.insert(0, os.path.realpath("/usr/local/lib/kindnet/current"))
from kindnet_host import _reconcile, _status_file
def updated(*arguments, whole=_status_file.updated):
    open("/run/inside", "w")
    while not os.path.exists("/run/go"):
        time.sleep(0.01)
    return whole(*arguments)
_status_file.updated = updated
_reconcile.main()
"""


def test_two_passes_with_news_at_once_are_both_counted(node):
    node.sh("rm -f /run/inside /run/go")
    turn_off(node)
    first = subprocess.Popen(node.command("/usr/bin/python3", "-IB", "-c", SLOW))
    while not node.exists("/run/inside"):
        assert first.poll() is None
    turn_off(node)
    second = subprocess.Popen(node.command(COMMAND), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while len(history(node)) < 2:
        assert second.poll() is None
    deadline = time.monotonic() + 0.1
    while second.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    node.sh("touch /run/go")
    said = second.communicate(timeout=60)
    assert (first.wait(timeout=60), second.returncode, said[1]) == (0, 0, "")
    assert status(node)["repairs"] == {"sysctl": 2}


def test_it_goes_with_the_rest(node):
    turn_off(node)
    assert node.reconcile().returncode == 0 and node.exists(HISTORY)
    predicted = node.module("--check", state="absent")
    assert node.exists(HISTORY)
    gone = node.module(state="absent")
    assert gone["changes"] == predicted["changes"] and FOLDER in [c["subject"] for c in gone["changes"]]
    assert not node.exists("/var/lib/kindnet") and not node.exists("/run/kindnet")
    assert not node.module(state="absent")["changed"]
    node.module()
    assert node.exists(FOLDER)
