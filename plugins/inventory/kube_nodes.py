# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of a Kubernetes cluster as inventory hosts."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
name: kube_nodes
short_description: Nodes of a Kubernetes cluster, with their addresses and pod CIDRs
version_added: "0.1.0"
author:
  - the kindnet.host authors (@kindnet-host)
description:
  - Makes every node of a Kubernetes cluster a host of the inventory, in the group C(kindnet_nodes), so that
    C(playbooks/kindnet.yml) serves a cluster as it serves hosts that are listed by hand.
  - Runs C(kubectl get nodes -o json) on the controller, so every way to authenticate that the kubeconfig knows works,
    exec plugins included; or reads the same from a file.
  - Each host has C(kindnet_node_ips), the node's addresses of type C(InternalIP), and C(kindnet_pod_cidrs), its C(spec.podCIDRs)
    (C(spec.podCIDR) where there is no list), in the order in which the API gives them. These are the values that kindnetd itself works with.
    A link-local, loopback or multicast C(InternalIP) is left out.
  - Each host also has C(ansible_host), see O(ansible_host), and C(kube_labels), the node's labels as a dictionary.
  - It is all or nothing. A node without an address or without a pod CIDR is an error that names it, and then there are no hosts
    from this source, because a shorter list would read as if that node had left the cluster.
  - The configuration file's name ends in C(kube_nodes.yml) or C(kube_nodes.yaml).
notes:
  - Ansible goes on without a source that failed, after a warning. Set C(any_unparsed_is_failed = true) in the section C([inventory]) of
    C(ansible.cfg), or E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED), to have it end the run. This matters most
    where C(kindnet_nodes) also has hosts from other sources.
  - Pod CIDRs from Kubernetes need no ledger beside the inventory. The API is the ledger.
requirements:
  - kubectl on the controller, unless O(file) is set
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [kindnet.host.kube_nodes]
  kubectl:
    description: The program to run, as a name to be found in E(PATH) or as a path.
    type: str
    default: kubectl
  kubeconfig:
    description:
      - Path of the kubeconfig. A relative one is relative to the folder of the configuration file.
      - Without it kubectl looks where it always looks, E(KUBECONFIG) first.
    type: str
  context:
    description: Context of the kubeconfig. Without it the current one is taken.
    type: str
  label_selector:
    description:
      - Only nodes with these labels, in the syntax of C(kubectl --selector).
      - For nodes that are no hosts of yours, such as those of a virtual kubelet. Peers then have no route to them.
      - Not together with O(file).
    type: str
    version_added: "0.1.0"
  timeout:
    description: How long kubectl may take, in seconds.
    type: int
    default: 30
  file:
    description:
      - Read the output of C(kubectl get nodes -o json) from this file, and run nothing.
      - A relative path is relative to the folder of the configuration file.
      - It is read each time, O(cache) is for kubectl.
    type: str
  ansible_host:
    description:
      - What Ansible connects to.
      - V(internal_ip) is the first usable C(InternalIP), V(external_ip) the first C(ExternalIP), V(hostname) the address of type C(Hostname),
        V(node_name) the node's name.
      - Anything else is said with O(compose).
    type: str
    choices: [internal_ip, external_ip, hostname, node_name]
    default: internal_ip
  cluster_cidrs:
    description:
      - The cluster CIDRs, what C(kube-controller-manager --cluster-cidr) has. Becomes the variable C(kindnet_cluster_cidrs) of the group
        C(kindnet_nodes). The API of nodes does not tell it.
    type: list
    elements: str
"""

EXAMPLES = r"""
# prod.kube_nodes.yml: the current context of the kubeconfig that kubectl uses
plugin: kindnet.host.kube_nodes
cluster_cidrs: [10.244.0.0/16]

---
# A context of a kubeconfig of its own, hosts reached by their external address, a group for each zone
plugin: kindnet.host.kube_nodes
kubeconfig: ../secrets/kubeconfig
context: admin@prod
label_selector: type!=virtual-kubelet
ansible_host: external_ip
cluster_cidrs:
  - 10.244.0.0/16
  - fd00:10:244::/48
compose:
  ansible_user: "'ops'"
keyed_groups:
  - key: kube_labels['topology.kubernetes.io/zone']
    prefix: zone
groups:
  control_plane: "'node-role.kubernetes.io/control-plane' in kube_labels"

