# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_sysctl as root in namespaces of its own. The oracle is /proc/sys and the files."""

from __future__ import annotations

__metaclass__ = type

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# The child lives in fresh namespaces, with an empty /run, and an /etc and a /var/lib of which nothing is kept.
PRELUDE = """
import json, os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run"], check=True)
for place in ("etc", "var/lib"):
    os.makedirs("/run/upper/" + place)
    os.makedirs("/run/work/" + place)
    layers = "lowerdir=/%s,upperdir=/run/upper/%s,workdir=/run/work/%s" % (place, place, place)
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", "/" + place], check=True)
for folder in ("/etc/kindnet", "/etc/sysctl.d", "/var/lib/kindnet", "/run/kindnet"):
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", folder], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
CODE = '''
import json, sys
from ansible.module_utils.testing import patch_module_args
from ansible_collections.kindnet.host.plugins.modules import kindnet_sysctl
with patch_module_args(json.loads(sys.argv[1])):
    kindnet_sysctl.main()
'''
def module(check=False, **args):
    args.update(_ansible_check_mode=check, _ansible_diff=True)
    out = subprocess.run([sys.executable, "-c", CODE, json.dumps(args)], stdout=subprocess.PIPE, check=False).stdout
    return json.loads(out.decode().strip().splitlines()[-1])
def proc(key):
    with open("/proc/sys/" + key) as f:
        return f.read().strip()
def put(key, value):
    with open("/proc/sys/" + key, "w") as f:
        f.write(value)
def text(path):
    return open(path).read() if os.path.exists(path) else None
FORWARD, FORWARD6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
FILE, BEFORE, DESIRED = "/etc/sysctl.d/zz-kindnet.conf", "/var/lib/kindnet/before.json", "/etc/kindnet/desired.json"
put(FORWARD, "0"); put(FORWARD6, "0")
WANTED = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": "1"}
def state():
    return [proc(FORWARD), proc(FORWARD6), text(FILE), text(BEFORE), text(DESIRED)]
"""


def in_namespaces(code):
    """Run ``code`` in network and mount namespaces that end with it."""
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


def test_check_real_repeat_undo():
    in_namespaces("""
        pristine = state()
        predicted = module(check=True, sysctls=WANTED)
        assert predicted["changed"] and state() == pristine, predicted
        real = module(sysctls=WANTED)
        assert real["diff"] == predicted["diff"] and real["changes"] == predicted["changes"], (real, predicted)
        converged = state()
        assert converged[:2] == ["1", "1"]
        assert [l for l in converged[2].splitlines() if "=" in l] == ["net.ipv4.ip_forward = 1", "net.ipv6.conf.all.forwarding = 1"]
        assert json.loads(converged[4])["sections"]["sysctl"]
        for check in (False, True):
            again = module(check=check, sysctls=WANTED)
            assert again["changed"] is False and state() == converged, again

        put(FORWARD, "0")
        assert [c["subject"] for c in module(sysctls=WANTED)["changes"]] == ["sysctl net.ipv4.ip_forward"]
        assert state() == converged

        assert module(check=True, state="absent")["changed"] and state() == converged
        gone = module(state="absent")
        assert gone["changed"] and state() == pristine, (gone, state())
        assert not module(state="absent")["changed"]
    """)


def test_prior_values_survive_a_second_converge_and_foreign_ones_are_left():
    in_namespaces("""
        put(FORWARD, "1")
        module(sysctls=WANTED)
        put(FORWARD6, "0")
        module(sysctls=WANTED)
        module(state="absent")
        assert (proc(FORWARD), proc(FORWARD6)) == ("1", "0"), state()

        module(sysctls={"net.ipv4.conf.all.rp_filter": 2})
        put("net/ipv4/conf/all/rp_filter", "1")
        gone = module(state="absent")
        assert proc("net/ipv4/conf/all/rp_filter") == "1" and "rp_filter" in gone["notes"][0], gone
    """)


