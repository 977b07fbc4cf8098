# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pods that kindnet_host_info finds. They are made by the reference plugins themselves, in namespaces."""

from __future__ import annotations

import json
import os

import pytest
from cni_sandbox import Sandbox

PLUGINS = "/usr/lib/cni"
PATH = "/etc/cni/net.d/10-kindnet.conflist"

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(PLUGINS + "/bridge"), reason="needs root and the reference plugins")


@pytest.fixture
def host(tmp_path):
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


def plugin(kind, **more):
    ranges = [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]
    return dict({"type": kind, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": ranges}}, **more)


def write(host, *plugins):
    host.write(PATH, json.dumps({"cniVersion": "0.3.1", "name": "kindnet", "plugins": [*plugins, {"type": "portmap"}]}))


def call(host, command, pod, path=PATH):
    """What a runtime does for a pod, without its further plugins; the pod's addresses."""
    conflist = host.json(path)
    conf = dict(conflist["plugins"][0], cniVersion=conflist["cniVersion"], name=conflist["name"])
    variables = {"CNI_COMMAND": command, "CNI_CONTAINERID": pod, "CNI_NETNS": "/run/netns/" + pod, "CNI_IFNAME": "eth0", "CNI_PATH": PLUGINS}
    done = host.run("%s/%s" % (PLUGINS, conf["type"]), stdin=json.dumps(conf), env=variables)
    return sorted(ip["address"].partition("/")[0] for ip in json.loads(done.stdout or "{}").get("ips", ()))


@pytest.mark.parametrize("kind, more", [("ptp", {}), ("bridge", {"bridge": "cni0", "isGateway": True}), ("bridge", {"bridge": "cni0"})])
def test_pods_of_a_conflist_are_found_whatever_its_plugin(host, kind, more):
    write(host, plugin(kind, **more))
    host.sh("ip netns add pod1; ip netns add pod2")
    assert host.module("kindnet_host_info", {"fail_on_pods": True})["pods"] == []
    addresses = sorted(call(host, "ADD", "pod1") + call(host, "ADD", "pod2"))
    assert len(addresses) == 4
    refused = host.module("kindnet_host_info", {"fail_on_pods": True})
    assert refused["failed"] and all("%s (container pod" % ip in refused["msg"] for ip in addresses), refused
    assert "kindnet_teardown_force" in refused["msg"] and ("dataDir" in refused["msg"]) is (kind != "ptp")
    links = [link["ifname"] for link in json.loads(host.sh("ip -json link"))]
    for pod in refused["pods"]:
        assert pod["interface"] in links if kind == "ptp" else pod["interface"] == ""
    call(host, "DEL", "pod1")
    call(host, "DEL", "pod2")
    assert host.module("kindnet_host_info", {"fail_on_pods": True})["pods"] == []


def test_what_a_crash_left_of_a_pod_of_ptp_is_none(host):
    write(host, plugin("ptp"))
    host.sh("ip netns add pod1")
    assert call(host, "ADD", "pod1")
    host.sh("ip netns del pod1; until [ -z \"$(ip -o link show type veth)\" ]; do sleep 0.05; done")
    assert host.sh("ls /run/cni-ipam-state/kindnet")
    assert host.module("kindnet_host_info", {"fail_on_pods": True})["pods"] == []


def test_pods_are_found_wherever_the_conflist_was_put(host):
    elsewhere = "/srv/net.d/10-kindnet.conflist"
    host.sh("mount -t tmpfs none /srv")
    conflist = {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [plugin("ptp"), {"type": "portmap"}]}
    assert not host.module("kindnet.host.cni_conflist", {"conflist": conflist, "path": elsewhere}).get("failed")
    host.sh("rm /etc/kindnet/desired.json; ip netns add pod1")
    addresses = call(host, "ADD", "pod1", elsewhere)
    refused = host.module("kindnet_host_info", {"fail_on_pods": True})
    assert len(addresses) == 2 and refused["failed"] and all(ip in refused["msg"] for ip in addresses), refused
    told = host.module("kindnet_node_info", {"name": "me", "cluster_name": "kindnet"})
    assert told["pod_cidrs"] == {"me": ["10.244.1.0/24", "fd00:10:244:1::/64"]} and told["allocations"] == addresses
