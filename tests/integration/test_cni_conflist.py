# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cni_conflist on a host: through ansible-playbook and its templating, with the real plugins, judged by files, the kernel and pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from cni_runtime import cni, ip
from cni_sandbox import ROOT, Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MODULE = "kindnet.host.cni_conflist"
PATH = "/etc/cni/net.d/10-kindnet.conflist"
TEMPORARY = "/etc/cni/net.d/.10-kindnet.conflist.kindnet-tmp"
DESIRED = "/etc/kindnet/desired.json"
BEFORE = "/var/lib/kindnet/before.json"
WAS = "what was at " + PATH
OURS = ("/etc/cni", "/etc/kindnet", "/opt/cni")

# What a pass of the timer does for this concern.
PASS = """
import sys
sys.path.insert(0, ".")
from plugins.module_utils import _conflist, _desired
section = _desired.load().sections["conflist"]
plan = _conflist.plan(section, _conflist.read(section, None))
assert not _conflist.apply(section, plan)
print([change.subject for change in plan.changes])
"""


@pytest.fixture
def host(tmp_path):
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


def kindnetd(routes=("0.0.0.0/0",), subnets=("10.244.0.0/24",), mtu=1500, name="kindnet"):
    """What kindnetd writes."""
    ptp = {
        "type": "ptp",
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-ipam-state",
            "routes": [{"dst": r} for r in routes],
            "ranges": [[{"subnet": s}] for s in subnets],
        },
    }
    if mtu:
        ptp["mtu"] = mtu
    return {"cniVersion": "0.3.1", "name": name, "plugins": [ptp, {"type": "portmap", "capabilities": {"portMappings": True}}]}


def given(*args, **more):
    """Arguments of the module as the action plugin hands them over."""
    return {"conflist": kindnetd(*args, **more)}


def fails(host, args, *said):
    """Run in check mode and for real, expect one clear error and nothing changed."""
    before = host.tree(*OURS)
    for mode in (True, False):
        result = host.module(MODULE, args, mode)
        assert result.get("failed"), result
        assert host.tree(*OURS) == before
        for part in said:
            assert part in result["msg"]


def converge(host, **more):
    result = host.module(MODULE, dict(given(), **more))
    assert not result.get("failed"), result


def uplink(host, name, address, mtu):
    host.sh("ip link add %s mtu %d type veth peer name %s-far; ip addr add %s dev %s; ip link set %s up" % (name, mtu, name, address, name, name))


def one_pass(host):
    return json.loads(host.run("/usr/bin/python3", "-I", "-c", PASS).stdout.replace("'", '"'))


SAYS = [
    ({"pod_cidrs": ["10.244.0.0/24"], "mtu": 1500}, kindnetd()),
    ({"pod_cidrs": "10.244.0.0/24"}, kindnetd(mtu=None)),
    ({"pod_cidrs": ["10.244.0.0/24", "fd00:10:244::/64"], "mtu": 1500}, kindnetd(("0.0.0.0/0", "::/0"), ("10.244.0.0/24", "fd00:10:244::/64"))),
    ({"pod_cidrs": ["FD00:10:244:0::/64", "10.244.0.0/24"], "mtu": 1500}, kindnetd(("::/0", "0.0.0.0/0"), ("fd00:10:244::/64", "10.244.0.0/24"))),
    ({"pod_cidrs": ["fd00:10:244::/64"], "mtu": "1400", "name": "six"}, kindnetd(("::/0",), ("fd00:10:244::/64",), 1400, "six")),
    ({"conflist": json.dumps(kindnetd())}, kindnetd()),
]


def test_the_file_says_what_kindnetd_says(host):
    host.played_quartets(MODULE, [dict(args, path="/etc/cni/net.d/%d.conflist" % i, persist=False) for i, (args, _expected) in enumerate(SAYS)])
    for i, (_args, expected) in enumerate(SAYS):
        assert host.json("/etc/cni/net.d/%d.conflist" % i) == expected
    assert not host.exists(DESIRED)


def test_the_file_is_made_and_recorded(host):
    host.played_quartets(MODULE, [SAYS[0][0]])
    assert host.json(PATH) == kindnetd()
    assert host.sh("stat -c '%a %U:%G %F' " + PATH) == "644 root:root regular file\n"
    assert host.sh("ls -A /etc/cni/net.d") == "10-kindnet.conflist\n"
    assert host.json(DESIRED)["sections"]["conflist"]["conflist"] == kindnetd()


def test_diff_shows_both_sides_as_json(host):
    host.write(PATH, json.dumps(kindnetd(mtu=1400)))
    _check, real = host.quartet(MODULE, dict(given(), persist=False))
    subject = "file %s: " % PATH
    assert json.loads(real["diff"]["before"][len(subject) :]) == kindnetd(mtu=1400)
    assert json.loads(real["diff"]["after"].partition(subject)[2]) == kindnetd()


