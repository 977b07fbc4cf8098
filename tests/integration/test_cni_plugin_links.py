# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cni_plugin_links on a host, judged by what is in the folders."""

from __future__ import annotations

import json
import os

import pytest
from cni_sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MODULE = "kindnet.host.cni_plugin_links"
BIN = "/opt/cni/bin"
FOUR = ["host-local", "loopback", "portmap", "ptp"]

PASS = """
import sys
sys.path.insert(0, ".")
from plugins.module_utils import _desired, _plugin_links as links
section = _desired.load().sections["cni_plugins"]
plan = links.plan(section, links.read(section, None))
%s
assert not links.apply(section, plan)
print([change.subject for change in plan.changes])
"""


@pytest.fixture
def host(tmp_path):
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


def one_pass(host, more="", check=True):
    return host.run("/usr/bin/python3", "-I", "-c", PASS % more, check=check)


def links(host):
    return dict(line.split(" -> ") for line in host.sh("find %s -type l -printf '%%f -> %%l\\n' | sort" % BIN).splitlines())


def fails(host, args, *said):
    before = host.tree("/opt/cni", "/etc/kindnet")
    for check in (True, False):
        result = host.module(MODULE, args, check)
        assert result.get("failed"), result
        assert host.tree("/opt/cni", "/etc/kindnet") == before
        for part in said:
            assert part in result["msg"]


def test_links_are_made_and_taken_away(host):
    _check, real = host.played_quartets(MODULE, [{}])[0]
    assert links(host) == {p: "/usr/lib/cni/" + p for p in FOUR}
    assert real["links"] == {"%s/%s" % (BIN, p): "/usr/lib/cni/" + p for p in FOUR}
    assert host.sh("stat -c '%%a %%U:%%G' /opt/cni %s" % BIN) == "755 root:root\n755 root:root\n"
    for plugin in FOUR:
        host.run("test", "-x", "%s/%s" % (BIN, plugin))
    host.quartet(MODULE, {"state": "absent"})
    assert not host.exists("/opt/cni") and not host.exists("/etc/kindnet/desired.json")


def test_what_others_put_there_stays(host):
    host.sh("mkdir -p %s; cp /usr/lib/cni/ptp %s; ln -s /usr/lib/cni/portmap %s/portmap; echo x > %s/flannel" % (BIN, BIN, BIN, BIN))
    before = host.sh("find %s -printf '%%p %%y %%s %%l %%T@\\n' | grep -e ptp -e portmap -e flannel | sort" % BIN)
    host.quartet(MODULE, {})
    assert set(links(host)) == {"host-local", "loopback", "portmap"}
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh("find %s -printf '%%p %%y %%s %%l %%T@\\n' | grep -e ptp -e portmap -e flannel | sort" % BIN) == before
    assert host.sh("ls -A " + BIN) == "flannel\nportmap\nptp\n"


def test_a_link_of_others_that_led_nowhere_comes_back(host):
    host.sh("mkdir -p %s; ln -s /usr/libexec/cni/ptp %s/ptp" % (BIN, BIN))
    host.quartet(MODULE, {})
    assert host.sh("readlink %s/ptp" % BIN) == "/usr/lib/cni/ptp\n"
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh("ls -A %s; readlink %s/ptp" % (BIN, BIN)) == "ptp\n/usr/libexec/cni/ptp\n"
    assert not host.exists("/var/lib/kindnet")


def test_a_link_of_others_that_leads_elsewhere_and_nowhere_is_a_problem(host):
    host.sh("mkdir -p %s; ln -s /srv/ptp %s/ptp" % (BIN, BIN))
    for check in (True, False):
        result = host.module(MODULE, {}, check)
        assert result["failed"] and "link %s/ptp: leads nowhere ('/srv/ptp'), and is not ours to change" % BIN in result["msg"]
        assert [c["subject"] for c in result["changes"] if c["subject"].startswith("link ")] == ["link %s/%s" % (BIN, p) for p in FOUR if p != "ptp"]
    assert host.sh("readlink %s/ptp; ls -A %s" % (BIN, BIN)).split() == ["/srv/ptp"] + FOUR
    host.sh("rm %s/ptp" % BIN)
    host.quartet(MODULE, {})
    assert set(links(host)) == set(FOUR)
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh("ls -A " + BIN) == "" and not host.exists("/var/lib/kindnet")