---
# Where the controller cannot reach the API: kubectl get nodes -o json > nodes.json
plugin: kindnet.host.kube_nodes
file: nodes.json
cluster_cidrs: [10.244.0.0/16]
"""

import hashlib
import os
import re
import subprocess

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_cidrs, shorten
from ansible_collections.kindnet.host.plugins.plugin_utils._kube_nodes import essentials, parse_kube_nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Sequence

    from ansible_collections.kindnet.host.plugins.plugin_utils._kube_nodes import KubeNode

GROUP = "kindnet_nodes"
ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:-]*\Z")
ADDRESS_TYPES = {"external_ip": "ExternalIP", "hostname": "Hostname"}


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "kindnet.host.kube_nodes"

    def verify_file(self, path: str) -> bool:
        return bool(super().verify_file(path)) and path.endswith(("kube_nodes.yml", "kube_nodes.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        config = self._read_config_data(path)
        # A misspelt context would else be another cluster's nodes.
        unknown = sorted(set(config) - set(self.get_options()))
        if unknown:
            raise AnsibleParserError("%s: unknown option %s" % (path, ", ".join(unknown)))
        try:
            nodes = self._nodes(path, cache)
            cluster_cidrs = parse_cidrs("cluster_cidrs", self.get_option("cluster_cidrs"))
            ansible_hosts = addresses_to_connect_to(nodes, self.get_option("ansible_host"))
        except KindnetError as e:
            raise AnsibleParserError(str(e))
        self.inventory.add_group(GROUP)
        if cluster_cidrs:
            self.inventory.set_variable(GROUP, "kindnet_cluster_cidrs", list(cluster_cidrs))
        # All hosts first: an expression that fails in strict mode must not leave a part of the cluster as if it were the whole.
        for node in nodes:
            self.inventory.add_host(node.name, group=GROUP)
            self.inventory.set_variable(node.name, "ansible_host", ansible_hosts[node.name])
            self.inventory.set_variable(node.name, "kindnet_node_ips", list(node.node_ips))
            self.inventory.set_variable(node.name, "kindnet_pod_cidrs", list(node.pod_cidrs))
            # From outside, so never a template.
            self.inventory.set_variable(node.name, "kube_labels", wrap_var(node.labels))
        strict = self.get_option("strict")
        for node in nodes:
            variables = self.inventory.get_host(node.name).get_vars()
            self._set_composite_vars(self.get_option("compose"), variables, node.name, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, node.name, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, node.name, strict=strict)

    def _nodes(self, path: str, cache: bool) -> Sequence[KubeNode]:
        if self.get_option("file"):
            if self.get_option("label_selector"):
                remedy = "Leave it out, and select when you make the file: kubectl get nodes -o json --selector=..."
                raise KindnetError("label_selector", self.get_option("label_selector"), "means nothing for a file", remedy)
            source = beside(path, self.get_option("file"))
            return parse_kube_nodes(essentials(read(source), source), source)
        source = "kubectl get nodes"
        # A file that asks for another cluster than it did must not be answered with the old one.
        command = self._command(path)
        key = "%s_%s" % (self.get_cache_key(path), hashlib.sha256("\0".join(command).encode()).hexdigest()[:16])
        use_cache = self.get_option("cache")
        if use_cache and cache and key in self._cache:
            return parse_kube_nodes(self._cache[key], source)
        data = essentials(run(command, self.get_option("timeout")), source)
        nodes = parse_kube_nodes(data, source)
        if use_cache:
            self._cache[key] = data
        return nodes

    def _command(self, path: str) -> Sequence[str]:
        kubectl = self.get_option("kubectl")
        command = [beside(path, kubectl) if os.sep in kubectl else kubectl, "get", "nodes", "--output=json"]
        command.append("--request-timeout=%ds" % self.get_option("timeout"))
        if self.get_option("kubeconfig"):
            command.append("--kubeconfig=%s" % beside(path, self.get_option("kubeconfig")))
        if self.get_option("context"):
            command.append("--context=%s" % self.get_option("context"))
        if self.get_option("label_selector"):
            command.append("--selector=%s" % self.get_option("label_selector"))
        return command


def addresses_to_connect_to(nodes: Sequence[KubeNode], choice: str) -> Dict[str, str]:
    """ansible_host by node."""
    if choice == "node_name":
        return {n.name: n.name for n in nodes}
    if choice == "internal_ip":
        return {n.name: n.node_ips[0] for n in nodes}
    wanted = ADDRESS_TYPES[choice]
    without = [n.name for n in nodes if not n.addresses.get(wanted)]
    if without:
        raise KindnetError("ansible_host", choice, "no %s is known of %s" % (wanted, shorten(without)), "Choose another one, such as internal_ip.")
    chosen = {n.name: n.addresses[wanted][0] for n in nodes}
    for name, address in chosen.items():
        # It reaches ssh's command line, and on older ansible-core the templates.
        if not ADDRESS.match(address):
            problem = "the %s of %s is neither a name nor an address" % (wanted, name)
            raise KindnetError("ansible_host", address, problem, "Choose another one, such as internal_ip.")
    return chosen


def run(command: Sequence[str], timeout: int) -> bytes:
    """What ``command`` prints. kubectl is never asked to wait for a terminal."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise KindnetError("kubectl", command[0], "is not there", "Install it, write its path, or read the nodes from a file.")
    except subprocess.TimeoutExpired:
        raise KindnetError(
            "kubectl get nodes", "%d s" % timeout, "did not answer in time", "Try the same command by hand: %s. Or raise timeout." % " ".join(command)
        )
    except OSError as e:
        raise KindnetError("kubectl", command[0], "cannot be run (%s)" % e.strerror, "Write the path of kubectl.")
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split()) or "it said nothing"
        raise KindnetError(
            "kubectl get nodes", "exit code %d" % done.returncode, "failed: %s" % said, "Try the same command by hand: %s." % " ".join(command)
        )
    return done.stdout


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        raise KindnetError("file", path, "cannot be read (%s)" % e.strerror, "Make it with: kubectl get nodes -o json > %s." % os.path.basename(path))


def beside(config: str, path: str) -> str:
    """A path of the configuration file, which is relative to its folder."""
    return os.path.join(os.path.dirname(os.path.abspath(config)), os.path.expanduser(os.path.expandvars(path)))
