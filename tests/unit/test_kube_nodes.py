# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin kube_nodes: ansible-inventory for real, over a kubectl that refuses what the real one does not know."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ansible_collections.kindnet.host.plugins.inventory.kube_nodes import InventoryModule, addresses_to_connect_to, read, run
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils._kube_nodes import essentials, parse_kube_nodes

KUBECTL = r"""#!/usr/bin/env python3
import os, re, sys, time
here = os.path.dirname(os.path.abspath(__file__))
with open(here + "/calls", "a") as f:
    f.write(" ".join(sys.argv[1:]) + "\n")
for argument in sys.argv[1:]:
    if not re.fullmatch(r"get|nodes|--output=json|--request-timeout=\d+s|--(kubeconfig|context|selector)=.+", argument):
        sys.exit("error: unknown flag: " + argument)
if sys.argv[1:3] != ["get", "nodes"]:
    sys.exit("error: must specify one of -f and -k")
if not sys.stdin.closed and sys.stdin.read():
    sys.exit("error: asked for input")
{behaviour}
print(open(here + "/nodes.json").read())
"""


def node(name, *internal, cidrs=(), cidr=None, labels=None, **addresses):
    """A node as the API server shows it, with much that is of no interest."""
    spec = {"providerID": "kind://docker/" + name, "taints": [{"effect": "NoSchedule", "key": "node-role.kubernetes.io/control-plane"}]}
    if cidrs:
        spec.update(podCIDR=cidrs[0], podCIDRs=list(cidrs))
    if cidr:
        spec["podCIDR"] = cidr
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **(labels or {})}, "annotations": {"a": "{{ 1 + 1 }}"}},
        "spec": spec,
        "status": {
            "addresses": [{"address": a, "type": "InternalIP"} for a in internal] + [{"address": a, "type": t} for t, a in addresses.items()],
            "capacity": {"cpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def listing(*nodes):
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(nodes), "metadata": {"resourceVersion": ""}})


CLUSTER = [
    node(
        "k8s-guide-worker", "172.18.0.3", "FD00:0::3", "fe80::3", "172.18.9.3", cidrs=["10.244.1.0/24", "fd00:10:244:1::/64"],
        Hostname="worker.example", ExternalIP="203.0.113.3", labels={"topology.kubernetes.io/zone": "b"},
    ),
    node(
        "k8s-guide-control-plane", "172.18.0.2", cidr="10.244.0.0/24", Hostname="cp.example", ExternalIP="203.0.113.2",
        labels={"topology.kubernetes.io/zone": "a", "node-role.kubernetes.io/control-plane": ""},
    ),
]  # fmt: skip


def plain(text):
    """JSON without the marks that ansible-inventory puts on strings from outside."""
    return json.loads(text, object_hook=lambda d: d["__ansible_unsafe"] if list(d) == ["__ansible_unsafe"] else d)


def parsed(text):
    return parse_kube_nodes(essentials(text, "here"), "here")