def test_a_hardened_umask_does_not_close_the_folders(host):
    converge(host)
    host.sh("rm -r /etc/cni")
    host.run("sh", "-euc", "umask 077; exec /usr/bin/python3 -I -c \"$1\"", "sh", PASS)
    assert host.sh("stat -c %a /etc/cni /etc/cni/net.d " + PATH) == "755\n755\n644\n"


# --- templates


def test_a_template_of_the_users(host):
    template = str(host.playbooks / "templates" / "mine.j2")
    host.write(
        template,
        """{# a bridge instead #}
{% set bridge = {"type": "bridge", "bridge": site_bridge, "mtu": mtu, "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}} %}
{{ {"cniVersion": cni_version, "name": name, "plugins": [bridge, {"type": "portmap", "note": families | join("+") ~ quoted}]} | to_json }}
""",
    )
    uplink(host, "up0", "172.18.0.3/16", 1380)
    variables = {"site_bridge": 'br"0\n', "quoted": ' "it\'s"\\'}
    args = {"pod_cidrs": ["10.244.0.0/24", "fd00::/64"], "template": "mine.j2", "mtu": "auto", "peer_ips": ["172.18.0.2"]}
    host.played_quartets(MODULE, [args], variables)
    data = host.json(PATH)
    assert data["plugins"][0]["bridge"] == 'br"0\n'
    assert data["plugins"][0]["mtu"] == 1380
    assert data["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00::/64"}]]
    assert data["plugins"][1]["note"] == 'ipv4+ipv6 "it\'s"\\'


GARBAGE = [
    ("hello\n", ["line 1 column 1", "something else than JSON", "hello"]),
    ('{"cniVersion": "0.3.1",\n "name": "kindnet",\n "plugins": [,]}\n', ["line 3 column 14", "something else than JSON"]),
    ('{"subnet": "{{ pod_cidrs[0] }}"}\n', ["is not a conflist", "cniVersion"]),
    ("[]\n", ["is not a conflist but a list"]),
    ("", ["renders to nothing"]),
    ("{# only this #}", ["renders to nothing"]),
    ("{{ [1, 2] }}", ["template"]),
    ("{{ nowhere }}\n", ["does not render", "nowhere"]),
    ("{% if %}\n", ["does not render"]),
    ('{"cniVersion": "0.3.1", "name": "a\\nb", "plugins": [{"type": "ptp"}]}\n', ["is not a name of a CNI network"]),
    ('{"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "../../../bin/sh"}]}\n', ["is not the name of a CNI plugin"]),
]


