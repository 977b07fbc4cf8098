# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet-reconcile installed by its module and run as root, in namespaces. The oracle is the kernel, the files and what it prints."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from reconcile_sandbox import AS_THE_TIMER, Sandbox, copy_collection, without_priorities

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

LIBRARY = "/usr/local/lib/kindnet"
COMMAND = "/usr/local/sbin/kindnet-reconcile"
UNITS = "/etc/systemd/system"
TIMER = "kindnet-reconcile.timer"
FORWARDING = {"sysctls": [["net/ipv4/ip_forward", "1"]]}
SNAPSHOT = (
    "find /etc/kindnet /run/kindnet /var/lib/kindnet /etc/systemd /etc/tmpfiles.d /etc/iproute2 /etc/sysctl.d /usr/local /run/systemctl.json"
    " -printf '%p %y %m %U %l %T@ %C@\\n' 2>/dev/null | sort || true"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    sandbox = Sandbox(tmp_path_factory.mktemp("pristine"))
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    sandbox = Sandbox(tmp_path_factory.mktemp("installed"))
    sandbox.module()
    yield sandbox
    sandbox.close()


@pytest.fixture
def node(installed):
    """A converged node that keeps forwarding on, with nothing remembered."""
    installed.sh("rm -rf /run/kindnet/* /etc/kindnet")
    installed.desired(sysctl=FORWARDING)
    assert installed.reconcile().returncode == 0
    return installed


# Runs the module itself, without the seconds that Ansible needs around it.
ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kindnet.host.plugins.action.kindnet_reconcile import render
from ansible_collections.kindnet.host.plugins.module_utils._installation import OPTIONS
from ansible_collections.kindnet.host.plugins.modules import kindnet_reconcile
options = {name: option["default"] for name, option in OPTIONS.items() if "default" in option}
with patch_module_args(dict(options, rendered=render(options), **json.loads(sys.argv[2]))):
    kindnet_reconcile.main()
"""


def start_alone(node, root, before="", **options):
    command = node.command("env", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-c", before + ALONE, str(root), json.dumps(options))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def alone(node, root=None, **options):
    done = start_alone(node, root or node.collections, **options)
    said = done.communicate(timeout=60)[0]
    assert done.returncode == 0, said
    return json.loads(said)


def forwarding(node):
    return node.read("/proc/sys/net/ipv4/ip_forward").strip()


def turn_off(node):
    node.sh("echo 0 >/proc/sys/net/ipv4/ip_forward")


def test_check_real_repeat_undo(pristine):
    before = pristine.sh(SNAPSHOT)
    predicted = pristine.module("--check", "--diff")
    assert predicted["changed"] and pristine.sh(SNAPSHOT) == before
    made = pristine.module("--diff")
    assert (made["changes"], made["diff"]) == (predicted["changes"], predicted["diff"])
    converged = pristine.sh(SNAPSHOT)
    for flags in ([], ["--check"]):
        again = pristine.module(*flags)
        assert not again["changed"] and not again["changes"]
    after = [line for line in pristine.sh(SNAPSHOT).splitlines() if " /run/systemctl.json" not in line]
    assert after == converged.splitlines()

    digest = os.path.basename(pristine.sh("readlink -f %s/current" % LIBRARY).strip())
    assert digest == made["digest"]
    for name in pristine.sh("ls %s/current/kindnet_host/*.py" % LIBRARY).split():
        source = pristine.collections / "ansible_collections/kindnet/host/plugins/module_utils" / os.path.basename(name)
        assert pristine.read(name) == (source.read_text() if source.exists() else ""), name
    assert pristine.sh("stat -c '%%a %%U:%%G' %s" % COMMAND) == "755 root:root\n"
    assert not pristine.sh("find %s ! -type l -perm /022; find %s ! -user root" % (LIBRARY, LIBRARY))
    assert pristine.sh("ip -d route show table all proto kindnet") == ""  # the name is known to ip
    assert TIMER in pristine.sh("ls %s/timers.target.wants" % UNITS)
    assert json.loads(pristine.read("/run/systemctl.json"))["active"]

    predicted = pristine.module("--check", state="absent")
    gone = pristine.module(state="absent")
    assert gone["changed"] and gone["changes"] == predicted["changes"]
    assert not pristine.module(state="absent")["changed"]
    left = {line.split()[0] for line in pristine.sh(SNAPSHOT).splitlines()} - {line.split()[0] for line in before.splitlines()}
    assert WATCH not in pristine.read("/run/systemctl.json")
    assert left <= {"/run/systemctl.json", UNITS + "/timers.target.wants"}, left
    assert not json.loads(pristine.read("/run/systemctl.json"))["active"]


PRIORS = [
    # files of others in our places, and folders that are there or not, empty or not
    "echo mine >/usr/local/sbin/kindnet-reconcile; chmod 0700 /usr/local/sbin/kindnet-reconcile; mkdir -p /etc/systemd/system;"
    " ln -sf /dev/null /etc/systemd/system/kindnet-reconcile.timer; rm -rf /etc/iproute2 /etc/tmpfiles.d",
    "rm -rf /etc/iproute2; mkdir -p /etc/iproute2/rt_protos.d /etc/tmpfiles.d; echo 107 other >/etc/iproute2/rt_protos.d/kindnet.conf",
]


@pytest.mark.parametrize("prior", PRIORS)
def test_what_was_there_before_comes_back(pristine, prior):
    state = (
        "for f in /usr/local/sbin /etc/systemd/system /etc/tmpfiles.d /etc/iproute2 /var/lib/kindnet; do [ ! -e $f ] ||"
        " find $f -printf '%p %y %m %U %l\\n' -type f -exec md5sum {} +; done | grep -v timers.target.wants | sort"
    )
    pristine.sh(prior)
    before = pristine.sh(state)
    predicted = pristine.module("--check")
    assert pristine.module()["changes"] == predicted["changes"]
    assert json.loads(pristine.read("/run/systemctl.json"))["active"]
    pristine.sh("rm /usr/local/lib/kindnet/current")  # what is there is ours all the same
    assert [c["subject"] for c in pristine.module()["changes"]] == ["/usr/local/lib/kindnet/current"]
    predicted = pristine.module("--check", state="absent")
    assert pristine.module(state="absent")["changes"] == predicted["changes"]
    assert pristine.sh(state) == before
    assert not pristine.module(state="absent")["changed"] and pristine.sh(state) == before


DRIFT = {
    "stopped": "systemctl stop kindnet-reconcile.timer",
    "disabled": "systemctl disable kindnet-reconcile.timer",
    "masked": "ln -sf /dev/null /etc/systemd/system/kindnet-reconcile.timer; systemctl daemon-reload; systemctl stop kindnet-reconcile.timer",
    "unit edited": "sed -i s/10s/10min/ /etc/systemd/system/kindnet-reconcile.timer",
    "unit edited back without a reload": "cd /etc/systemd/system; cp kindnet-reconcile.service /run/x; echo >>kindnet-reconcile.service;"
    " systemctl daemon-reload; cat /run/x >kindnet-reconcile.service",
    "drop-in": "mkdir -p /etc/systemd/system/kindnet-reconcile.service.d; cd /etc/systemd/system/kindnet-reconcile.service.d;"
    " printf '[Service]\\nExecStart=\\nExecStart=/bin/true\\n' >override.conf",
    "command closed": "chmod 0700 /usr/local/sbin/kindnet-reconcile",
    "command gone": "rm /usr/local/sbin/kindnet-reconcile",
    "code edited": "echo 1/0 >>/usr/local/lib/kindnet/current/kindnet_host/_reconcile.py",
    "code gone": "rm -r $(readlink -f /usr/local/lib/kindnet/current)",
    "code open to others": "chmod -R a+w /usr/local/lib/kindnet/current/",
    "a module put in the way": "echo >/usr/local/lib/kindnet/current/json.py",
    "bytecode gone": "rm -r /usr/local/lib/kindnet/current/kindnet_host/__pycache__",
    "current elsewhere": "ln -sfn /tmp /usr/local/lib/kindnet/current",
    "current gone": "rm /usr/local/lib/kindnet/current",
    "half an installation": "mkdir -p /usr/local/lib/kindnet/0123456789abcdef.tmp/kindnet_host",
    "tmpfiles gone": "rm /etc/tmpfiles.d/kindnet.conf",
    "protocol renamed": "echo 107 other >/etc/iproute2/rt_protos.d/kindnet.conf",
}


@pytest.mark.parametrize("damage", DRIFT)
def test_drift_of_the_installation_is_predicted_and_repaired(node, damage):
    node.sh(DRIFT[damage])
    predicted = alone(node, _ansible_check_mode=True, _ansible_diff=True)
    assert predicted["changed"]
    made = alone(node, _ansible_diff=True)
    assert (made["changes"], made["diff"]) == (predicted["changes"], predicted["diff"])
    assert not alone(node, _ansible_check_mode=True)["changed"]
    turn_off(node)
    done = node.reconcile()
    assert (done.returncode, done.stderr, forwarding(node)) == (0, "", "1")


def test_an_option_that_changes_is_a_change(node):
    changed = node.module("--diff", interval=30, writable_paths=["/srv/cni"])
    assert {c["subject"] for c in changed["changes"]} == {
        UNITS + "/kindnet-reconcile.timer",
        UNITS + "/kindnet-reconcile.service",
        UNITS + "/kindnet-writable-paths.service",
        "/etc/tmpfiles.d/kindnet.conf",
    }
    assert "OnUnitActiveSec=30s" in node.read("%s/%s" % (UNITS, TIMER)) and node.exists("/srv/cni")
    log = json.loads(node.read("/run/systemctl.json"))["log"]
    assert log[-2:] == ["daemon-reload", "restart kindnet-reconcile.timer"]
    assert node.module()["changed"]


WATCH = "kindnet-watch.service"
WATCH_DRIFT = {
    "stopped": "systemctl stop kindnet-watch.service",
    "disabled": "systemctl disable kindnet-watch.service",
    "unit edited": "sed -i s/--watch/--check/ /etc/systemd/system/kindnet-watch.service",
    "unit gone": "rm /etc/systemd/system/kindnet-watch.service",
    "drop-in": "mkdir -p /etc/systemd/system/kindnet-watch.service.d; echo '[Service]' >/etc/systemd/system/kindnet-watch.service.d/x.conf",
}


def changed_as_predicted(node, **options):
    """What a run changed, which is what check mode said, and of which the next one finds nothing to do."""
    before = node.sh(SNAPSHOT)
    predicted = alone(node, _ansible_check_mode=True, _ansible_diff=True, **options)
    assert node.sh(SNAPSHOT) == before
    made = alone(node, _ansible_diff=True, **options)
    assert (made["changes"], made["diff"]) == (predicted["changes"], predicted["diff"])
    assert not alone(node, _ansible_check_mode=True, **options)["changed"]
    return [c["subject"] for c in made["changes"]]


def test_the_watch_comes_and_goes_and_status_tells(node):
    file, boot = "%s/%s" % (UNITS, WATCH), WATCH + " at boot"
    before = node.sh("find /etc/systemd -name '*watch*'")
    assert "watch:      off" in node.reconcile("--status").stdout
    assert changed_as_predicted(node, watch=True) == [file, boot, WATCH]
    log = json.loads(node.read("/run/systemctl.json"))["log"]
    assert log[-3:] == ["daemon-reload", "enable " + WATCH, "restart " + WATCH]
    assert json.loads(node.reconcile("--status", "--json").stdout)["watch"] == {"active": "active", "enabled": "enabled"}
    for name, damage in WATCH_DRIFT.items():
        node.sh(damage)
        if name == "stopped":
            status = node.reconcile("--status")
            assert status.returncode == 1 and "watch:      inactive, enabled" in status.stdout
        assert changed_as_predicted(node, watch=True), name
        log = json.loads(node.read("/run/systemctl.json"))["log"]
        assert log[-1] == ("restart " if name != "disabled" else "enable ") + WATCH, (name, log[-3:])
    node.sh("mkdir -p %s.d; echo >%s.d/x.conf" % (file, file))
    assert changed_as_predicted(node) == [WATCH, boot, file, file + ".d/x.conf"]
    assert node.sh("find /etc/systemd -name '*watch*'") == before
    assert "watch:      off" in node.reconcile("--status").stdout


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"interval": 0}, "localhost: interval: 0: "),
        ({"protocol": 2}, "localhost: protocol: 2: "),
        ({"writable_paths": ["etc"]}, "localhost: writable_paths: etc: "),
        ({"rendered": {}}, "rendered"),
    ],
)
def test_bad_options_change_nothing(node, wrong, said):
    before = node.sh(SNAPSHOT)
    assert said in node.module(expect=1, **wrong)["msg"]
    assert node.sh(SNAPSHOT) == before


def test_another_clusters_host_is_refused(node):
    before = node.sh(SNAPSHOT)
    assert "'kindnet'" in node.module(expect=1, cluster_name="other")["msg"]
    assert node.sh(SNAPSHOT) == before


def test_a_pass_repairs_with_one_line_and_a_clean_one_writes_nothing(node):
    turn_off(node)
    done = node.reconcile()
    assert (done.returncode, done.stderr) == (0, "") and forwarding(node) == "1"
    assert done.stdout.splitlines() == ["replace sysctl net.ipv4.ip_forward: 0 -> 1 (routing between pods needs it)"]
    before = node.sh(SNAPSHOT)
    for _again in range(3):
        done = node.reconcile()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert node.sh(SNAPSHOT) == before


def test_check_tells_drift_and_changes_nothing(node):
    turn_off(node)
    before = node.sh(SNAPSHOT)
    done = node.reconcile("--check", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 2 and forwarding(node) == "0"
    assert [(c["section"], c["before"], c["after"]) for c in told["changes"]] == [("sysctl", "0", "1")]
    done = node.reconcile("--check")
    assert done.returncode == 2 and done.stdout.startswith("replace sysctl net.ipv4.ip_forward: 0 -> 1 ")
    assert node.sh(SNAPSHOT) == before
    assert node.reconcile().returncode == 0
    assert node.reconcile("--check").returncode == 0


BAD_RECORDS = {
    "damaged": ("echo '{' >/etc/kindnet/desired.json", "is damaged"),
    "empty": (": >/etc/kindnet/desired.json", "is damaged"),
    "unknown schema": ("""echo '{"schema": 99}' >/etc/kindnet/desired.json""", "schema 99"),
    "writable by others": ("chmod 0666 /etc/kindnet/desired.json", "may be written by others"),
    "somebody else's": ("chown 1000 /etc/kindnet/desired.json", "may be written by others"),
    "in a folder of somebody else's": ("chown 1000 /etc/kindnet", "may be written by others"),
}


@pytest.mark.parametrize("bad", BAD_RECORDS)
def test_a_record_that_is_not_to_be_trusted_fails_by_name_and_changes_nothing(node, bad):
    command, message = BAD_RECORDS[bad]
    turn_off(node)
    node.sh(command)
    done = node.reconcile()
    assert (done.returncode, done.stdout, forwarding(node)) == (1, "", "0")
    assert len(done.stderr.splitlines()) == 1 and message in done.stderr and "/etc/kindnet" in done.stderr
    again = node.reconcile()
    assert (again.returncode, again.stdout, again.stderr, forwarding(node)) == (1, "", "", "0")
    by_hand = node.reconcile(by_hand=True)
    assert (by_hand.returncode, by_hand.stdout, by_hand.stderr) == (1, "", done.stderr), "a person is told every time"
    assert node.reconcile("--check").returncode == 1
    (told,) = json.loads(node.reconcile("--check", "--json").stdout)["problems"]
    assert message in told["subject"] + told["message"]
    status = node.reconcile("--status")
    assert status.returncode == 1 and message in status.stdout


@pytest.mark.parametrize("path", ["/usr/local/lib/kindnet", "/usr/local/lib/kindnet/current/", *(
    "/usr/local/lib/kindnet/current/kindnet_host" + p for p in ("", "/_sysctl.py", "/__pycache__", "/__pycache__/_sysctl.*.pyc"))])
@pytest.mark.parametrize("command", ["chmod g+w", "chmod o+w", "chown 1000"])
def test_code_that_others_may_write_is_not_run(node, path, command):
    turn_off(node)
    before = node.sh("stat -c '%%a %%u %%n' %s" % path).split()
    node.sh("%s %s" % (command, path))
    try:
        done = node.reconcile()
    finally:
        node.sh("chmod %s %s; chown %s %s" % (before[0], path, before[1], path))
    assert (done.returncode, done.stdout, forwarding(node)) == (1, "", "0")
    assert len(done.stderr.splitlines()) == 1 and "may be written by others than root" in done.stderr
    assert node.reconcile().returncode == 0 and forwarding(node) == "1"


PYROUTE2 = LIBRARY + "/pyroute2"
ROUTES = {"node_name": "n0", "peers": [["n1", "10.244.1.0/24", "172.18.0.3"]], "protocol": 107, "table": 254}


@pytest.fixture
def routed(node):
    """The node with one peer. Its pyroute2 is where the role brings it."""
    brought = os.path.dirname(importlib.util.find_spec("pyroute2").origin)
    node.sh(f"mkdir {PYROUTE2}; cp -r {brought} {PYROUTE2}; rm -rf $(find {PYROUTE2} -name __pycache__)")
    node.sh("ip link add node type veth peer name net; ip link set node up; ip link set net up; ip address add 172.18.0.2/16 dev node")
    node.desired(sysctl=FORWARDING, routes=ROUTES)
    yield node
    node.sh("rm -r %s; ip link del node" % PYROUTE2)


@pytest.mark.parametrize("damage", [
    "chmod o+w {0}", "chown 1000 {0}", "chmod g+w {0}/pyroute2/netlink", "chown 1000 {0}/pyroute2/netlink/__init__.py",
    "chmod o+w {0}/pyroute2/__init__.py", "ln -s /tmp {0}/more", "ln -s /tmp/more.py {0}/pyroute2/more.py",
])
def test_pyroute2_that_others_may_write_is_not_loaded(routed, damage):
    node = routed
    turn_off(node)
    node.sh(f"cp -a {PYROUTE2} /run/pyroute2; echo 'open(\"/run/loaded\", \"w\")' >>{PYROUTE2}/pyroute2/__init__.py; {damage.format(PYROUTE2)}")
    try:
        done = node.reconcile()
        assert done.returncode == 1 and forwarding(node) == "1"
        assert len(done.stderr.splitlines()) == 1 and "pyroute2" in done.stderr and "may be written by others than root" in done.stderr
        assert not node.exists("/run/loaded") and node.sh("ip route show proto kindnet") == ""
    finally:
        node.sh(f"rm -rf {PYROUTE2}; mv /run/pyroute2 {PYROUTE2}")
    assert node.reconcile().returncode == 0 and node.sh("ip route show proto kindnet").startswith("10.244.1.0/24 via 172.18.0.3 dev node ")


def test_without_a_record_nothing_is_done(node):
    turn_off(node)
    node.sh("rm /etc/kindnet/desired.json")
    done = node.reconcile()
    assert (done.returncode, done.stdout, done.stderr, forwarding(node)) == (0, "", "", "0")


def test_a_lock_that_is_held_is_a_named_failure_after_a_bounded_wait(node):
    turn_off(node)
    holder = subprocess.Popen(node.command("flock", "/run/kindnet/lock", "sleep", "60"))
    try:
        while node.run("flock", "-n", "/run/kindnet/lock", "true", check=False).returncode == 0:
            assert holder.poll() is None
        done = node.reconcile()
        assert (done.returncode, forwarding(node)) == (1, "0")
        assert len(done.stderr.splitlines()) == 1 and "/run/kindnet/lock" in done.stderr
    finally:
        node.run("pkill", "-P", str(holder.pid), "sleep", check=False)
        holder.kill()
        holder.wait()
    done = node.reconcile()
    assert (done.returncode, forwarding(node)) == (0, "1") and "resolved: /run/kindnet/lock" in done.stdout


# Longer than any pass may take by itself; the service's own limit, TimeoutStartSec, which must not be needed.
SERVICE_LIMIT = ["timeout", "60"]
CONFLIST = "/etc/cni/net.d/10-kindnet.conflist"
DUAL = {"cluster_cidrs": ["10.244.0.0/16", "fd00:10:244::/56"], "chain": "KIND-MASQ-AGENT", "lock_wait": 60}


@pytest.fixture
def flavoured(node, request):
    """The node with everything that goes through iptables, in one flavour, before what does not; and a problem and the conflist to see to."""
    flavour = request.param
    if flavour == "legacy" and node.run("sh", "-c", "iptables-legacy -t nat -S && ip6tables-legacy -t nat -S", check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    masq = dict(DUAL, backend="iptables-" + flavour, former=[["iptables-nft", "OLD"], ["iptables-legacy", "OLD"]])
    neighbours = {"cluster_cidrs": DUAL["cluster_cidrs"], "lock_wait": 60, "folders": [], "left": [], "files": {}}
    neighbours["forward"] = [["nft", "ipv4"], ["nft", "ipv6"], ["legacy", "ipv4"], ["legacy", "ipv6"]]
    conflist = {"path": CONFLIST, "conflist": {"cniVersion": "0.3.1", "name": "kindnet", "plugins": []}, "former_paths": [], "made_folders": []}
    node.sh("for t in iptables ip6tables; do $t-%s -w 5 -P FORWARD DROP; $t-%s -w 5 -t nat -N OLD || true; done" % (flavour, flavour))
    sysctl = {"sysctls": [["net/ipv4/ip_forward", "1"], ["net/no/such", "1"]]}
    node.desired(sysctl=sysctl, masq=masq, neighbours=neighbours, conflist=conflist)
    node.sh("rm -rf /etc/cni; mkdir -p /etc/cni/net.d")
    yield flavour
    for tool in ("iptables", "ip6tables"):
        node.sh("%s-%s -w 5 -P FORWARD ACCEPT; %s-%s -w 5 -t nat -F; %s-%s -w 5 -t nat -X" % ((tool, flavour) * 3))


@pytest.fixture
def hanging(node, flavoured):
    """Every program of the flavour hangs, and says in /run/hung that it has begun to."""
    node.write("/run/hangs", "#!/bin/sh\necho $$ >/run/hung\nexec sleep 600\n")
    tool = os.path.realpath("/usr/sbin/iptables-%s" % flavoured)
    node.sh("rm -f /run/hung; chmod 0755 /run/hangs; mount --bind /run/hangs %s" % tool)
    yield
    if node.sh("findmnt %s || true" % tool):
        node.sh("umount %s" % tool)


def limited(node):
    """A pass that the timer starts, as long as systemd lets it."""
    done = node.run(*SERVICE_LIMIT, *AS_THE_TIMER, check=False)
    done.stderr = without_priorities(done.stderr)
    return done


@pytest.mark.parametrize("flavoured", ["legacy"], indirect=True)
def test_a_held_lock_of_iptables_costs_a_pass_neither_its_end_nor_the_other_concerns(node, flavoured):
    holder = subprocess.Popen(node.command("flock", "/run/xtables.lock", "sleep", "600"))
    try:
        while node.run("flock", "-n", "/run/xtables.lock", "true", check=False).returncode == 0:
            assert holder.poll() is None
        done = limited(node)
        again = limited(node)
    finally:
        node.run("pkill", "-P", str(holder.pid), "sleep", check=False)
        holder.kill()
        holder.wait()
    assert done.returncode == 1 and "net.no.such" in done.stderr, done
    assert "problem: /run/xtables.lock: waited " in done.stderr, done
    assert "add file " + CONFLIST in done.stdout and node.exists(CONFLIST)
    assert (again.returncode, again.stdout, again.stderr) == (1, "", "")  # the same problems, in the same words
    done = node.reconcile()
    assert "resolved: /run/xtables.lock" in done.stdout and "KIND-MASQ-AGENT" in node.sh("iptables-legacy-save -t nat; ip6tables-legacy-save -t nat")


@pytest.mark.parametrize("flavoured", ["nft"], indirect=True)
def test_iptables_that_hangs_costs_a_pass_neither_its_end_nor_the_other_concerns(node, hanging):
    done = limited(node)
    assert done.returncode == 1 and "net.no.such" in done.stderr, done
    assert "did not end in the time that a pass has for it" in done.stderr, done
    assert "add file " + CONFLIST in done.stdout and node.exists(CONFLIST)
    assert node.run("kill", "-0", node.read("/run/hung").strip(), check=False).returncode
    again = limited(node)
    assert (again.returncode, again.stdout, again.stderr) == (1, "", "")  # the same problems, in the same words


def state_of(pid):
    with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
        return f.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("flavoured", ["nft"], indirect=True)
def test_a_pass_that_is_ended_names_what_it_found_and_where_it_was(node, hanging):
    passing = subprocess.Popen(node.command(*AS_THE_TIMER), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not node.exists("/run/hung") or state_of(passing.pid) != "S":  # it sleeps where it waits for the program
        assert passing.poll() is None
    passing.terminate()  # nsenter has become the command
    said = without_priorities(passing.communicate(timeout=60)[1]).splitlines()
    assert passing.returncode == 1
    assert len(said) == 2 and "net.no.such" in said[0], said
    assert said[1].startswith("problem: section masq: ") and "neighbours, conflist" in said[1]
    assert node.run("kill", "-0", node.read("/run/hung").strip(), check=False).returncode
    assert len(json.loads(node.reconcile("--status", "--json").stdout)["problems"]) == 2
    node.sh("umount %s" % os.path.realpath("/usr/sbin/iptables-nft"))
    done = node.reconcile()
    assert "resolved: section masq" in done.stdout and node.exists(CONFLIST)


def test_a_problem_is_named_once_and_its_end_too(node):
    node.desired(sysctl={"sysctls": [["net/ipv4/ip_forward", "1"], ["net/no/such", "1"]]}, other={})
    turn_off(node)
    done = node.reconcile()
    assert (done.returncode, forwarding(node)) == (1, "1")
    assert len(done.stderr.splitlines()) == 2 and "net.no.such" in done.stderr and "section other" in done.stderr
    done = node.reconcile()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert len(json.loads(node.reconcile("--status", "--json").stdout)["problems"]) == 2
    node.desired(sysctl=FORWARDING)
    done = node.reconcile()
    assert done.returncode == 0 and sum(line.startswith("resolved: ") for line in done.stdout.splitlines()) == 2


def test_pause_and_resume(node):
    assert node.reconcile("--pause", "1h").returncode == 0
    turn_off(node)
    before = node.sh(SNAPSHOT)
    done = node.reconcile()
    assert (done.returncode, done.stdout, done.stderr, forwarding(node)) == (0, "", "", "0")
    assert node.sh(SNAPSHOT) == before
    check = node.reconcile("--check")
    assert check.returncode == 2 and "paused" in check.stdout
    assert "for another" in node.reconcile("--status").stdout
    assert 3500 < json.loads(node.reconcile("--status", "--json").stdout)["paused_seconds"] <= 3600
    assert node.reconcile("--resume").returncode == 0
    assert node.reconcile().returncode == 0 and forwarding(node) == "1"
    assert node.reconcile("--resume").returncode == 0


def test_pause_waits_for_a_pass_under_way(node):
    holder = subprocess.Popen(node.command("flock", "/run/kindnet/lock", "sleep", "60"))
    try:
        while node.run("flock", "-n", "/run/kindnet/lock", "true", check=False).returncode == 0:
            assert holder.poll() is None
        waiting = subprocess.Popen(node.command(COMMAND, "--pause", "1h"), stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        assert waiting.poll() is None and not node.exists("/run/kindnet/pause")
    finally:
        node.run("pkill", "-P", str(holder.pid), "sleep", check=False)
        holder.kill()
        holder.wait()
    assert waiting.wait(60) == 0 and node.exists("/run/kindnet/pause")


@pytest.mark.parametrize("arguments", [["--wrong"], ["--pause", "1"], ["--json"], ["now"]])
def test_usage(node, arguments):
    done = node.reconcile(*arguments)
    assert (done.returncode, done.stdout) == (64, "") and "usage" in done.stderr


def test_status(node):
    told = json.loads(node.reconcile("--status", "--json").stdout)
    assert (told["cluster_name"], told["sections"], told["paused_seconds"]) == ("kindnet", ["sysctl"], None)
    assert told["digest"] == os.path.basename(node.sh("readlink -f %s/current" % LIBRARY).strip())


def test_others_are_told_to_be_root(node):
    for arguments in ("--check", "--pause 1h", "--resume", ""):
        done = node.run("setpriv", "--reuid=1000", "--clear-groups", "sh", "-c", "%s %s" % (COMMAND, arguments), check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "root" in done.stderr, (arguments, done)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Three versions of the collection whose files know each other, so that a mixture fails."""
    made = []
    for build in ("one", "two", "three"):
        root = tmp_path_factory.mktemp(build)
        utils = copy_collection(root) / "plugins/module_utils"
        with open(utils / "_reconcile.py", "a") as f:
            f.write('\n\nBUILD = "%s"\n' % build)
        with open(utils / "_sysctl.py", "a") as f:
            f.write("\n\nfrom . import _reconcile\n\nassert _reconcile.BUILD == %r, _reconcile.BUILD\n" % build)
        made.append(root)
    return made


def test_upgrades_while_passes_run(node, versions):
    """No pass fails and none runs a mixture, however the versions change beneath; in the end one is left."""
    script = "while [ ! -e /run/stop ]; do echo 0 >/proc/sys/net/ipv4/ip_forward; %s || echo FAILED; done" % COMMAND
    passes = [
        subprocess.Popen(node.command("sh", "-c", script), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _loop in range(2)
    ]
    try:
        for _round in range(2):
            for root in versions:
                assert alone(node, root)["changed"]
    finally:
        node.sh("touch /run/stop")
        said = [p.communicate(timeout=60)[0] for p in passes]
        node.sh("rm /run/stop")
    for lines in said:
        # Two loops turn forwarding off beneath each other, so a pass may find nothing to do. It may not find anything else.
        assert set(lines.splitlines()) == {"replace sysctl net.ipv4.ip_forward: 0 -> 1 (routing between pods needs it)"}
    assert alone(node)["changed"]
    assert len(node.sh("ls %s" % LIBRARY).split()) == 2  # one digest, and current


def test_code_in_use_is_not_removed(node, versions):
    """A pass that waits for the lock goes on with its own version, though two upgrades went by."""
    alone(node, versions[0])
    turn_off(node)
    held = node.sh("readlink -f %s/current" % LIBRARY).strip()
    holder = subprocess.Popen(node.command("flock", "-s", held, "sleep", "60"))
    try:
        while node.run("flock", "-n", held, "true", check=False).returncode == 0:
            assert holder.poll() is None
        for root in versions[1:]:
            assert alone(node, root)["changed"]
        assert node.exists(held + "/kindnet_host/_sysctl.py")
        assert len(node.sh("ls %s" % LIBRARY).split()) == 3  # the one in use, the newest, and current
    finally:
        node.run("pkill", "-P", str(holder.pid), "sleep", check=False)
        holder.kill()
        holder.wait()
    alone(node)
    assert not node.exists(held)


# What is removed is first renamed; that is where this one dies.
KILL_AT_REMOVAL = """
import os
rename = os.rename
os.rename = lambda old, new: os.kill(os.getpid(), 9) if new.endswith(".tmp") else rename(old, new)
"""


def test_old_code_goes_though_a_run_was_killed_before_it_removed_it(node, versions):
    alone(node, versions[0])
    old = node.sh("readlink -f %s/current" % LIBRARY).strip()
    killed = start_alone(node, versions[1], KILL_AT_REMOVAL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL and node.sh("readlink -f %s/current" % LIBRARY).strip() != old and node.exists(old)
    holder = subprocess.Popen(node.command("flock", "-s", old, "sleep", "60"))
    try:
        while node.run("flock", "-n", old, "true", check=False).returncode == 0:
            assert holder.poll() is None
        alone(node, versions[1])
        assert node.exists(old) and not alone(node, versions[1])["changed"]  # a pass runs it
    finally:
        node.run("pkill", "-P", str(holder.pid), "sleep", check=False)
        holder.kill()
        holder.wait()
    predicted = alone(node, versions[1], _ansible_check_mode=True)
    assert [c["subject"] for c in predicted["changes"]] == [old] and node.exists(old)
    assert alone(node, versions[1])["changes"] == predicted["changes"]
    assert not alone(node, versions[1])["changed"]
    assert len(node.sh("ls -A %s" % LIBRARY).split()) == 2
    alone(node)


def test_an_installation_killed_anywhere_is_finished_by_the_next(node, versions):
    generator = random.Random(7)
    start = time.monotonic()
    alone(node, versions[0])
    whole = time.monotonic() - start
    for number in range(20):
        install = start_alone(node, versions[number % 3])
        time.sleep(generator.uniform(0.3, 1.0) * whole)
        # nsenter has become the module itself; what it has started dies or ends by itself
        install.send_signal(signal.SIGKILL)
        install.communicate()
        turn_off(node)
        done = node.reconcile()
        assert (done.returncode, done.stderr, forwarding(node)) == (0, "", "1")
    alone(node)
    assert not alone(node, _ansible_check_mode=True)["changed"]
    assert len(node.sh("ls -A %s" % LIBRARY).split()) == 2


def test_a_pass_killed_anywhere_is_finished_by_the_next(node):
    generator = random.Random(7)
    text = node.read("/etc/sysctl.d/zz-kindnet.conf")
    for _kill in range(20):
        turn_off(node)
        node.sh("rm -f /etc/sysctl.d/zz-kindnet.conf")
        killed = subprocess.Popen(node.command(COMMAND), stdout=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.01, 0.12))
        killed.kill()
        killed.wait()
        done = node.reconcile()
        assert (done.returncode, done.stderr, forwarding(node)) == (0, "", "1")
        assert node.read("/etc/sysctl.d/zz-kindnet.conf") == text
        assert node.sh("ls -A /etc/sysctl.d | grep -c tmp || true").strip() == "0"
        assert node.reconcile().stdout == ""