class Setup:
    """A folder with a configuration of the plugin and a kubectl."""

    def __init__(self, folder, root):
        self.folder, self.root = folder, root
        self.kubectl("")
        self.nodes(*CLUSTER)

    def kubectl(self, behaviour):
        path = self.folder / "kubectl"
        path.write_text(KUBECTL.replace("{behaviour}", behaviour))
        path.chmod(0o755)

    def nodes(self, *nodes):
        (self.folder / "nodes.json").write_text(listing(*nodes))

    def calls(self):
        return (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []

    def run(self, config="", name="test.kube_nodes.yml", sources=(), **env):
        path = self.folder / name
        path.write_text("plugin: kindnet.host.kube_nodes\n" + config)
        command = [os.path.join(os.path.dirname(sys.executable), "ansible-inventory"), "--list"]
        for source in (path, *sources):
            command += ["-i", str(source)]
        return subprocess.run(
            command,
            capture_output=True, text=True, check=False, cwd=self.root, input="for nobody",
            env={**os.environ, "PATH": "%s:%s" % (self.folder, os.environ["PATH"]), "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1", **env},
        )  # fmt: skip

    def listed(self, config="", **env):
        done = self.run(config, **env)
        assert (done.returncode, done.stderr) == (0, "")
        return plain(done.stdout)

    def refused(self, config=""):
        done = self.run(config)
        assert done.returncode != 0
        return " ".join(done.stderr.split())


@pytest.fixture
def setup(tmp_path, request):
    return Setup(tmp_path, request.config.rootpath)


def test_every_node_is_a_host_with_addresses_and_pod_cidrs(setup):
    listed = setup.listed("cluster_cidrs: [10.244.0.0/16, 'FD00:10:244::/48']\n")
    assert listed["kindnet_nodes"]["hosts"] == ["k8s-guide-control-plane", "k8s-guide-worker"]
    cluster_cidrs = ["10.244.0.0/16", "fd00:10:244::/48"]
    assert listed["_meta"]["hostvars"] == {
        "k8s-guide-control-plane": {
            "ansible_host": "172.18.0.2",
            "kindnet_cluster_cidrs": cluster_cidrs,
            "kindnet_node_ips": ["172.18.0.2"],
            "kindnet_pod_cidrs": ["10.244.0.0/24"],
            "kube_labels": {"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": "", "topology.kubernetes.io/zone": "a"},
        },
        "k8s-guide-worker": {
            "ansible_host": "172.18.0.3",
            "kindnet_cluster_cidrs": cluster_cidrs,
            "kindnet_node_ips": ["172.18.0.3", "fd00::3", "172.18.9.3"],
            "kindnet_pod_cidrs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
            "kube_labels": {"kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "b"},
        },
    }
    assert setup.calls() == ["get nodes --output=json --request-timeout=30s"]


def test_kubeconfig_context_and_selector_reach_kubectl(setup):
    config = "kubectl: ./kubectl\nkubeconfig: secrets/config\ncontext: -admin@prod\nlabel_selector: a!=b,c\ntimeout: 7\n"
    assert "kindnet_cluster_cidrs" not in setup.listed(config)["_meta"]["hostvars"]["k8s-guide-worker"]
    assert setup.calls() == [
        "get nodes --output=json --request-timeout=7s --kubeconfig=%s/secrets/config --context=-admin@prod --selector=a!=b,c" % setup.folder
    ]


def test_from_a_file_without_kubectl(setup):
    setup.kubectl("sys.exit('not to be called')")
    assert setup.listed("file: nodes.json\n")["kindnet_nodes"]["hosts"] == ["k8s-guide-control-plane", "k8s-guide-worker"]
    assert setup.calls() == []


@pytest.mark.parametrize(
    "choice, address", [("internal_ip", "172.18.0.3"), ("external_ip", "203.0.113.3"), ("hostname", "worker.example"), ("node_name", "k8s-guide-worker")]
)
def test_what_ansible_connects_to(choice, address):
    assert addresses_to_connect_to(parsed(listing(*CLUSTER)), choice)["k8s-guide-worker"] == address


def test_a_missing_external_address_is_named():
    nodes = parsed(listing(*CLUSTER, node("third", "172.18.0.4", cidrs=["10.244.2.0/24"])))
    with pytest.raises(KindnetError, match="ansible_host: external_ip: no ExternalIP is known of third"):
        addresses_to_connect_to(nodes, "external_ip")


@pytest.mark.parametrize("hostname", ["-oProxyCommand=reboot", "{{ lookup('pipe', 'reboot') }}", "a b", "", "a\n"])
def test_a_host_name_that_is_none_is_refused(hostname):
    with pytest.raises(KindnetError, match="the Hostname of a is neither a name nor an address"):
        addresses_to_connect_to(parsed(listing(node("a", "172.18.0.2", cidrs=["10.244.0.0/24"], Hostname=hostname))), "hostname")


def test_constructed_groups_and_variables(setup):
    listed = setup.listed("""
file: nodes.json
strict: true
compose:
  ansible_user: "'ops'"
  first: kindnet_pod_cidrs | first
keyed_groups:
  - key: kube_labels['topology.kubernetes.io/zone']
    prefix: zone
groups:
  control_plane: "'node-role.kubernetes.io/control-plane' in kube_labels"
""")
    assert listed["zone_a"]["hosts"] == ["k8s-guide-control-plane"]
    assert listed["zone_b"]["hosts"] == ["k8s-guide-worker"]
    assert listed["control_plane"]["hosts"] == ["k8s-guide-control-plane"]
    assert listed["_meta"]["hostvars"]["k8s-guide-worker"]["ansible_user"] == "ops"
    assert listed["_meta"]["hostvars"]["k8s-guide-worker"]["first"] == "10.244.1.0/24"


def test_a_label_is_never_a_template(setup):
    setup.nodes(node("a", "172.18.0.2", cidrs=["10.244.0.0/24"], labels={"x": "{{ 40 + 2 }}"}))
    (setup.folder / "test.kube_nodes.yml").write_text("plugin: kindnet.host.kube_nodes\nfile: nodes.json\n")
    command = ["-i", str(setup.folder / "test.kube_nodes.yml"), "a", "-c", "local", "-m", "ansible.builtin.debug", "-a", "var=kube_labels.x"]
    done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "ansible"), *command], capture_output=True, text=True, check=True, cwd=setup.root)
    assert "{{ 40 + 2 }}" in done.stdout