@pytest.mark.parametrize("forwards", ["0", "1"])
def test_what_the_kernel_sets_anew_with_forwarding_is_as_it_was(forwards):
    in_namespaces("FORWARDS = %r\n" % forwards + textwrap.dedent("""
        ALL = "net/ipv4/conf/all/accept_redirects"
        DEVIATING = [ALL, "net/ipv4/conf/lo/forwarding", "net/ipv6/conf/lo/forwarding", "net/ipv6/conf/default/forwarding"]
        def everything():
            return subprocess.run(["sh", "-c", "cd /proc/sys; grep -rs . net/ipv4/ip_forward net/ipv4/conf net/ipv6/conf | sort"],
                                  stdout=subprocess.PIPE).stdout.decode().splitlines()
        def other(value):
            return "1" if value == "0" else "0"
        subprocess.run("ip link add name eth0 type veth peer name far0".split(), check=True)
        for switch in (FORWARD, FORWARD6):
            put(switch, FORWARDS)
        ordinary = everything()
        for key in DEVIATING:
            put(key, other(proc(key)))
        before = everything()
        assert len(set(before) - set(ordinary)) == len(DEVIATING)

        module(sysctls={"net.ipv4.ip_forward": 1})
        assert module(sysctls=WANTED)["changed"] and proc(FORWARD) == proc(FORWARD6) == "1"
        kept = text(BEFORE)
        again = module(sysctls=WANTED)
        assert not again["changed"] and not again["notes"], again
        # Somebody turns it off, and a pass on again.
        put(FORWARD, "0"); put(FORWARD6, "0")
        code = "from ansible_collections.kindnet.host.plugins.module_utils import _reconcile as r; exit(r.run_pass())"
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0 and proc(FORWARD) == proc(FORWARD6) == "1"
        put(FORWARD, "0")
        module(sysctls=WANTED)
        assert text(BEFORE) == kept and json.loads(kept)

        predicted = module(check=True, state="absent")
        gone = module(state="absent")
        assert gone["changes"] == predicted["changes"] and not gone["notes"] and not gone.get("failed"), gone
        assert everything() == before, set(everything()) ^ set(before)
        assert not module(state="absent")["changed"] and text(BEFORE) is None
    """))


def test_what_is_wanted_beside_forwarding_is_so_after_one_run():
    in_namespaces("""
        wanted = {"net.ipv4.conf.all.accept_redirects": 1, "net.ipv4.conf.lo.forwarding": 0, "net.ipv4.ip_forward": 1}
        predicted = module(check=True, sysctls=wanted)
        assert module(sysctls=wanted)["changes"] == predicted["changes"]
        assert (proc("net/ipv4/conf/all/accept_redirects"), proc("net/ipv4/conf/lo/forwarding"), proc(FORWARD)) == ("1", "0", "1")
        assert not module(sysctls=wanted)["changed"]
        module(state="absent")
        assert (proc("net/ipv4/conf/all/accept_redirects"), proc("net/ipv4/conf/lo/forwarding"), proc(FORWARD)) == ("1", "0", "0")
    """)


def test_somebody_elses_file_in_our_place_comes_back():
    in_namespaces("""
        theirs = "net.ipv4.ip_forward = 0 # hardening\\n"
        with open(FILE, "w") as f:
            f.write(theirs)
        os.chmod(FILE, 0o600); os.chown(FILE, 5, 6)
        predicted = module(check=True, sysctls=WANTED)
        real = module(sysctls=WANTED)
        assert real["changes"] == predicted["changes"] and text(FILE).startswith("# Written by kindnet.host"), real
        module(sysctls={"net.ipv4.ip_forward": 1})
        predicted = module(check=True, state="absent")
        gone = module(state="absent")
        assert gone["changes"] == predicted["changes"] and not gone.get("failed"), gone
        st = os.stat(FILE)
        assert (text(FILE), st.st_mode & 0o777, st.st_uid, st.st_gid, text(BEFORE)) == (theirs, 0o600, 5, 6, None), state()
        assert not module(state="absent")["changed"] and text(FILE) == theirs

        module(sysctls=WANTED)
        with open(FILE, "w") as f:
            f.write("kernel.panic = 1\\n")
        gone = module(state="absent")
        assert text(FILE) == "kernel.panic = 1\\n" and FILE in gone["notes"][0] and text(BEFORE) is None, gone
    """)


