# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cni_allocations on a host whose pods are made by the reference plugins themselves, judged by files, the kernel and host-local."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cni_sandbox import ROOT, Sandbox
from waiting import until

PLUGINS = "/usr/lib/cni"
MODULE = "kindnet.host.cni_allocations"
STORE = "/run/cni-ipam-state/kindnet"
PATH = "/etc/cni/net.d/10-kindnet.conflist"

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(PLUGINS + "/ptp"), reason="needs root and the reference plugins")


class Host(Sandbox):
    """With processes of its own: the module looks into the namespace of every one."""

    v4, v6 = "10.244.1.", "fd00:10:244:1::"

    def __init__(self, folder, kind="ptp", **more):
        super().__init__(folder, processes=True)
        ranges = [[{"subnet": self.v4 + "0/24"}], [{"subnet": self.v6 + "/64"}]]
        ipam = {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": ranges}
        self.main = dict({"type": kind, "ipam": ipam}, **more)
        self.write(PATH, json.dumps({"cniVersion": "0.4.0", "name": "kindnet", "plugins": [self.main, {"type": "portmap"}]}))

    def environment(self, command, pod, netns=None):
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": netns or "/run/netns/" + pod,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
        }

    def plugin(self, conf, command, pod, netns=None, more=None):
        conf = dict(conf, cniVersion="0.4.0", name="kindnet")
        done = self.run("%s/%s" % (PLUGINS, conf["type"]), stdin=json.dumps(conf), env=dict(self.environment(command, pod, netns), **(more or {})))
        return json.loads(done.stdout or "null")

    def add(self, pod, netns=None):
        """The addresses of a new pod, that of IPv4 first."""
        if netns is None:
            # ptp waits for the addresses to be known as nobody else's, which takes seconds.
            self.sh(f"ip netns add {pod}; ip netns exec {pod} sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'")
        self.result = self.plugin(self.main, "ADD", pod, netns)
        return sorted((ip["address"].partition("/")[0] for ip in self.result["ips"]), key=lambda ip: ":" in ip)

    def age(self, *ips, minutes=10):
        self.sh("cd %s; touch -d '%d minutes ago' %s" % (STORE, minutes, " ".join(ips)))

    def leaked(self, **args):
        result = self.module(MODULE, args)
        assert not result.get("failed"), result
        return [a["ip"] for a in result["leaked"]]

    def held(self):
        return [n for n in self.sh("ls -A " + STORE).split() if "." in n and n[0].isdigit() or ":" in n]


@pytest.fixture
def host(tmp_path):
    sandbox = Host(tmp_path)
    yield sandbox
    sandbox.close()


def gone(host, pod="gone"):
    """An old allocation of a pod that a crash took away."""
    ips = host.add(pod)
    host.sh("ip netns del " + pod)
    # The kernel takes namespaces apart one after the other, those of other tests, too.
    until("its routes are gone", lambda: not host.sh("ip route show %s; ip -6 route show %s" % tuple(ips)))
    host.age(*ips)
    return ips


def test_what_a_crash_left_is_released_and_nothing_else(host):
    live = host.add("live")
    old = gone(host)
    young = host.add("young")
    host.sh("ip netns del young")
    host.age(*live)
    files = host.tree(STORE)
    report = host.module(MODULE, {})
    assert [(a["ip"], a["container"], a["ifname"], a["store"]) for a in report["leaked"]] == [(ip, "gone", "eth0", STORE) for ip in old]
    assert all(590 < a["age"] < 1200 for a in report["leaked"])
    assert report["stores"] == [STORE] and report["allocations"] == 6
    assert not report["changed"] and not report["changes"] and not report["doubts"] and not report["host_ports"]
    assert host.tree(STORE) == files
    check, real = host.played_quartets(MODULE, [{"release": True}])[0]
    assert [c["subject"] for c in real["changes"]] == ["allocation " + ip for ip in old]
    assert "container gone eth0" in real["diff"]["before"]
    assert host.held() == sorted(live + young)
    # The live pod has its network, and host-local gives out what was released.
    host.run("ip", "netns", "exec", "live", "ping", "-c", "1", "-W", "2", host.v4 + "1")
    host.age(*young, minutes=6)
    assert host.leaked() == young


