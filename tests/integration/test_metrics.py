# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of passes for node_exporter, as Prometheus' own promtool takes them, and the example rules for alerts. The oracle is ip, and the files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import time

import pytest
from reconcile_sandbox import AS_THE_TIMER, ROOT, Sandbox, without_priorities

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

LIBRARY = "/usr/local/lib/kindnet"
UNITS = "/etc/systemd/system"
FOLDER = "/var/lib/prometheus/node-exporter"
METRICS = FOLDER + "/kindnet.prom"
FORWARDING = {"sysctls": [["net/ipv4/ip_forward", "1"]]}
PEERS = [["n1", "10.244.1.0/24", "172.18.0.3"], ["n2", "10.244.2.0/24", "172.18.0.4"]]
ROUTES = {"node_name": "n0", "peers": PEERS, "protocol": 107, "table": 254}
SNAPSHOT = "find /run/kindnet /var/lib/kindnet /etc /var/lib/prometheus /usr/local/lib/kindnet -maxdepth 4 -printf '%p %y %m %U %s %l %T@ %C@\\n' | sort"


@pytest.fixture(scope="module")
def promtool():
    done = subprocess.run([ROOT / "lab/promtool"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


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
    """A node in sync, with an empty folder for metrics."""
    installed.desired(sysctl=FORWARDING, routes=ROUTES)
    assert installed.reconcile().returncode == 0
    installed.sh(f"find /run/kindnet -type f ! -name lock -delete; rm -rf {FOLDER}; mkdir -p {FOLDER}")
    return installed


def a_pass(node):
    """One as the service starts it: with the folder in its environment."""
    done = node.run("env", "KINDNET_TEXTFILE_DIR=" + FOLDER, *AS_THE_TIMER, check=False)
    done.stderr = without_priorities(done.stderr)
    return done


def metrics(node):
    lines = [line for line in node.read(METRICS).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _space, value in (line.rpartition(" ") for line in lines)}


def test_promtool_takes_it_as_it_is(node, promtool):
    a_pass(node)
    done = subprocess.run([promtool, "check", "metrics"], input=node.read(METRICS), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    broken = node.read(METRICS).replace("# TYPE kindnet_passes_total counter", "# TYPE kindnet_passes_total gauge")
    assert subprocess.run([promtool, "check", "metrics"], input=broken, capture_output=True, text=True, check=False).returncode != 0


def test_rules_fire_when_they_should_and_not_else(promtool):
    for arguments in (["check", "rules", "docs/alerts/kindnet.rules.yml"], ["test", "rules", "tests/alerts/kindnet.test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    # each rule has a test, and asks for metrics that there are
    rules = (ROOT / "docs/alerts/kindnet.rules.yml").read_text()
    tested = (ROOT / "tests/alerts/kindnet.test.yml").read_text()
    for name in [line.split()[-1] for line in rules.splitlines() if "- alert: " in line]:
        assert "        alertname: %s\n        exp_alerts:\n" % name in tested and ", alertname: %s}" % name in tested, name


def test_they_say_what_passes_did_and_what_ip_sees(node):
    began = time.time()
    assert a_pass(node).returncode == 0
    first = metrics(node)
    assert (first["kindnet_passes_total"], first["kindnet_failures_total"], first["kindnet_problems"], first["kindnet_paused"]) == (1, 0, 0, 0)
    assert (first["kindnet_peers_wanted"], first["kindnet_peers_present"]) == (2, 2)
    assert began <= first["kindnet_last_success_timestamp_seconds"] <= time.time() and 0 < first["kindnet_pass_duration_seconds"] < 60
    digest = os.path.basename(node.sh(f"readlink {LIBRARY}/current").strip())
    assert [name for name in first if digest in name] == [name for name in first if name.startswith("kindnet_build_info{")]

    node.sh("ip route flush proto 107; echo 0 >/proc/sys/net/ipv4/ip_forward")
    assert a_pass(node).returncode == 0
    second = metrics(node)
    assert (second["kindnet_passes_total"], second['kindnet_repairs_total{kind="routes"}'], second['kindnet_repairs_total{kind="sysctl"}']) == (2, 2, 1)
    assert second["kindnet_peers_present"] == len(node.sh("ip route show proto 107").splitlines()) == 2

    # one of the peers cannot be reached
    node.sh("ip route replace 10.244.1.0/24 via 172.18.0.9; ip route del 10.244.1.0/24 proto 107 || true")
    assert a_pass(node).returncode == 1
    third = metrics(node)
    assert (third["kindnet_peers_wanted"], third["kindnet_peers_present"], third["kindnet_problems"], third["kindnet_failures_total"]) == (2, 1, 1, 1)
    assert third["kindnet_last_success_timestamp_seconds"] == second["kindnet_last_success_timestamp_seconds"]
    assert third["kindnet_last_pass_timestamp_seconds"] > second["kindnet_last_pass_timestamp_seconds"]
    node.sh("ip route del 10.244.1.0/24")
    assert a_pass(node).returncode == 0 and metrics(node)["kindnet_peers_present"] == 2

    node.reconcile("--pause", "1h")
    assert a_pass(node).returncode == 0
    paused = metrics(node)
    assert (paused["kindnet_paused"], paused["kindnet_passes_total"]) == (1, 5) and "kindnet_peers_present" not in paused
    node.reconcile("--resume")
    assert a_pass(node).returncode == 0 and metrics(node)["kindnet_paused"] == 0


def test_a_clean_pass_writes_that_file_alone_and_one_by_hand_none(node):
    assert a_pass(node).returncode == 0
    before = [line for line in node.sh(SNAPSHOT).splitlines() if not line.startswith(FOLDER)]
    done = a_pass(node)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [line for line in node.sh(SNAPSHOT).splitlines() if not line.startswith(FOLDER)] == before
    assert node.sh(f"ls -A {FOLDER}") == "kindnet.prom\n" and node.sh(f"stat -c '%a %U' {METRICS}") == "644 root\n"
    before = node.sh(SNAPSHOT)
    assert node.reconcile(by_hand=True).returncode == 0 and node.reconcile().returncode == 0
    assert node.sh(SNAPSHOT) == before


TROUBLE = {
    "gone, on a disk that is read-only": f"rm -rf {FOLDER}; mount --bind /var/lib/prometheus /var/lib/prometheus; mount -o remount,ro,bind /var/lib/prometheus",
    "full": f"mount -t tmpfs -o size=4k none {FOLDER}; head -c 4096 /dev/zero >{FOLDER}/theirs",
    "a folder": f"mount -t tmpfs none {FOLDER}; mkdir -p {METRICS}/x",
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_folder_that_cannot_be_written_is_a_problem_told_once_and_costs_no_repair(node, trouble):
    place = "/var/lib/prometheus" if "read-only" in trouble else FOLDER
    node.sh(TROUBLE[trouble])
    try:
        for said in (1, 0):
            node.sh("ip route del 10.244.1.0/24")
            done = a_pass(node)
            assert done.returncode == 1 and len(done.stderr.splitlines()) == said, done
            assert not said or done.stderr.startswith("problem: %s: " % METRICS) and "kindnet_textfile_dir" in done.stderr
            assert len(node.sh("ip route show proto 107").splitlines()) == 2
        # a pause neither mends it nor is it said again
        node.reconcile("--pause", "1h")
        assert (a_pass(node).returncode, a_pass(node).stderr) == (1, "")
        node.reconcile("--resume")
    finally:
        node.sh(f"umount {place}; mkdir -p {FOLDER}")
    done = a_pass(node)
    assert (done.returncode, done.stdout) == (0, "resolved: %s\n" % METRICS)


def test_a_pause_resolves_nothing(node):
    node.desired(sysctl=FORWARDING, routes=ROUTES, other={})
    assert "section other" in a_pass(node).stderr
    node.reconcile("--pause", "1h")
    done = a_pass(node)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    node.reconcile("--resume")
    done = a_pass(node)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


PLANTED = {
    "fifo": "mkfifo {0}",
    "link": "ln -s %s/theirs {0}" % FOLDER,
    "second name": "ln %s/theirs {0}" % FOLDER,
    "garbage": "head -c 100000 /dev/urandom >{0}",
}


@pytest.mark.parametrize("place", (METRICS, FOLDER + "/.kindnet.prom.kindnet-tmp"))
@pytest.mark.parametrize("planted", PLANTED)
def test_what_others_put_in_the_place_of_the_file_is_replaced_and_neither_waited_for_nor_written(node, planted, place):
    node.sh(f"rm -f {METRICS}; echo theirs >{FOLDER}/theirs; {PLANTED[planted].format(place)}")
    assert a_pass(node).returncode == 0
    assert metrics(node)["kindnet_passes_total"] == 1
    assert node.read(f"{FOLDER}/theirs") == "theirs\n"


def service(node):
    return [line for line in node.read(UNITS + "/kindnet-reconcile.service").splitlines() if "prometheus" in line or "metrics" in line]


def changed_as_predicted(node, **options):
    before = node.sh(SNAPSHOT)
    predicted = node.module("--check", "--diff", **options)
    assert node.sh(SNAPSHOT) == before
    made = node.module("--diff", **options)
    assert (made["changes"], made["diff"]) == (predicted["changes"], predicted["diff"])
    assert not node.module("--check", **options)["changed"]
    return [c["subject"] for c in made["changes"]]


def test_the_option_comes_moves_and_goes(node):
    node.sh("rm -rf /var/lib/prometheus")
    changed = changed_as_predicted(node, textfile_dir=FOLDER)
    assert service(node) == [f"Environment=KINDNET_TEXTFILE_DIR={FOLDER}", f"ReadWritePaths=-{FOLDER}"]
    assert {UNITS + "/kindnet-reconcile.service", "folder " + FOLDER, "/etc/tmpfiles.d/kindnet.conf"} <= set(changed)
    assert node.exists(FOLDER)
    a_pass(node)
    node.sh("mkdir /var/lib/metrics; echo theirs >/var/lib/metrics/kindnet.prom")
    assert METRICS in changed_as_predicted(node, textfile_dir="/var/lib/metrics")
    assert not node.exists(METRICS) and node.read("/var/lib/metrics/kindnet.prom") == "theirs\n"
    node.sh("echo ours >/var/lib/metrics/kindnet.prom")
    assert "/var/lib/metrics/kindnet.prom" in changed_as_predicted(node)
    assert node.read("/var/lib/metrics/kindnet.prom") == "theirs\n" and not service(node)
    node.sh("rm -r /var/lib/metrics")

    changed_as_predicted(node, textfile_dir=FOLDER)
    a_pass(node)
    assert METRICS in changed_as_predicted(node, state="absent")
    assert not node.exists("/var/lib/prometheus") and not node.exists("/var/lib/kindnet")
    node.module()


def test_what_was_recorded_about_it_may_be_lost(node):
    node.module(textfile_dir=FOLDER)
    a_pass(node)
    node.sh("rm /var/lib/kindnet/before.json")
    assert METRICS in changed_as_predicted(node)
    assert not node.exists(METRICS)


@pytest.mark.parametrize("wrong", ["var/lib", "/", "/var/lib/%i", "/var/lib/a b"])
def test_a_folder_that_a_unit_would_take_otherwise_is_refused(node, wrong):
    before = node.sh(SNAPSHOT)
    assert "textfile_dir" in node.module(expect=1, textfile_dir=wrong)["msg"]
    assert node.sh(SNAPSHOT) == before
