# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet-reconcile --watch with the kernel's own events, in namespaces. A stand-in for systemctl makes the passes, and counts them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest
from reconcile_sandbox import COMMAND, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

LIBRARY = "/usr/local/lib/kindnet"
CONFLIST = "/etc/cni/net.d/10-kindnet.conflist"
PEERS = 3
PATIENCE = 60  # seconds on a machine that has much else to do; how fast it is on a real node is another test's

# A module without the seconds that Ansible needs around it.
CONVERGE = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils.testing import patch_module_args
module = importlib.import_module("ansible_collections.kindnet.host.plugins.modules." + sys.argv[2])
with patch_module_args(json.load(sys.stdin)):
    module.main()
"""


def converge(node, module, **options):
    node.run(sys.executable, "-c", CONVERGE, str(node.collections), module, stdin=json.dumps(options))


class Watch:
    """The watch, on a node."""

    def __init__(self, node):
        self.node = node
        node.sh(": >/run/passes; : >/run/journal")
        # nsenter becomes the program itself
        self.process = subprocess.Popen(node.command(COMMAND, "--watch"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.until(lambda: self.listens() and self.is_asleep())

    def close(self):
        self.process.kill()
        return self.process.communicate()

    def status(self, field):
        lines = self.node.sh("cat /proc/%d/status" % self.process.pid).splitlines()
        return next(line.split()[1] for line in lines if line.startswith(field + ":"))

    def listens(self):
        # ls complains of a file that was closed while it looked
        return "inotify" in self.node.run("ls", "-l", "/proc/%d/fd" % self.process.pid, check=False).stdout

    def is_asleep(self):
        wchan = self.node.sh("cat /proc/%d/wchan" % self.process.pid)
        return "poll" in wchan if wchan not in ("", "0") else self.status("State") == "S"

    def until(self, holds):
        end = time.monotonic() + PATIENCE
        while not holds():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, (self.passes(), self.node.read("/run/journal"))
            time.sleep(0.05)

    def passes(self):
        return len(self.node.read("/run/passes").split())

    def settled(self):
        """The number of passes once there are no more: none for longer than any wait of the watch."""
        last, since = -1, time.monotonic()
        while time.monotonic() < since + 2:
            now = self.passes()
            if now != last or not self.is_asleep():
                last, since = now, time.monotonic()
            time.sleep(0.1)
        return last


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    node = Sandbox(tmp_path_factory.mktemp("watched"))
    node.sh("ip link add node type veth peer name net; ip link set node up; ip link set net up; ip address add 172.18.0.2/16 dev node")
    node.module(watch=True)
    brought = os.path.dirname(importlib.util.find_spec("pyroute2").origin)
    node.sh(f"mkdir {LIBRARY}/pyroute2; cp -r {brought} {LIBRARY}/pyroute2; rm -rf $(find {LIBRARY}/pyroute2 -name __pycache__)")
    node.sh("mkdir -p /etc/cni/net.d /opt/cni/bin")
    nodes = [
        {"name": "n%d" % i, "node_ips": ["172.18.0.%d" % (i + 2)], "pod_cidrs": ["10.244.%d.0/24" % i]} for i in range(PEERS + 1)
    ]
    converge(node, "kindnet_masq", cluster_cidrs=["10.244.0.0/16"], backend="iptables-nft")
    converge(node, "kindnet_sysctl", sysctls={"net.ipv4.ip_forward": "1"})
    node.sh("iptables-nft -P FORWARD DROP")
    converge(node, "kindnet_neighbours", cluster_cidrs=["10.244.0.0/16"])
    converge(node, "kindnet_route", nodes=json.dumps(nodes), node_name="n0")
    conflist = {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp"}]}
    record = json.loads(node.read("/etc/kindnet/desired.json"))
    record["sections"]["conflist"] = {"path": CONFLIST, "conflist": conflist, "former_paths": [], "made_folders": [], "mtu": None, "interfaces": []}
    node.write("/etc/kindnet/desired.json", json.dumps(record))
    assert node.reconcile().returncode == 0, node.reconcile().stderr
    assert node.reconcile().stdout == ""
    yield node
    node.close()


@pytest.fixture
def watch(sandbox):
    watch = Watch(sandbox)
    yield watch
    assert watch.close() == ("", "")


def routes(node):
    return node.sh("ip route show proto 107").split("\n")[:-1]


def chain(node):
    return [node.run("iptables-nft", "-t", "nat", "-S", name, check=False).stdout for name in ("KIND-MASQ-AGENT", "POSTROUTING")]


def state(node):
    settings = node.run("cat", "/etc/sysctl.d/zz-kindnet.conf", check=False).stdout, node.sh("iptables-nft -S FORWARD")
    return settings, routes(node), chain(node), node.run("sh", "-c", "stat -c %%a %s; cat %s" % (CONFLIST, CONFLIST), check=False).stdout


DAMAGE = {
    "route deleted": "ip route del 10.244.1.0/24",
    "all routes deleted": "ip route flush proto 107",
    "next hop changed": "ip route replace 10.244.1.0/24 via 172.18.0.9 proto 107",
    "interface down and up": "ip link set node down; ip link set node up",
    "address lost and back": "ip address del 172.18.0.2/16 dev node; ip address add 172.18.0.2/16 dev node",
    "rule deleted": "iptables-nft -t nat -D KIND-MASQ-AGENT 1",
    "rule inserted": "iptables-nft -t nat -I KIND-MASQ-AGENT -s 192.0.2.0/24 -j ACCEPT",
    "jump deleted": "iptables-nft -t nat -D POSTROUTING 1",
    "chain flushed": "iptables-nft -t nat -F KIND-MASQ-AGENT",
    "ruleset flushed": "nft flush ruleset; iptables-nft -P FORWARD DROP",
    "conflist deleted": "rm " + CONFLIST,
    "conflist truncated": "truncate -s 9 " + CONFLIST,
    "conflist open to all": "chmod 0666 " + CONFLIST,
    "conflist moved away": "mv %s /etc/cni/x" % CONFLIST,
    "folder replaced": "mv /etc/cni /etc/cni.old; mkdir -p /etc/cni/net.d; rm -r /etc/cni.old",
    "settings deleted": "rm /etc/sysctl.d/zz-kindnet.conf",
    "rules for forwarding deleted": "iptables-nft -F FORWARD",
    "folder away for a while": "rm -r /etc/cni; sleep 1; mkdir -p /etc/cni/net.d",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_starts_a_pass_that_repairs_it_and_then_no_more(watch, damage):
    node = watch.node
    before = state(node)
    watch.settled()
    node.sh(": >/run/journal")
    node.sh(DAMAGE[damage])
    watch.until(lambda: state(node) == before and watch.passes() >= 2)  # the first has ended, then, and said all it has to say
    # What was done again by passes is not damage: one more looks, finds nothing, and says nothing.
    lines = node.read("/run/journal")
    count = watch.settled()
    assert node.read("/run/journal") == lines
    assert 1 <= count <= 6, lines


def test_a_route_costs_a_pass_and_one_more_look(watch):
    watch.node.sh("ip route del 10.244.1.0/24")
    watch.until(lambda: len(routes(watch.node)) == PEERS)
    assert watch.settled() == 2


def test_nothing_is_done_while_nothing_happens(watch):
    watch.settled()
    before = watch.status("voluntary_ctxt_switches"), watch.status("nonvoluntary_ctxt_switches")
    time.sleep(5)
    assert (watch.status("voluntary_ctxt_switches"), watch.status("nonvoluntary_ctxt_switches")) == before
    assert watch.passes() == 0


def test_it_is_small(watch):
    watch.node.sh("ip route del 10.244.1.0/24")
    watch.until(lambda: watch.passes() == 2)
    watch.settled()
    assert int(watch.status("VmHWM")) < 15_000  # kB


def test_events_of_others_do_not_even_wake_it(watch):
    node = watch.node
    # Rules of others are not left out by the kernel, so only these.
    batch = "".join("route add 198.%d.%d.0/24 via 172.18.0.9 proto bgp\n" % divmod(i, 256) for i in range(1000, 2000))
    node.write("/run/batch", batch + batch.replace("route add", "route del"))
    before = watch.status("voluntary_ctxt_switches")
    node.sh("ip -batch /run/batch; ip route replace 198.18.0.0/24 via 172.18.0.9 proto bgp; ip route del 198.18.0.0/24")
    assert watch.status("voluntary_ctxt_switches") == before
    node.sh("iptables-nft -t nat -N OTHER; iptables-nft -t nat -A OTHER -j ACCEPT; iptables-nft -t nat -F OTHER; iptables-nft -t nat -X OTHER")
    node.sh("nft add table ip others; nft add chain ip others c; nft add rule ip others c accept; nft delete table ip others")
    # As kube-proxy writes them: much at once is no reason to think that something of ours was lost among it.
    many = "".join("-A KUBE-SVC -s 198.51.100.%d/32 -p tcp --dport %d -j ACCEPT\n" % (i % 256, i + 1) for i in range(5000))
    node.run("iptables-nft-restore", "--noflush", stdin="*nat\n:KUBE-SVC -\n%sCOMMIT\n" % many)
    node.run("iptables-nft-restore", "--noflush", stdin="*nat\n:KUBE-SVC -\n-F KUBE-SVC\n-X KUBE-SVC\nCOMMIT\n")
    node.sh("touch /etc/cni/net.d/other /etc/cni/other /etc/other; rm /etc/cni/net.d/other /etc/cni/other /etc/other")
    # pods come and go: their interfaces have no network of their own
    node.sh("ip link add veth0 type veth peer name veth1; ip address add 10.244.0.1/32 dev veth0; ip link set veth0 up; ip link set veth1 up")
    node.sh("ip route add 10.244.0.5/32 dev veth0 scope host; ip link del veth0")
    assert watch.settled() == 0


def test_a_burst_is_a_few_passes(watch):
    node = watch.node
    batch = "".join("route add 198.18.%d.0/24 via 172.18.0.9 proto 107\n" % i for i in range(250))
    node.write("/run/batch", (batch + batch.replace("route add", "route del")) * 2)
    node.sh("ip -batch /run/batch || true")  # passes may have been there before
    watch.until(lambda: len(routes(node)) == PEERS)
    assert 1 <= watch.settled() <= 6


def test_a_program_that_changes_things_back_makes_no_more_passes_than_the_limit(sandbox):
    watch = Watch(sandbox)
    foe = subprocess.Popen(
        sandbox.command("sh", "-c", "until [ -e /run/stop ]; do ip route del 10.244.1.0/24; ip route del 10.244.2.0/24; sleep 0.2; done 2>/dev/null")
    )
    try:
        # 20 passes in less than the minute that they are counted in
        end = time.monotonic() + 55
        while watch.passes() < 20 and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(3)
        assert watch.passes() == 20
    finally:
        sandbox.sh("touch /run/stop")
        foe.wait()
        out, err = watch.close()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("problem: kindnet-watch: 20 passes in 60 s: "), err
    assert sandbox.reconcile().returncode == 0 and len(routes(sandbox)) == PEERS


def test_what_is_recorded_anew_is_what_is_watched(watch):
    node = watch.node
    record = node.read("/etc/kindnet/desired.json")
    other = json.loads(record)
    other["sections"]["conflist"]["path"] = "/etc/cni/other.d/10-other.conflist"
    node.write("/etc/kindnet/desired.new", json.dumps(other))
    node.sh("mv /etc/kindnet/desired.new /etc/kindnet/desired.json")
    assert watch.settled() == 0  # the module that records applies
    node.sh("mkdir -p /etc/cni/other.d; touch /etc/cni/other.d/10-other.conflist")
    watch.until(lambda: watch.passes() >= 1)
    watch.settled()
    node.sh(": >/run/passes; echo '{' >/etc/kindnet/desired.json")  # damaged: what was watched still is
    assert watch.settled() == 0
    node.sh("rm /etc/cni/other.d/10-other.conflist")
    watch.until(lambda: watch.passes() >= 1)
    node.write("/etc/kindnet/desired.json", record)
    node.sh("rm -r /etc/cni/other.d")
    watch.settled()


def test_another_version_takes_over(watch):
    node = watch.node
    held = node.sh("readlink %s/current" % LIBRARY).strip()
    # Another digest with the same code: it is the folder's name that counts.
    node.sh(f"cd {LIBRARY}; flock -n -x {held} cp -a {held} 0123456789abcdef; ln -s 0123456789abcdef next; mv -T next current")
    watch.until(watch.is_asleep)
    node.sh(f"cd {LIBRARY}; rm -r {held}")
    node.sh("ip route del 10.244.1.0/24")
    watch.until(lambda: len(routes(node)) == PEERS)
    node.sh(f"cd {LIBRARY}; cp -a 0123456789abcdef {held}; ln -s {held} next; mv -T next current")
    watch.until(watch.is_asleep)
    node.sh(f"flock -n -x {LIBRARY}/0123456789abcdef rm -r {LIBRARY}/0123456789abcdef")
    watch.settled()


def test_a_pause_holds_off_its_passes_too(watch):
    node = watch.node
    node.reconcile("--pause", "1h")
    node.sh("ip route del 10.244.1.0/24")
    watch.until(lambda: watch.passes() >= 1)
    assert watch.settled() == 1 and len(routes(node)) == PEERS - 1
    node.reconcile("--resume")
    assert node.reconcile().returncode == 0 and len(routes(node)) == PEERS
    watch.settled()


def test_an_ordinary_user_is_refused(sandbox):
    done = sandbox.run("setpriv", "--reuid=65534", "--clear-groups", COMMAND, "--watch", check=False)
    assert done.returncode == 1 and "Run it as root." in done.stderr