def test_a_template_that_renders_to_something_else(host):
    converge(host)
    before = host.tree(*OURS)
    paths = [str(host.playbooks / ("bad%d.j2" % i)) for i in range(len(GARBAGE))]
    for path, (template, _said) in zip(paths, GARBAGE):
        host.write(path, template)
    paths.append("nowhere.j2")
    results = host.play(MODULE, [({"pod_cidrs": ["10.244.0.0/24"], "template": path}, check) for path in paths for check in (True, False)])
    for i, result in enumerate(results):
        path, said = paths[i // 2], (GARBAGE[i // 2] if i // 2 < len(GARBAGE) else ("", ["nowhere.j2"]))[1]
        assert result.get("failed"), path
        for part in ["localhost: ", "template " + path, *said][: None if said != ["nowhere.j2"] else 1]:
            assert part in result["msg"]
        # nothing was sent: a module that ran would have left its own arguments
        assert "invocation" not in result
    assert host.tree(*OURS) == before
    assert "Traceback" not in host.output


BAD = [
    ({"pod_cidrs": []}, "there is no pod CIDR"),
    ({}, "there is no pod CIDR"),
    ({"pod_cidrs": ["10.244.0.1/24"]}, "Write 10.244.0.0/24"),
    ({"pod_cidrs": ['10.244.0.0/24"}]], "x": [["']}, "valid prefix length"),
    ({"pod_cidrs": ["10.244.0.0/24", "10.244.1.0/24"]}, "more than one pod CIDR of a family"),
    ({"pod_cidrs": ["10.244.0.0/24"], "name": 'a", "x": "'}, "is not a name of a CNI network"),
    ({"pod_cidrs": ["10.244.0.0/24"], "name": "a\nb"}, "is not a name of a CNI network"),
    ({"pod_cidrs": ["10.244.0.0/24"], "name": "../../etc"}, "is not a name of a CNI network"),
    ({"pod_cidrs": ["10.244.0.0/24"], "cni_version": '0.3.1"'}, "is not a version of the CNI specification"),
    ({"pod_cidrs": ["10.244.0.0/24"], "mtu": "large"}, "is not an MTU"),
    ({"pod_cidrs": ["fd00::/64"], "mtu": 1000}, "is not an MTU for IPv6"),
    ({"pod_cidrs": ["10.244.0.0/24"], "path": "/etc/cni/net.d/../x.conflist"}, "is not a plain absolute path"),
    ({"pod_cidrs": ["10.244.0.0/24"], "path": "/etc/cni/net.d/x.conf"}, "does not end in .conflist"),
    ({"pod_cidrs": ["10.244.0.0/24"], "mtu": "auto", "peer_ips": ["k8s-guide-worker"]}, "is not an IP address"),
    ({"conflist": "{"}, "JSON"),
    ({"conflist": {"name": "kindnet"}}, "cniVersion"),
    ({"conflist": {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp"}]}, "template": "x.j2"}, "excludes template"),
    ({"pod_cidrs": ["10.244.0.0/24"], "cluster_name": "another"}, "member of cluster 'kindnet'"),
]


def test_bad_input_changes_nothing(host):
    converge(host)
    before = host.tree(*OURS)
    results = host.play(MODULE, [(args, check) for args, _said in BAD for check in (True, False)])
    for i, result in enumerate(results):
        assert result.get("failed"), BAD[i // 2]
        assert BAD[i // 2][1] in result["msg"]
    assert host.tree(*OURS) == before
    assert "Traceback" not in host.output


# --- MTU


def test_mtu_auto_is_the_smallest_of_the_interfaces_that_reach_the_peers(host):
    uplink(host, "up0", "172.18.0.3/16", 1450)
    uplink(host, "up1", "fd00:18::3/64", 1400)
    uplink(host, "up2", "192.0.2.1/24", 1300)  # leads to no peer
    peers = ["172.18.0.2", "172.18.0.4", "fd00:18::2", "172.18.0.3", "203.0.113.1"]  # the fourth is this host, the fifth has no route
    args = dict(given(mtu="auto"), peer_ips=json.dumps(peers))
    _check, real = host.quartet(MODULE, args)
    assert host.json(PATH) == kindnetd(mtu=1400)
    assert real["mtu_interfaces"] == {"up0": "172.18.0.2", "up1": "fd00:18::2"}
    # a member more, or in another order, is no change
    more = host.module(MODULE, dict(args, peer_ips=["172.18.0.9", *peers[::-1]]))
    assert more["changed"] is False
    # nor is a run that sees no peer, as one from an inventory of this host alone
    alone = host.module(MODULE, dict(args, peer_ips=[]))
    assert alone["changed"] is False, alone
    # decided at converge: a pass keeps it, and tells
    host.sh("ip link set up1 mtu 1320")
    assert one_pass(host) == []
    said = host.run("/usr/bin/python3", "-I", "-c", PASS + "print(_conflist.mtu_today(section))").stdout.splitlines()[1]
    assert said == "mtu auto: 1400 was decided at converge; it would be 1320 today, that of up1."
    host.quartet(MODULE, args)
    assert host.json(PATH) == kindnetd(mtu=1320)
    assert host.run("/usr/bin/python3", "-I", "-c", PASS + "print(_conflist.mtu_today(section))").stdout == "[]\n\n"


@pytest.mark.parametrize("peers", [[], ["203.0.113.1"], ["172.18.0.3"]], ids=["none", "no route", "this host"])
def test_mtu_auto_without_a_way_keeps_what_the_file_says(host, peers):
    host.sh("ip addr add 172.18.0.3/32 dev lo")
    args = dict(given(mtu="auto"), peer_ips=peers)
    host.write(PATH, json.dumps(kindnetd(mtu=1442)))
    host.quartet(MODULE, args)
    assert host.json(PATH) == kindnetd(mtu=1442)
    # recorded by now: what became of the file does not count
    host.write(PATH, json.dumps(kindnetd(mtu=9000)))
    again = host.module(MODULE, args)
    assert again["changed"] and host.json(PATH) == kindnetd(mtu=1442)


def test_mtu_auto_is_left_out_when_nothing_tells_it(host):
    host.quartet(MODULE, given(mtu="auto"))
    assert host.json(PATH) == kindnetd(mtu=None)


def test_a_long_list_of_peers_is_not_repeated(host):
    peers = ["172.18.%d.%d" % (i // 200, i % 200 + 5) for i in range(2000)]
    uplink(host, "up0", "172.18.0.3/16", 1450)
    result = host.play(MODULE, [({"pod_cidrs": ["10.244.0.0/24"], "mtu": "auto", "peer_ips": peers}, False)])[0]
    assert host.json(PATH) == kindnetd(mtu=1450)
    assert "172.18.9.204" in peers and "172.18.9.204" not in json.dumps(result) and "172.18.9.204" not in host.output
    assert "172.18.9.204" not in host.read(DESIRED)


# --- plugins

FAKE = "#!/bin/sh\n%s\n"


@pytest.mark.parametrize(
    ("script", "mode", "said"),
    [
        (None, "", ["portmap", "is in none of /nowhere, /mnt/plugins", "containernetworking-plugins"]),
        ("echo '{}'", "755", ["/plugins/portmap", "does not say its versions"]),
        ("exit 3", "755", ["/plugins/portmap", "exit code 3"]),
        ("""echo '{"supportedVersions": ["0.1.0"]}'""", "755", ["/plugins/portmap", "does not speak CNI 0.3.1", "0.1.0"]),
        ("", "644", ["/plugins/portmap", "does not run"]),
    ],
    ids=["missing", "says nothing", "fails", "too old", "not executable"],
)
def test_a_plugin_that_is_missing_or_does_not_work(host, script, mode, said):
    host.sh("mount -t tmpfs none /mnt; mkdir /mnt/plugins; for p in ptp host-local loopback; do cp /usr/lib/cni/$p /mnt/plugins; done")
    if script is not None:
        host.write("/mnt/plugins/portmap", FAKE % script)
        host.sh("chmod %s /mnt/plugins/portmap" % mode)
    fails(host, dict(given(), plugin_dirs=["/nowhere", "/mnt/plugins"]), *said)


@pytest.mark.parametrize("gone", ["ptp", "host-local", "portmap", "loopback"])
def test_every_plugin_that_a_runtime_executes_is_looked_for(host, gone):
    host.sh("mount -t tmpfs none /mnt; cp /usr/lib/cni/ptp /usr/lib/cni/host-local /usr/lib/cni/portmap /usr/lib/cni/loopback /mnt; rm /mnt/" + gone)
    fails(host, dict(given(), plugin_dirs=["/mnt"]), "CNI plugin: %s: is in none of /mnt" % gone)


def test_plugins_that_the_play_installs_are_predicted_and_not_more(host):
    args = dict(given(), plugin_dirs=["/nowhere"], tools_predicted=True)
    check, real = host.module(MODULE, args, True), host.module(MODULE, args)
    assert check["changed"] and not check.get("failed")
    assert real["failed"] and "is in none of /nowhere" in real["msg"]
    assert not host.exists(PATH) and not host.exists(DESIRED)
    installed = host.module(MODULE, dict(args, plugin_dirs=["/usr/lib/cni"]))
    assert installed["changes"] == check["changes"] and installed["diff"] == check["diff"]


def test_another_version_of_cni(host):
    host.quartet(MODULE, {"conflist": dict(kindnetd(), cniVersion="0.4.0")})
    assert host.json(PATH)["cniVersion"] == "0.4.0"
    fails(host, {"conflist": dict(kindnetd(), cniVersion="9.9.9")}, "does not speak CNI 9.9.9")


# --- what is ours and what is not


def test_kindnetds_own_file_is_adopted(host):
    host.write(PATH, json.dumps(kindnetd()))
    inode = host.sh("stat -c '%i %Y' " + PATH)
    _check, real = host.quartet(MODULE, given())
    assert [c["subject"] for c in real["changes"]] == [WAS, DESIRED]
    assert host.sh("stat -c '%i %Y' " + PATH) == inode
    # and is still there when we are not
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh("stat -c '%i %Y' " + PATH) == inode
    assert not host.module(MODULE, {"state": "absent"})["changed"] and host.exists(PATH)


def test_somebody_elses_file_is_refused(host):
    host.write(PATH, json.dumps(kindnetd(name="calico")))
    fails(host, given(), PATH, "'calico'", "Move it away")


def test_other_configurations_survive_and_are_told(host):
    host.write("/etc/cni/net.d/05-flannel.conflist", json.dumps(kindnetd(name="cbr0")))
    host.write("/etc/cni/net.d/99-loopback.conf", "{}")
    before = host.tree("/etc/cni/net.d/05-flannel.conflist", "/etc/cni/net.d/99-loopback.conf")
    _check, real = host.quartet(MODULE, given())
    assert "05-flannel.conflist sorts before 10-kindnet.conflist" in real["notes"][0] and "99-" not in str(real["notes"])
    host.quartet(MODULE, {"state": "absent"})
    assert host.tree("/etc/cni/net.d/05-flannel.conflist", "/etc/cni/net.d/99-loopback.conf") == before
    assert not host.exists(PATH)


# Of others, ahead of ours: a file, a link, a damaged one, a hidden one. And what no runtime comes to before ours.
RIVALS = {
    "05-flannel.conflist": "umask 077; echo '%s' >05-flannel.conflist; chown 1:2 05-flannel.conflist" % json.dumps(kindnetd(name="cbr0")),
    "06-linked.conf": "ln -s ../elsewhere 06-linked.conf",
    "07-damaged.json": "printf '{' >07-damaged.json",
    ".hidden.conflist": "echo '%s' >.hidden.conflist" % json.dumps(kindnetd(name="hidden")),
}
BYSTANDERS = "mkdir 05-folder.conflist; echo x >05-flannel.conflist.bak; echo '{}' >99-loopback.conf"
STATE = "cd /etc/cni; find . -printf '%p %y %m %U:%G %i %T@ %l\\n' | grep -v ' d ' | sort; find . -type f -exec md5sum {} + | sort"


def rivals(host, *names):
    host.sh("mkdir -p /etc/cni/net.d; cd /etc/cni/net.d; %s; %s" % (BYSTANDERS, "; ".join(RIVALS[n] for n in names or RIVALS)))


def test_what_is_in_the_way_is_refused(host):
    rivals(host)
    fails(host, dict(given(), conflicts="fail"), ".hidden.conflist, /etc/cni/net.d/05-flannel.conflist, ", "07-damaged.json is damaged", "set_aside")
    assert not host.exists(DESIRED) and not host.exists(BEFORE)
    host.sh("cd /etc/cni/net.d; rm 0[67]* .hidden.conflist; mv 05-flannel.conflist 50-flannel.conflist")
    _check, real = host.quartet(MODULE, dict(given(), conflicts="fail"))
    assert not real["notes"]
    # A later one is a pass's problem, and the next converge's refusal.
    host.sh("cd /etc/cni/net.d; mv 50-flannel.conflist 05-flannel.conflist")
    before = host.tree(*OURS)
    assert "05-flannel.conflist sorts before 10-kindnet.conflist" in problems_of_a_pass(host)
    fails(host, dict(given(), conflicts="fail"), "05-flannel.conflist")
    assert host.tree(*OURS) == before


def problems_of_a_pass(host):
    said = host.run("/usr/bin/python3", "-I", "-c", PASS + "print([p.message for p in plan.problems])").stdout.splitlines()
    assert said[0] == "[]"
    return said[1]


@pytest.mark.parametrize("record_is_lost", [False, True])
def test_what_is_in_the_way_is_set_aside_and_comes_back(host, record_is_lost):
    rivals(host)
    before = host.sh(STATE)
    _check, real = host.quartet(MODULE, dict(given(), conflicts="set_aside"))
    assert [c["action"] for c in real["changes"] if c["subject"] == "file /etc/cni/net.d/05-flannel.conflist"] == ["replace"]
    names = host.sh("ls -A /etc/cni/net.d").split()
    assert [n for n in names if n.endswith(".kindnet-set-aside")] == sorted(n + ".kindnet-set-aside" for n in RIVALS)
    assert not set(names) & set(RIVALS) and "05-folder.conflist" in names
    # As libcni sorts and sees them, ours is the first.
    loaded = sorted(n for n in names if n.endswith((".conf", ".conflist", ".json")) and n != "05-folder.conflist")
    assert loaded == ["10-kindnet.conflist", "99-loopback.conf"]
    assert one_pass(host) == [] and problems_of_a_pass(host) == "[]"
    if record_is_lost:
        host.sh("rm " + DESIRED)
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh(STATE) == before
    assert not host.exists("/var/lib/kindnet")


def test_what_was_set_aside_stays_so_with_another_choice(host):
    rivals(host, "05-flannel.conflist")
    before = host.sh(STATE)
    host.quartet(MODULE, dict(given(), conflicts="set_aside"))
    host.quartet(MODULE, given())
    host.quartet(MODULE, dict(given(), conflicts="fail"))
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh(STATE) == before


def test_a_pass_moves_nothing_of_others(host):
    rivals(host, "05-flannel.conflist")
    host.quartet(MODULE, dict(given(), conflicts="set_aside"))
    host.sh("cd /etc/cni/net.d; " + RIVALS["07-damaged.json"])
    before = host.tree(*OURS)
    assert "07-damaged.json is damaged, with which containerd loads none" in problems_of_a_pass(host)
    assert host.tree(*OURS) == before
    host.quartet(MODULE, dict(given(), conflicts="set_aside"))
    assert host.exists("/etc/cni/net.d/07-damaged.json.kindnet-set-aside") and problems_of_a_pass(host) == "[]"


def test_nothing_is_overwritten_where_a_file_is_there_again(host):
    rivals(host, "05-flannel.conflist")
    host.quartet(MODULE, dict(given(), conflicts="set_aside"))
    host.write("/etc/cni/net.d/05-flannel.conflist", "{}")
    before = host.tree("/etc/cni")
    for check in (True, False):
        again = host.module(MODULE, dict(given(), conflicts="set_aside"), check)
        assert again["failed"] and "05-flannel.conflist: is there again" in again["msg"] and not again["changed"]
        assert host.tree("/etc/cni") == before
    _check, gone = host.quartet(MODULE, {"state": "absent"})
    assert "05-flannel.conflist is there again, so the one that was set aside stays" in gone["notes"][0]
    assert host.read("/etc/cni/net.d/05-flannel.conflist") == "{}"
    assert host.json("/etc/cni/net.d/05-flannel.conflist.kindnet-set-aside")["name"] == "cbr0"
    assert not host.exists("/var/lib/kindnet")


KILLED = """
import ctypes, json, os, sys
sys.path.insert(0, %r)
from ansible_collections.kindnet.host.plugins.module_utils import _before, _conflist, _converge, _desired, _files
kill = lambda *unused: os.kill(os.getpid(), 9)
%s
_converge.converge(_conflist, json.loads(sys.argv[1]), "kindnet", True, False, 5)
"""
AT = {
    "before it is remembered": "_before.remember_all = kill",
    "before it is recorded": "_desired.store = kill",
    "before ours is written": "_files.write_atomic = lambda path, *more, real=_files.write_atomic: kill() if path.endswith('.conflist') else real(path, *more)",
    "before it is renamed": "_files.rename_new = kill",
    "after it was renamed": "real = _files.rename_new; _files.rename_new = lambda *names: (real(*names), kill())",
}


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("then", ["converged again", "taken out"])
def test_killed_while_setting_aside(host, at, then):
    rivals(host, "05-flannel.conflist", "07-damaged.json")
    before = host.sh(STATE)
    params = dict(given(), conflicts="set_aside", path=PATH, state="present", plugin_dirs=["/usr/lib/cni"], persist=True)
    code = KILLED % (str(ROOT / ".ansible" / "collections"), AT[at])
    killed = host.run(sys.executable, "-c", code, json.dumps(params), check=False)
    assert killed.returncode in (-9, 137), killed.stderr
    if then == "converged again":
        host.quartet(MODULE, dict(given(), conflicts="set_aside"))
        assert "05-flannel.conflist\n" not in host.sh("ls -A /etc/cni/net.d") and host.json(PATH) == kindnetd()
    host.module(MODULE, {"state": "absent"})
    assert host.sh(STATE) == before
    assert not host.exists("/var/lib/kindnet")


@pytest.mark.parametrize("at", ["before", "after"])
def test_killed_while_bringing_back(host, at):
    rivals(host, "05-flannel.conflist", "07-damaged.json")
    before = host.sh(STATE)
    host.quartet(MODULE, dict(given(), conflicts="set_aside"))
    params = {"state": "absent", "path": PATH, "name": "kindnet"}
    code = KILLED % (str(ROOT / ".ansible" / "collections"), AT["before it is renamed" if at == "before" else "after it was renamed"])
    assert host.run(sys.executable, "-c", code, json.dumps(params), check=False).returncode in (-9, 137)
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh(STATE) == before
    assert not host.exists("/var/lib/kindnet")


def test_absent_leaves_nothing(host):
    everything = "find /etc /opt/cni /run -printf '%p %y %m %U:%G %l\\n' 2>/dev/null | grep -v '^/run/kindnet\\|^/etc/kindnet ' | sort"
    before = host.sh(everything)
    host.quartet(MODULE, given())
    host.write(PATH, "{")  # damaged, and still ours
    host.write(TEMPORARY, "{")
    host.quartet(MODULE, {"state": "absent"})
    # but for the lock, and the folder of desired.json, which are not this module's own
    assert host.sh(everything) == before


def test_absent_leaves_what_others_put_there(host):
    converge(host)
    host.write(PATH, json.dumps(kindnetd(name="calico")))
    result = host.module(MODULE, {"state": "absent"})
    assert [c["subject"] for c in result["changes"]] == [WAS, "folders made for conflist", DESIRED]
    assert host.json(PATH)["name"] == "calico" and PATH in result["notes"][0]
    assert not host.exists(BEFORE)


PRIORS = {
    "kindnetd's, open to nobody": "umask 077; printf %s '{FILE}' >" + PATH + "; chown 1:2 " + PATH,
    "damaged": "printf '{' >" + PATH,
    "not text": r"printf '\377\000' >" + PATH,
    "a link": "printf %s '{FILE}' >/etc/cni/kept; ln -s ../kept " + PATH,
    "a link that leads nowhere": "ln -s /srv/nowhere " + PATH,
}


@pytest.mark.parametrize("prior", PRIORS)
def test_what_was_there_before_comes_back(host, prior):
    state = "cd /etc/cni; find . -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -exec md5sum {} + | sort"
    host.sh("mkdir -p /etc/cni/net.d; " + PRIORS[prior].replace("{FILE}", json.dumps(kindnetd(mtu=1234))))
    before = host.sh(state)
    host.quartet(MODULE, given())
    assert host.json(PATH) == kindnetd()
    first = host.read(BEFORE)
    # What is there by now is ours, and not what was there before.
    host.module(MODULE, dict(given(), cni_version="0.4.0"))
    host.module(MODULE, dict(given(), persist=False))
    assert host.read(BEFORE) == first
    host.sh("rm " + DESIRED)
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh(state) == before
    assert not host.exists("/var/lib/kindnet")
    assert not host.module(MODULE, {"state": "absent"})["changed"] and host.sh(state) == before


def test_what_was_before_comes_back_where_ours_is_no_longer(host):
    """The configuration went to another path since, and ours is gone from where somebody's had been."""
    host.write(PATH, json.dumps(kindnetd(mtu=1234)))
    before = host.read(PATH)
    host.sh("mount -t tmpfs none /srv")
    host.quartet(MODULE, given())
    host.quartet(MODULE, dict(given(), path="/srv/net.d/10-kindnet.conflist"))
    assert not host.exists(PATH)
    host.quartet(MODULE, {"state": "absent"})
    assert host.read(PATH) == before and not host.exists("/srv/net.d") and not host.exists("/var/lib/kindnet")


def test_what_was_there_before_stays_away_from_what_is_no_longer_ours(host):
    host.write(PATH, json.dumps(kindnetd(mtu=1234)))
    host.quartet(MODULE, given())
    host.write(PATH, json.dumps(kindnetd(name="calico")))
    host.quartet(MODULE, {"state": "absent"})
    assert host.json(PATH)["name"] == "calico"


def test_what_was_there_is_kept_before_anything_is_recorded(host):
    host.write(PATH, json.dumps(kindnetd(mtu=1234)))
    host.sh("mkdir -p /var/lib/kindnet; mount -t tmpfs -o ro none /var/lib/kindnet")
    failed = host.module(MODULE, given())
    assert failed["failed"] and "/var/lib/kindnet" in failed["msg"]
    assert host.json(PATH) == kindnetd(mtu=1234) and not host.exists(DESIRED)


@pytest.mark.parametrize("prior", [":", "mkdir -p /etc/cni", "mkdir -p /etc/cni/net.d", "mkdir -p /etc/cni/net.d; echo x >/etc/cni/net.d/99-mine.conf"])
@pytest.mark.parametrize("converged_again", [False, True])
def test_the_record_is_lost_and_still_all_of_ours_goes_and_nothing_else(host, prior, converged_again):
    host.sh(prior)
    state = "[ ! -e /etc/cni ] || find /etc/cni -printf '%p %y %m %l\n' | sort"
    before = host.sh(state)
    host.quartet(MODULE, given())
    host.sh("rm " + DESIRED)
    if converged_again:
        assert [c["subject"] for c in host.module(MODULE, given())["changes"]] == [DESIRED]
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh(state) == before
    assert not host.exists("/var/lib/kindnet")


def test_absent_leaves_what_nobody_recorded(host):
    host.write(PATH, json.dumps(kindnetd()))
    result = host.module(MODULE, {"state": "absent"})
    assert not result["changed"] and "nobody recorded it as ours" in result["notes"][0] and host.json(PATH) == kindnetd()


def test_a_new_path_takes_the_old_file_away(host):
    converge(host)
    args = dict(given(), path="/etc/cni/net.d/20-kindnet.conflist")
    host.quartet(MODULE, args)
    assert host.sh("ls -A /etc/cni/net.d") == "20-kindnet.conflist\n"
    # also after a run that was killed in between
    host.write(PATH, json.dumps(kindnetd()))
    assert one_pass(host) == ["file " + PATH]
    host.quartet(MODULE, given())
    assert host.sh("ls -A /etc/cni/net.d") == "10-kindnet.conflist\n"
    host.quartet(MODULE, {"state": "absent"})
    assert not host.exists("/etc/cni")


# --- drift, and being killed


@pytest.mark.parametrize(
    "drift",
    [
        "rm {0}",
        "rm -r /etc/cni",
        ": > {0}",
        "truncate -s 100 {0}",
        "head -c 500 /dev/urandom > {0}",
        "sed -i s/1500/1400/ {0}",
        "chmod 600 {0}",
        "chown 1:1 {0}",
        "mv {0} /etc/elsewhere; ln -s /etc/elsewhere {0}",
        "rm {0}; ln -s /nowhere {0}",
        "rm {0}; mkfifo {0}",
        "echo '{{' > {1}",
        "ln -s /etc/passwd {1}",
    ],
)
def test_a_pass_repairs(host, drift):
    converge(host)
    passwd = host.tree("/etc/passwd")
    host.sh(drift.format(PATH, TEMPORARY))
    check = host.module(MODULE, given(), True)
    assert check["changed"]
    assert one_pass(host) == [c["subject"] for c in check["changes"]]
    assert host.json(PATH) == kindnetd()
    assert host.sh("stat -c '%a %u:%g %F' " + PATH) == "644 0:0 regular file\n"
    assert host.sh("ls -A /etc/cni/net.d") == "10-kindnet.conflist\n"
    assert host.tree("/etc/passwd") == passwd
    before = host.tree(*OURS)
    assert one_pass(host) == []
    assert host.tree(*OURS) == before


WRITER = """
import os, sys
sys.path.insert(0, ".")
from plugins.module_utils import _conflist, _desired
section = _desired.load().sections["conflist"]
for count in range(200):
    conflist = dict(section["conflist"], plugins=[dict(p) for p in section["conflist"]["plugins"]])
    conflist["plugins"][0]["mtu"] = 1400 + count % 2
    wanted = dict(section, conflist=conflist)
    plan = _conflist.plan(wanted, _conflist.read(wanted, None))
    assert plan.changes and not _conflist.apply(wanted, plan)
"""

READER = """
import json, os, sys
seen, reads = {}, 0
print("reading", flush=True)
for reads in range(1, 200001):
    with open(sys.argv[1], "rb") as f:
        mtu = json.load(f)["plugins"][0]["mtu"]
    seen[mtu] = seen.get(mtu, 0) + 1
    if os.path.exists("/run/writer-is-done"):
        break
print(json.dumps([reads, len(seen)]))
"""


def test_a_reader_never_sees_half_a_file(host):
    converge(host)
    reader = subprocess.Popen(host.command("/usr/bin/python3", "-I", "-c", READER, PATH), stdout=subprocess.PIPE, text=True)
    assert reader.stdout.readline() == "reading\n"
    host.run("/usr/bin/python3", "-I", "-c", WRITER)
    host.sh(": > /run/writer-is-done")
    out, _err = reader.communicate(timeout=60)
    assert reader.returncode == 0
    reads, different = json.loads(out)
    assert reads > 50 and different >= 2


@pytest.mark.parametrize("at", ["open", "write", "fchmod", "fsync", "rename"])
def test_killed_while_writing(host, at):
    """SIGKILL at each system call by which the file comes about."""
    converge(host)
    host.sh("sed -i s/1500/1400/ " + PATH)
    # with half of the content written, where that is possible
    kill = """
import os
def killed(*unused, real=os.%s):
    if "%s" == "write":
        real(unused[0], bytes(unused[1])[:100])
    os.kill(os.getpid(), 9)
os.%s = killed
""" % (at, at, at)
    body = PASS.replace("plan = ", kill + "plan = ", 1) if at != "open" else PASS.replace("assert not", kill + "assert not", 1)
    done = host.run("/usr/bin/python3", "-I", "-c", body, check=False)
    assert done.returncode in (-9, 137)
    assert host.json(PATH) == kindnetd(mtu=1400)  # the old file, whole
    assert host.exists(TEMPORARY) is (at != "open")
    assert one_pass(host)
    assert host.json(PATH) == kindnetd()
    assert host.sh("ls -A /etc/cni/net.d") == "10-kindnet.conflist\n"


# --- pods


def test_pods_get_the_network_of_the_guide(host):
    host.quartet(MODULE, given(("0.0.0.0/0", "::/0"), ("10.244.0.0/24", "fd00:10:244::/64"), 1400))
    conflist = host.json(PATH)
    host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    for pod in ("pod-1", "pod-2"):
        host.sh("ip netns add %s; ip -n %s link set lo up" % (pod, pod))
        cni(host, "ADD", pod, conflist)
    for number, pod in ((2, "pod-1"), (3, "pod-2")):
        address = "10.244.0.%d" % number
        (eth0,) = ip(host, "-n", pod, "address", "show", "eth0")
        assert eth0["mtu"] == 1400
        assert [(a["local"], a["prefixlen"]) for a in eth0["addr_info"] if a["scope"] == "global"] == [(address, 24), ("fd00:10:244::%d" % number, 64)]
        routes = {r["dst"]: r for r in ip(host, "-n", pod, "route")}
        assert set(routes) == {"default", "10.244.0.0/24", "10.244.0.1"}
        assert routes["default"]["gateway"] == routes["10.244.0.0/24"]["gateway"] == "10.244.0.1"
        assert routes["10.244.0.1"]["scope"] == "link" and "gateway" not in routes["10.244.0.1"]
        assert {r["dst"]: r.get("gateway") for r in ip(host, "-n", pod, "-6", "route")}["default"] == "fd00:10:244::1"
    # the node: one host route per pod, each to a veth of its own, all of which carry the one gateway address
    local = [r for r in ip(host, "route") if r["dst"].startswith("10.244.0.")]
    assert sorted(r["dst"] for r in local) == ["10.244.0.2", "10.244.0.3"]
    veths = {r["dev"] for r in local}
    assert len(veths) == 2
    for veth in veths:
        (link,) = ip(host, "address", "show", veth)
        assert ("10.244.0.1", 32) in [(a["local"], a["prefixlen"]) for a in link["addr_info"]]
    host.run("ip", "netns", "exec", "pod-1", "ping", "-c", "1", "-w", "30", "10.244.0.3")
    host.run("ip", "netns", "exec", "pod-2", "ping", "-6", "-c", "20", "-i", "0.3", "-W", "2", "fd00:10:244::2")  # the first go while addresses are tentative

    # A pod CIDR cannot move away under these pods.
    both = ("0.0.0.0/0", "::/0")
    moved = given(both, ("10.244.9.0/24", "fd00:10:244::/64"), 1400)
    fails(host, moved, "2 live allocations", "10.244.0.2 (pod-1), 10.244.0.3 (pod-2)", "force_pod_cidr_change")
    fails(host, given(both, ("10.244.0.0/24", "fd00:10:244::/64"), 1400, "renamed"), "4 live allocations")
    # A larger range that holds them may come, and so may anything else of the file.
    host.quartet(MODULE, given(both, ("10.244.0.0/23", "fd00:10:244::/64"), 1380))
    host.quartet(MODULE, dict(moved, force_pod_cidr_change=True))
    later = host.module(MODULE, moved)
    assert later["changed"] is False
    for pod in ("pod-1", "pod-2"):
        cni(host, "DEL", pod, conflist)
    host.quartet(MODULE, given())