def test_min_age(host):
    ips = gone(host)
    host.age(*ips, minutes=2)
    assert host.leaked() == [] and host.leaked(min_age=100) == ips
    host.sh("cd %s; touch -d 'tomorrow' %s" % (STORE, " ".join(ips)))  # the clock was wrong then, or is now
    assert host.leaked() == []


HOLDERS = {
    "a process": "exec sleep infinity",
    "a descriptor": "exec 7</proc/self/ns/net; exec nsenter --net=/proc/1/ns/net sleep infinity",
    "a mount elsewhere": "mount -t tmpfs none /mnt; mkdir '/mnt/a b'; : >'/mnt/a b/net'; mount --bind /proc/self/ns/net '/mnt/a b/net'; "
    "exec nsenter --net=/proc/1/ns/net sleep infinity",
}
THREAD = """
import ctypes, threading, os, time
def other():
    ctypes.CDLL(None).unshare(0x40000000)
    print(os.getpid(), threading.get_native_id(), flush=True)
    time.sleep(1000)
threading.Thread(target=other).start()
"""


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_address_in_any_namespace_is_in_use(host, holder):
    """Also where the route to it is gone, as after somebody flushed the table."""
    argv = host.command("unshare", "--net", "--mount", "--propagation", "private", "sh", "-euc", "echo $$; read go; " + HOLDERS[holder])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        pid = process.stdout.readline().strip()
        ips = host.add("held", "/proc/%s/ns/net" % pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        until("it runs", lambda: host.sh("cat /proc/%s/comm" % pid) == "sleep\n")
        host.sh("ip route flush root %s0/24; ip -6 route flush root %s/64" % (host.v4, host.v6))
        host.age(*ips)
        assert host.leaked(release=True) == [] and host.held() == sorted(ips)
    finally:
        host.sh("kill -9 " + pid)
        process.communicate()
    until("the addresses are leaked", lambda: host.leaked() == ips)


def test_an_address_in_the_namespace_of_a_thread_is_in_use(host):
    process = subprocess.Popen(host.command(sys.executable, "-c", THREAD), stdout=subprocess.PIPE, text=True)
    try:
        ids = process.stdout.readline().split()
        ips = host.add("held", "/proc/%s/task/%s/ns/net" % tuple(ids))
        host.sh("ip route flush root %s0/24; ip -6 route flush root %s/64" % (host.v4, host.v6))
        host.age(*ips)
        assert host.leaked(release=True) == [] and host.held() == sorted(ips)
    finally:
        host.sh("kill -9 " + ids[0])
        process.communicate()


def test_a_route_to_an_address_speaks_for_it(host):
    """As of a sandboxed runtime, which takes the address out of the namespace."""
    v4, v6 = gone(host)
    host.sh("ip link add far type veth peer name near; ip link set near up; ip link set far up; ip link set lo up")
    host.sh("ip route add %s0/24 dev near; ip -6 route add %s/64 dev near" % (host.v4, host.v6))
    assert host.leaked() == [v4, v6]  # leads to all pods of the node, and tells of none
    host.sh("ip route add %s0/28 dev near table 77" % host.v4)
    assert host.leaked() == [v6]
    host.sh("ip -6 route add %s dev near" % v6)
    assert host.leaked(release=True) == []
    host.sh("ip -6 route del %s dev near; ip addr add %s/32 dev lo; ip route flush table 77" % (v6, v4))
    assert host.leaked() == [v6]
    host.sh("ip addr del %s/32 dev lo" % v4)
    assert host.leaked() == [v4, v6]


def test_an_address_is_in_use_while_a_plugin_makes_its_pod(host):
    ips = gone(host, "slow")
    plugin = ["sh", "-c", "echo $$; exec sleep infinity"]
    process = subprocess.Popen(host.command(*plugin), stdout=subprocess.PIPE, text=True, env=dict(os.environ, **host.environment("ADD", "slow")))
    pid = process.stdout.readline()
    try:
        assert host.leaked() == []
    finally:
        host.sh("kill -9 " + pid)
        process.communicate()
    assert host.leaked() == ips


def test_files_that_are_not_as_host_local_writes_them(host):
    ips = gone(host)
    host.sh(
        "cd {s}; printf old-format >{v4}20; : >{v4}21; ln -s {v4}20 {v4}22; mkdir {v4}23; printf x >{v4}024; printf x >{V6}; printf x >other; "
        "touch -h -d '10 minutes ago' *".format(s=STORE, v4=host.v4, V6=host.v6.upper() + "7")
    )
    report = host.module(MODULE, {"release": True})
    assert [(a["ip"].replace(host.v4, "."), a["container"]) for a in report["leaked"]] == [
        (ips[0].replace(host.v4, "."), "gone"),
        (".20", "old-format"),
        (".21", ""),
        (ips[1], "gone"),
    ]
    assert ["is no regular file" in d for d in report["doubts"]].count(True) == 2
    assert any("is not how host-local names it" in d for d in report["doubts"])
    left = host.sh("ls -A " + STORE).split()
    assert {host.v4 + "22", host.v4 + "23", host.v4 + "024", host.v6.upper() + "7", "other", "lock", "last_reserved_ip.0"} <= set(left)
    assert len(left) == 8  # and last_reserved_ip.1


@pytest.mark.parametrize("without", ["sys_admin", "sys_ptrace"])
def test_nothing_is_leaked_while_a_namespace_cannot_be_looked_at(host, without):
    ips = gone(host)
    host.sh("ip netns add locked")
    name = "ansible_collections.kindnet.host.plugins.modules.cni_allocations"
    environment = {"PYTHONPATH": str(ROOT / ".ansible" / "collections"), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = ["setpriv", "--bounding-set", "-" + without, "--inh-caps", "-" + without, sys.executable, "-m", name]
    # Of root's processes one that is not as we are: the kernel asks for a capability then.
    user = ["unshare", "--net", "setpriv", "--reuid", "1", "--clear-groups", "sh", "-c", "echo $$; exec sleep infinity"]
    other = subprocess.Popen(host.command(*user), stdout=subprocess.PIPE, text=True)
    pid = other.stdout.readline()
    try:
        done = host.run(*argv, stdin=json.dumps({"ANSIBLE_MODULE_ARGS": {"release": True}}), env=environment, check=False)
    finally:
        host.sh("kill -9 " + pid)
        other.communicate()
    report = json.loads(done.stdout)
    assert report["leaked"] == report["host_ports"] == [] and not report["changed"]
    assert report["doubts"] and all(d.endswith("so nothing counts as leaked.") for d in report["doubts"])
    assert host.held() == sorted(ips)
    assert host.leaked() == ips


def test_allocations_of_another_plugin_are_not_judged(tmp_path):
    host = Host(tmp_path, "bridge", bridge="cni0")
    try:
        ips = host.add("gone")
        host.sh("ip netns del gone")
        host.age(*ips)
        report = host.module(MODULE, {"release": True})
        assert report["leaked"] == [] and report["stores"] == []
        assert report["doubts"] == ["%s: its 2 allocations are of plugin 'bridge', which makes no route to each pod, so they count as in use." % STORE]
        assert host.held() == sorted(ips)
    finally:
        host.close()


# --- host-local's lock

HELD = """
import sys
sys.path.insert(0, %r)
from ansible_collections.kindnet.host.plugins.module_utils import _allocations
with _allocations.locked([%r], 5):
    print("held", flush=True)
    sys.stdin.read()
""" % (str(ROOT / ".ansible" / "collections"), STORE)


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_host_local_waits_while_we_hold_its_lock(host, command):
    ips = host.add("first")
    holder = subprocess.Popen(host.command(sys.executable, "-c", HELD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    pod = "first" if command == "DEL" else "second"
    host.sh("ip netns add second")
    conf = json.dumps(dict(host.main, cniVersion="0.4.0", name="kindnet"))
    plugin = subprocess.Popen(
        host.command(PLUGINS + "/ptp"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ, **host.environment(command, pod))
    )
    plugin.stdin.write(conf)
    plugin.stdin.close()
    inode = os.stat("/proc/%d/root%s/lock" % (host.pid, STORE)).st_ino
    # As the kernel tells: somebody waits for the lock that we hold.
    until("it waits", lambda: any("-> FLOCK" in line and ":%d " % inode in line for line in Path("/proc/locks").read_text().splitlines()))
    assert plugin.poll() is None and host.held() == sorted(ips)
    holder.communicate("")
    assert plugin.wait(timeout=30) == 0
    assert len(host.held()) == (4 if command == "ADD" else 0)


def test_somebody_holds_the_lock(host):
    ips = gone(host)
    somebody = host.command("flock", STORE + "/lock", "sh", "-c", "echo held; read go")
    holder = subprocess.Popen(somebody, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    refused = host.module(MODULE, {"release": True, "lock_timeout": 0.2})
    assert refused["failed"] and "%s/lock: waited 0.2 s: host-local holds it" % STORE in refused["msg"]
    assert host.held() == sorted(ips)
    assert host.leaked() == ips  # a report needs no lock
    holder.communicate("go\n")
    assert host.leaked(release=True) == ips and host.held() == []


# What becomes of the address after it was first seen leaked, and before the lock is held.
MEANWHILE = {
    "a route": "subprocess.run(['ip', 'route', 'add', {v4!r}, 'dev', 'lo'], check=True)",
    "an address": "subprocess.run(['ip', 'addr', 'add', {v4!r} + '/32', 'dev', 'lo'], check=True)",
    "another pod": "os.unlink({file!r}); open({file!r}, 'w').write('another\\r\\neth0')",
    "released": "os.unlink({file!r})",
}
RACE = """
import contextlib, json, os, subprocess, sys
sys.path.insert(0, %r)
from ansible_collections.kindnet.host.plugins.modules import cni_allocations as module
real = module._allocations.locked
@contextlib.contextmanager
def locked(*args):
    %s
    with real(*args):
        yield
module._allocations.locked = locked
print(json.dumps(module.run({"release": True, "min_age": 300, "lock_timeout": 5}, False)))
"""


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_became_of_it_meanwhile_is_seen_under_the_lock(host, what):
    v4, v6 = gone(host)
    before = host.module(MODULE, {"release": True}, True)
    assert [c["subject"] for c in before["changes"]] == ["allocation " + v4, "allocation " + v6]
    code = RACE % (str(ROOT / ".ansible" / "collections"), MEANWHILE[what].format(v4=v4, file="%s/%s" % (STORE, v4)))
    result = json.loads(host.run(sys.executable, "-c", code).stdout)
    assert [c["subject"] for c in result["changes"]] == ["allocation " + v6]
    assert host.held() == ([] if what == "released" else [v4])


# --- hostPorts

LEGACY = "/run/legacy"


def publish(host, pod, legacy):
    """hostPorts by the real portmap, in a flavour of iptables."""
    ports = [{"hostPort": 8080 + i, "containerPort": 80, "protocol": p} for i, p in enumerate(("tcp", "udp"))]
    conf = {"type": "portmap", "runtimeConfig": {"portMappings": ports}, "prevResult": host.result}
    host.plugin(conf, "ADD", pod, more={"PATH": LEGACY + ":/usr/sbin:/usr/bin"} if legacy else {})


@pytest.mark.parametrize("legacy", [False, True], ids=["nft", "legacy"])
def test_host_ports_that_lead_to_nobody(host, legacy):
    host.sh("mkdir %s; cd %s; for p in iptables ip6tables; do ln -s /usr/sbin/$p-legacy $p; done; echo 1 >/proc/sys/net/ipv4/ip_forward" % (LEGACY, LEGACY))
    live = host.add("live")
    publish(host, "live", legacy)
    ips = host.add("gone")
    publish(host, "gone", legacy)
    assert host.module(MODULE, {})["host_ports"] == []
    host.sh("ip netns del gone")
    assert host.module(MODULE, {})["host_ports"] == []  # a young allocation
    host.age(*ips, *live)
    until("the addresses are leaked", lambda: host.leaked() == ips)
    report = host.module(MODULE, {"release": True}, True)
    flavour = "legacy" if legacy else "nft"
    assert [h["table"] for h in report["host_ports"]] == ["%s-%s -w -t nat" % (p, flavour) for p in ("iptables", "ip6tables")]
    for h, ip in zip(report["host_ports"], ips):
        assert (h["container"], h["ports"], h["targets"]) == ("gone", ["tcp 8080", "udp 8081"], [ip])
        assert h["chain"].startswith("CNI-DN-") and len(h["rules"]) == 2
    # Released, they lead to nobody all the same; nothing of them was changed.
    assert host.leaked(release=True) == ips
    saved = host.sh("iptables-%s-save -t nat; ip6tables-%s-save -t nat" % (flavour, flavour))
    again = host.module(MODULE, {"release": True})
    assert again["host_ports"] == report["host_ports"] and not again["changed"]
    assert [line for line in saved.splitlines() if "DNAT --to" in line and any(ip in line for ip in ips)]
    for h in report["host_ports"]:
        host.sh(h["remedy"])
    left = host.sh("iptables-%s-save -t nat; ip6tables-%s-save -t nat" % (flavour, flavour))
    assert '"gone' not in left and all(h["chain"] not in left for h in report["host_ports"])
    assert [line for line in left.splitlines() if "to-destination" in line] == [
        line for line in saved.splitlines() if "to-destination" in line and any(ip in line for ip in live)
    ]
    assert host.module(MODULE, {})["host_ports"] == []


def test_a_comment_of_somebody_elses_takes_no_report_away(host):
    for comment in ("it's", "a\n-A CNI-DN-x -p tcp -j DNAT --to-destination 10.244.0.99:80"):
        host.run("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-m", "comment", "--comment", comment, "-j", "ACCEPT")
    report = host.module(MODULE, {})
    assert (report["host_ports"], report["doubts"]) == ([], [])


def test_host_ports_of_portmaps_nftables_backend(host):
    live, ips = host.add("live"), gone(host)
    for family, a, b in (("ip", live[0], ips[0]), ("ip6", "[%s]" % live[1], "[%s]" % ips[1])):
        rules = "\n".join('tcp dport %d dnat to %s:80 comment "%s"' % rule for rule in ((8080, a, "live"), (8081, b, "gone")))
        host.run("nft", "-f", "-", stdin="table %s cni_hostport { chain hostports { %s\n}\n}\n" % (family, rules))
    found = host.module(MODULE, {})["host_ports"]
    assert [(h["table"], h["container"], h["ports"], h["targets"]) for h in found] == [
        ("nft list table %s cni_hostport" % family, "gone", ["tcp 8081"], [ip]) for family, ip in zip(("ip", "ip6"), ips)
    ]
    for h in found:
        host.sh(h["remedy"])
    assert host.module(MODULE, {})["host_ports"] == []
    assert "8080" in host.sh("nft list ruleset") and "8081" not in host.sh("nft list ruleset")


def test_looking_makes_no_table(host):
    gone(host)
    host.leaked(release=True)
    # A kernel without legacy iptables has none of these files.
    assert host.sh("nft list tables; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || true") == ""


# --- the rest


def test_the_playbook_reports_and_releases(host):
    live, ips = host.add("live"), gone(host)
    inventory = {"kindnet_nodes": {"hosts": {"node-a": {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}}}}
    host.write(str(host.playbooks / "inventory.yml"), json.dumps(inventory))

    def play(*more):
        home = {"ANSIBLE_HOME": str(host.playbooks / "home"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_BECOME": "0"}
        ansible = str(Path(sys.executable).parent / "ansible-playbook")
        return host.run(ansible, "-i", str(host.playbooks / "inventory.yml"), str(ROOT / "playbooks" / "allocations.yml"), *more, env=home).stdout

    release = ("-e", "kindnet_release_leaked=true")
    report = play()
    assert "2 of 4 addresses are leaked" in report and "%s: container gone eth0, 0.2 h old" % ips[0] in report and "changed=0" in report
    predicted = play("--check", *release)
    assert "2 of 4 addresses would be released, which were leaked" in predicted and "changed=1" in predicted
    assert host.held() == sorted(live + ips)
    assert "2 of 4 addresses are released, which were leaked" in play(*release) and host.held() == sorted(live)
    again = play(*release)
    assert "leaked\\n" not in again and "changed=0" in again


def test_a_host_without_configuration_or_pods(host):
    report = host.module(MODULE, {"release": True})
    assert (report["stores"], report["allocations"], report["leaked"], report["doubts"]) == ([STORE], 0, [], [])
    assert not host.exists(STORE)
    host.sh("rm " + PATH)
    assert host.module(MODULE, {"release": True})["stores"] == []


def test_bad_input(host):
    ips = gone(host)
    refused = host.module(MODULE, {"release": True, "min_age": 5})
    assert refused["failed"] and "min_age: 5: is less than 60 seconds" in refused["msg"] and host.held() == sorted(ips)