# What is there of others before the first converge: the folder, or nothing; and what must be there after teardown.
FOREIGN = {
    "nothing": ":",
    "the folder": "mkdir -p " + BIN,
    "a plugin and a link": f"mkdir -p {BIN}; cp /usr/lib/cni/ptp {BIN}; ln -s /usr/lib/cni/portmap {BIN}/portmap",
    "a link of ours to be": f"mkdir -p {BIN}; ln -s /usr/libexec/cni/ptp {BIN}/ptp",
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("converged_again", [False, True])
def test_the_record_is_lost_and_still_all_of_ours_goes_and_nothing_else(host, foreign, converged_again):
    host.sh(FOREIGN[foreign])
    state = "[ ! -e /opt/cni ] || find /opt/cni -printf '%p %y %m %l\n' -type f -exec md5sum {} + | sort"
    before = host.sh(state)
    host.quartet(MODULE, {})
    made = host.sh(state)
    host.sh("rm /etc/kindnet/desired.json")
    if converged_again:
        result = host.module(MODULE, {})
        assert [c["subject"] for c in result["changes"]] == ["/etc/kindnet/desired.json"]
        host.sh("rm %s/loopback; ln -sfn /usr/libexec/cni/host-local %s/host-local" % (BIN, BIN))
        one_pass(host)
        assert host.sh(state) == made
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh(state) == before
    assert not host.exists("/var/lib/kindnet")


def test_the_record_is_lost_after_a_link_moved(host):
    host.sh("mount -t tmpfs none /mnt; mkdir /mnt/a /mnt/b; cp /usr/lib/cni/ptp /mnt/a; cp /usr/lib/cni/ptp /mnt/b")
    args = {"plugins": ["ptp"], "source_dirs": ["/mnt/a", "/mnt/b"]}
    host.quartet(MODULE, args)
    host.sh("rm /mnt/a/ptp")
    host.quartet(MODULE, args)
    host.sh("rm /etc/kindnet/desired.json")
    host.quartet(MODULE, {"state": "absent"})
    assert not host.exists("/opt/cni") and not host.exists("/var/lib/kindnet")


def test_absent_takes_away_nothing_that_became_somebody_elses(host):
    host.quartet(MODULE, {})
    host.sh("rm %s/ptp %s/portmap; cp /usr/lib/cni/ptp %s; ln -s /srv/portmap %s/portmap" % (BIN, BIN, BIN, BIN))
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh("ls -A " + BIN) == "portmap\nptp\n"


def test_what_a_run_made_that_recorded_nothing_is_taken_away_too(host):
    host.quartet(MODULE, {"persist": False})
    assert not host.exists("/etc/kindnet/desired.json")
    host.quartet(MODULE, {"state": "absent"})
    assert not host.exists("/opt/cni") and not host.exists("/var/lib/kindnet")


def test_two_runs_that_record_nothing_leave_each_other_alone(host):
    for _again in range(2):
        for folder in (BIN, "/opt/other/bin"):
            host.module(MODULE, {"persist": False, "bin_dir": folder})
            assert set(links(host)) == set(FOUR)
    assert host.sh("ls -A /opt/other/bin").split() == FOUR
    assert host.module(MODULE, {"persist": False})["changed"] is False


def test_what_nobody_recorded_stays(host):
    host.sh("mkdir -p %s; for p in %s; do ln -s /usr/lib/cni/$p %s/$p; done" % (BIN, " ".join(FOUR), BIN))
    result = host.module(MODULE, {"state": "absent"})
    assert result["changed"] is False and set(links(host)) == set(FOUR)


def test_another_folder_and_fewer_plugins(host):
    host.quartet(MODULE, {})
    host.quartet(MODULE, {"plugins": ["ptp"], "bin_dir": "/opt/other/bin"})
    assert host.sh("ls -A %s /opt/other/bin" % BIN) == "%s:\n\n/opt/other/bin:\nptp\n" % BIN
    host.quartet(MODULE, {"state": "absent"})
    assert not host.exists("/opt/other") and not host.exists("/opt/cni")


@pytest.mark.parametrize(
    "drift",
    ["rm {0}/ptp", "rm -r /opt/cni", "ln -sfn /usr/libexec/cni/ptp {0}/ptp", "ln -s /x {0}/.ptp.kindnet-tmp", "echo > {0}/.ptp.kindnet-tmp"],
)
def test_a_pass_repairs(host, drift):
    host.quartet(MODULE, {})
    host.sh(drift.format(BIN))
    check = host.module(MODULE, {}, True)
    assert check["changed"]
    assert json.loads(one_pass(host).stdout.replace("'", '"')) == [c["subject"] for c in check["changes"]]
    assert links(host) == {p: "/usr/lib/cni/" + p for p in FOUR}
    assert host.sh("ls -A " + BIN).split() == FOUR
    before = host.tree("/opt/cni", "/etc/kindnet")
    assert one_pass(host).stdout == "[]\n"
    assert host.tree("/opt/cni", "/etc/kindnet") == before


@pytest.mark.parametrize("at", ["symlink", "rename"])
def test_killed_while_linking(host, at):
    host.quartet(MODULE, {})
    host.sh("ln -sfn /usr/libexec/cni/ptp %s/ptp" % BIN)
    kill = "import os\nos.%s = lambda *unused: os.kill(os.getpid(), 9)" % at
    assert one_pass(host, kill, check=False).returncode in (-9, 137)
    assert links(host)["ptp"] == "/usr/libexec/cni/ptp"  # the old one, not none
    assert host.exists(BIN + "/.ptp.kindnet-tmp") is (at == "rename")
    one_pass(host)
    assert links(host) == {p: "/usr/lib/cni/" + p for p in FOUR}


def test_the_package_went_away(host):
    host.sh("mount -t tmpfs none /mnt; cp /usr/lib/cni/ptp /mnt")
    args = {"plugins": ["ptp"], "source_dirs": ["/mnt"]}
    host.quartet(MODULE, args)
    host.sh("rm /mnt/ptp")
    fails(host, args, "ptp", "/mnt", "containernetworking-plugins")
    done = one_pass(host, "print(plan.problems[0].message)")
    assert done.stdout.startswith("/mnt/ptp is not there. Install the reference plugins")


def test_the_first_source_that_has_it_wins(host):
    host.sh("mount -t tmpfs none /mnt; mkdir /mnt/a /mnt/b; cp /usr/lib/cni/ptp /mnt/b; cp /usr/lib/cni/ptp /mnt/a; chmod -x /mnt/a/ptp")
    args = {"plugins": ["ptp"], "source_dirs": ["/mnt/a", "/mnt/b"]}
    host.quartet(MODULE, args)
    assert links(host) == {"ptp": "/mnt/b/ptp"}
    host.sh("chmod +x /mnt/a/ptp")
    assert host.module(MODULE, args)["changed"] is False  # and stays it while it is there


def test_plugins_that_the_play_installs_are_predicted_and_not_more(host):
    host.sh("mount -t tmpfs none /mnt")
    args = {"plugins": ["ptp"], "source_dirs": ["/mnt"], "tools_predicted": True}
    check = host.module(MODULE, args, True)
    assert check["changed"] and not check.get("failed")
    real = host.module(MODULE, args)
    assert real["failed"] and not host.exists("/opt/cni")
    host.sh("cp /usr/lib/cni/ptp /mnt")
    installed = host.module(MODULE, args)
    assert installed["changes"] == check["changes"] and installed["diff"] == check["diff"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"plugins": ["../../../etc/passwd"]}, "is not the name of a CNI plugin"),
        ({"plugins": ["no-such"]}, "no-such"),
        ({"bin_dir": "/etc/passwd"}, "is no folder"),
        ({"bin_dir": "bin"}, "is not a plain absolute path"),
        ({"cluster_name": "another"}, "member of cluster 'kindnet'"),
    ],
)
def test_bad_input_changes_nothing(host, args, said):
    host.quartet(MODULE, {})
    fails(host, args, said)