def test_bad_input_changes_nothing():
    in_namespaces("""
        pristine = state()
        bad = module(sysctls={"net.ipv4.ip_forward": 1, "kernel.panic": 1})
        assert bad["failed"] and bad["field"] == "sysctls" and "kernel.panic" in bad["msg"] and state() == pristine, bad
        module(sysctls=WANTED)
        other = module(sysctls={"net.ipv4.ip_forward": 0}, cluster_name="other")
        assert other["failed"] and "cluster" in other["msg"] and proc(FORWARD) == "1", other
        with open(BEFORE, "w") as f:
            f.write("{")
        damaged = module(sysctls={"net.ipv4.ip_forward": 0})
        assert damaged["failed"] and BEFORE in damaged["msg"] and proc(FORWARD) == "1", damaged
    """)


def test_a_setting_that_this_kernel_lacks_is_named_and_the_rest_is_set():
    in_namespaces("""
        result = module(sysctls={"net.ipv4.no_such_thing": 1, "net.ipv4.ip_forward": 1})
        assert result["failed"] and "net.ipv4.no_such_thing" in result["msg"] and proc(FORWARD) == "1", result
    """)


# A router that advertises itself, or a prefix alone, in a namespace of its own.
ROUTER = """
import socket, struct, subprocess, sys, time
sys.stdin.readline()
subprocess.run(["ip", "link", "set", "lan", "up"], check=True)
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("lan"))
while True:
    try:
        # RFC 4861, 4.2 and 4.6.2: type 134, a default router for so many seconds; a prefix on the link, to make addresses of
        prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:7::")
        s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, LIFETIME, 0, 0) + prefix, ("ff02::1", 0))
    except OSError:  # no address yet
        pass
    time.sleep(0.1)
"""


@pytest.mark.parametrize(("lifetime", "destination"), [(1800, "default"), (0, "2001:db8:7::/64")])
def test_router_advertisements_stay_heard_where_they_gave_a_route(lifetime, destination):
    head = "ROUTER, DESTINATION = %r, %r\n" % ("LIFETIME = %d\n" % lifetime + ROUTER, destination)
    in_namespaces(head + textwrap.dedent("""
        import time

        def learned_route():
            done = subprocess.run(["ip", "-json", "-6", "route", "show", DESTINATION, "dev", "up.7"], stdout=subprocess.PIPE, check=True)
            return json.loads(done.stdout or b"[]")

        def until(condition):
            deadline = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < deadline, (learned_route(), router.poll())
                time.sleep(0.05)

        for command in ("ip link add name up.7 type veth peer name lan", "ip link add name pod type veth peer name eth0"):
            subprocess.run(command.split(), check=True)
        router = subprocess.Popen(["unshare", "--net", sys.executable, "-c", ROUTER], stdin=subprocess.PIPE)
        try:
            until(lambda: os.readlink("/proc/%d/ns/net" % router.pid) != os.readlink("/proc/self/ns/net"))
            subprocess.run(["ip", "link", "set", "lan", "netns", str(router.pid)], check=True)
            for name in ("up.7", "pod", "eth0"):
                subprocess.run(["ip", "link", "set", name, "up"], check=True)
            router.stdin.write(b"go\\n")
            router.stdin.close()
            until(learned_route)
            result = module(sysctls=WANTED)
            subjects = [c["subject"] for c in result["changes"] if c["subject"].startswith("sysctl")]
            assert subjects[0] == "sysctl net.ipv6.conf.up/7.accept_ra" and "sysctl net.ipv6.conf.all.forwarding" in subjects, subjects
            assert (proc("net/ipv6/conf/up.7/accept_ra"), proc("net/ipv6/conf/pod/accept_ra")) == ("2", "1")
            # Still heard: the route comes back after it was taken away.
            subprocess.run(["ip", "-6", "route", "del", DESTINATION, "dev", "up.7"], check=True)
            until(learned_route)
            assert not module(sysctls=WANTED)["changed"]
            # A host without IPv6 for a while has the setting still, and the file has it no more.
            module(sysctls={"net.ipv4.ip_forward": 1})
            assert "accept_ra" not in text(FILE) and proc("net/ipv6/conf/up.7/accept_ra") == "2"
            module(sysctls=WANTED)
            assert "net.ipv6.conf.up/7.accept_ra = 2" in text(FILE)
            module(state="absent")
            assert (proc("net/ipv6/conf/up.7/accept_ra"), proc(FORWARD6)) == ("1", "0")
        finally:
            router.kill()
            router.wait()
    """))
