# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet_host_info takes from a host."""

from __future__ import annotations

__metaclass__ = type

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml
from ansible_collections.kindnet.host.plugins.module_utils import _rivals
from ansible_collections.kindnet.host.plugins.modules import kindnet_host_info as info

with open("roles/prerequisites/defaults/main.yml") as f:
    PACKAGES = yaml.safe_load(f)["kindnet_packages"]


@pytest.mark.parametrize(
    "name, version, like, pyroute2, tool",
    [
        ("debian", "12", [], True, "iptables"),
        ("debian", "13", [], True, "iptables"),
        ("ubuntu", "22.04", ["debian"], False, "iptables"),
        ("ubuntu", "24.04", ["debian"], True, "iptables"),
        ("rhel", "9.4", ["fedora"], False, "iptables-nft"),
        ("rocky", "9.4", ["rhel", "centos", "fedora"], False, "iptables-nft"),
        ("centos", "9", ["rhel", "fedora"], False, "iptables-nft"),
        ("fedora", "42", [], True, "iptables-nft"),
    ],
)
def test_packages_of_the_distributions(name, version, like, pyroute2, tool):
    packages = info.packages_of(PACKAGES, {"id": name, "version_id": version, "id_like": like})
    assert tool in packages and "containernetworking-plugins" in packages
    assert ("python3-pyroute2" in packages) is pyroute2


def test_the_most_specific_key_wins():
    packages = {"debian": ["d"], "ubuntu": ["u"], "ubuntu-22": ["m"], "ubuntu-22.04": ["v"]}
    assert info.packages_of(packages, {"id": "ubuntu", "version_id": "22.04", "id_like": ["debian"]}) == ["v"]
    assert info.packages_of(packages, {"id": "ubuntu", "version_id": "22.10", "id_like": ["debian"]}) == ["m"]
    assert info.packages_of(packages, {"id": "ubuntu", "version_id": "24.04", "id_like": ["debian"]}) == ["u"]
    assert info.packages_of(packages, {"id": "pop", "version_id": "22.04", "id_like": ["debian"]}) == ["d"]


def test_an_unknown_distribution_has_no_packages():
    assert info.packages_of(PACKAGES, {"id": "arch", "version_id": "", "id_like": []}) == []


@pytest.mark.parametrize("argv0, found", [("kindnetd", True), ("/usr/local/bin/kindnetd", True), ("kindnetd-helper", False), ("/opt/kindnetd/sleep", False)])
def test_a_daemon_is_found_by_its_exact_name(argv0, found):
    process = subprocess.Popen(["bash", "-c", "exec -a %s sleep 60" % argv0])
    try:
        while True:
            with open("/proc/%d/cmdline" % process.pid, "rb") as f:
                if f.read().startswith(argv0.encode() + b"\0"):
                    break
        rivals = [r for r in _rivals.running({"kindnetd"}) if r["pid"] == process.pid]
        assert rivals == ([{"name": "kindnetd", "pid": process.pid, "command": "%s 60" % argv0}] if found else [])
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have less of it")
def test_a_daemon_is_found_with_no_more_capabilities_than_a_pass_has():
    process = subprocess.Popen(["bash", "-c", "exec -a /bin/kindnetd sleep 60"])
    elsewhere = subprocess.Popen(["unshare", "--net", "bash", "-c", "exec -a /bin/kindnetd sleep 60"])
    code = "from ansible_collections.kindnet.host.plugins.module_utils import _rivals; print([r['pid'] for r in _rivals.running(['kindnetd'])])"
    less = ["setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin,+net_raw"]
    try:
        for pid in (process.pid, elsewhere.pid):
            while not pathlib.Path("/proc/%d/cmdline" % pid).read_bytes().startswith(b"/bin/kindnetd\0"):
                pass
        environment = dict(os.environ, PYTHONPATH=os.path.abspath(".ansible/collections"), PYTHONDONTWRITEBYTECODE="1")
        found = json.loads(subprocess.run([*less, sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)
        assert process.pid in found and elsewhere.pid not in found
    finally:
        for started in (process, elsewhere):
            started.kill()
            started.wait()