def test_the_cache_answers_for_the_same_command_only(setup):
    env = {"ANSIBLE_INVENTORY_CACHE_PLUGIN": "ansible.builtin.jsonfile", "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(setup.folder / "cache")}
    first = setup.listed("cache: true\n", **env)
    setup.nodes(CLUSTER[0])
    assert setup.listed("cache: true\n", **env) == first
    assert len(setup.calls()) == 1
    assert setup.listed("cache: true\ncontext: other\n", **env) != first
    assert setup.listed("cache: false\n", **env) != first
    assert len(setup.calls()) == 3
    assert "203.0.113" in "".join(p.read_text() for p in (setup.folder / "cache").iterdir())


REFUSED = {
    "not JSON": ("print('No resources found')\nsys.exit(0)", "", "kubectl get nodes: No resources found: is not JSON"),
    "a file and a selector": ("", "file: nodes.json\nlabel_selector: a=b\n", "label_selector: a=b: means nothing for a file"),
    "a misspelt option": ("", "kubecontext: prod\n", "unknown option kubecontext"),
    "a bad cluster CIDR": ("", "file: nodes.json\ncluster_cidrs: [10.244.0.1/16]\n", "cluster_cidrs: 10.244.0.1/16: has host bits set"),
    "an unknown address type": ("", "file: nodes.json\nansible_host: carrier_pigeon\n", "carrier_pigeon"),
    "kubectl fails": ("sys.exit('x509: certificate has expired')", "", "kubectl get nodes: exit code 1: failed: x509: certificate has expired"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(setup, case):
    behaviour, config, message = REFUSED[case]
    setup.kubectl(behaviour)
    assert message in setup.refused(config)


FAILURES = {
    "it fails and says nothing": ("sys.exit(3)", "kubectl", "kubectl get nodes: exit code 3: failed: it said nothing. Try the same command by hand: "),
    "it is slow": ("time.sleep(20)", "kubectl", "kubectl get nodes: 1 s: did not answer in time"),
    "it is missing": ("", "kubectl-9.9", "kubectl-9.9: is not there"),
    "it is no program": ("", "nodes.json", "nodes.json: cannot be run (Permission denied)"),
    "it is given what it does not know": ("", "kubectl --no-such-flag", "error: unknown flag: --no-such-flag"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_kubectl_can_do(setup, case):
    behaviour, command, message = FAILURES[case]
    setup.kubectl(behaviour)
    program, *arguments = command.split()
    with pytest.raises(KindnetError) as error:
        run([str(setup.folder / program), "get", "nodes", *arguments], 1 if "sleep" in behaviour else 60)
    assert message in str(error.value)


def test_a_file_that_is_not_there():
    with pytest.raises(KindnetError, match=r"file: /no/nodes.json: cannot be read \(No such file or directory\)"):
        read("/no/nodes.json")


def test_an_error_in_strict_mode_leaves_no_half_cluster(setup):
    other = setup.folder / "hosts.yml"
    other.write_text("kindnet_nodes:\n  hosts:\n    third:\n")
    config = "file: nodes.json\nstrict: true\ncompose:\n  x: nothing.there\n"
    done = setup.run(config, sources=[other], ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="0")
    assert "Could not set x" in done.stderr
    listed = plain(done.stdout)
    assert listed["kindnet_nodes"]["hosts"] == ["k8s-guide-control-plane", "k8s-guide-worker", "third"]
    assert listed["_meta"]["hostvars"]["k8s-guide-worker"]["kindnet_pod_cidrs"][0] == "10.244.1.0/24"


@pytest.mark.parametrize("name, ours", [("kube_nodes.yaml", True), ("kube_nodes.yml", True), ("a.kube_nodes.yml", True), ("nodes.yml", False)])
def test_files_it_takes(tmp_path, name, ours):
    (tmp_path / name).write_text("")
    assert InventoryModule().verify_file(str(tmp_path / name)) == ours


def test_the_order_of_the_api_does_not_matter_and_an_address_counts_once():
    nodes = parsed(listing(node("b", "10.0.0.2", "10.0.0.2", cidrs=["10.244.1.0/24"]), node("a", "10.0.0.1", cidrs=["10.244.0.0/24"])))
    assert [(n.name, n.node_ips) for n in nodes] == [("a", ("10.0.0.1",)), ("b", ("10.0.0.2",))]


BAD = {
    "an error of the API": ('{"kind": "Status", "status": "Failure"}', "is not a list of Kubernetes objects"),
    "a list of strings": ('{"items": ["a"]}', "is not a list of Kubernetes objects"),
    "no object": ("[]", "is not a list of Kubernetes objects"),
    "pods": ('{"items": [{"kind": "Pod"}]}', "Pod: holds other things than nodes"),
    "none": (listing(), "there is no node in it"),
    "no name": ('{"items": [{}]}', "None: is not the name of a node"),
    "a name that is a template": (listing(node("{{ x }}", "10.0.0.1", cidrs=["10.244.0.0/24"])), "{{ x }}: is not the name of a node"),
    "no address": (
        listing(node("a", cidrs=["10.244.0.0/24"]), node("b", Hostname="b", cidrs=["10.244.1.0/24"]), CLUSTER[0]),
        "here: a, b: no InternalIP that peers could use",
    ),
    "only a link-local address": (listing(node("a", "fe80::1", cidrs=["10.244.0.0/24"])), "here: a (fe80::1 is a link-local address (fe80::/10))"),
    "an address that is none": (listing(node("a", "node.example", cidrs=["10.244.0.0/24"])), "a (node.example is not an IP address)"),
    "no pod CIDR": (listing(node("a", "10.0.0.1"), node("b", "10.0.0.2"), CLUSTER[0]), "here: a, b: no spec.podCIDR. kube-controller-manager gives it"),
    "a pod CIDR that is none": (listing(node("a", "10.0.0.1", cidrs=["10.244.0.9/24"])), "spec.podCIDRs of a: 10.244.0.9/24: has host bits set"),
    "addresses of another shape": ('{"items": [{"metadata": {"name": "a"}, "status": {"addresses": ["x", 1]}}]}', "here: a: no InternalIP"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_lists(case):
    text, message = BAD[case]
    with pytest.raises(KindnetError) as error:
        parsed(text)
    assert message in str(error.value)
