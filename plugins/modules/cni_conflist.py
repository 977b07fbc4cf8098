#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CNI configuration of a node, kept as data."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: cni_conflist
short_description: Keep the CNI configuration that gives a node's pods their network
version_added: "0.1.0"
description:
  - Writes the CNI network configuration list by which a container runtime gives each pod an address of this node's pod CIDR and
    a default route over the node, as kindnetd does in C(/etc/cni/net.d/10-kindnet.conflist).
  - The configuration is rendered from a Jinja2 template on the controller, and parsed and checked there. What renders to
    something else than a conflist is an error that names host, template and place, and nothing is sent.
  - The file is compared as data and replaced whole. A reader sees the old file or the new one, never half of one.
  - Every plugin that the configuration names, and C(loopback), is looked for in O(plugin_dirs), executed, and must speak the
    configuration's version of CNI.
  - kindnetd writes an empty subnet when a node has no pod CIDR, knows no MTU but that of C(eth0), and does not repair the file. This module
    refuses, asks the kernel which interface reaches the peers, and records what it wrote so that C(kindnet-reconcile) repairs it.
options:
  pod_cidrs:
    description:
      - Pod CIDRs of this node, one, or one of each family. The order is that of the ranges and of a pod's addresses.
      - Networks in CIDR notation. Host bits are refused.
      - Required unless O(conflist) is given or O(state=absent).
    type: list
    elements: str
  mtu:
    description:
      - MTU of pod interfaces in bytes.
      - V(auto) takes the smallest MTU of the interfaces over which O(peer_ips) are reached. With no peer to reach, the value that the
        file has stays, and with none it is left out.
      - V(auto) is decided when this module runs and recorded; a pass of C(kindnet-reconcile) only reports that it would decide otherwise.
      - Left out, the configuration has no MTU and the kernel's default applies.
    type: raw
  peer_ips:
    description:
      - Addresses of the other nodes, as a list or as one JSON string. Only O(mtu=auto) looks at them.
    type: raw
  template:
    description:
      - Template on the controller; relative names are searched for as M(ansible.builtin.template) does.
      - It is given C(pod_cidrs), C(families) (V(ipv4), V(ipv6)), C(routes) and C(ranges) in the form that host-local takes,
        C(mtu) (a number, V(auto), or null), C(name), C(cni_version), C(chained) (a list of the plugins that follow, such as C(portmap),
        each as it stands in the file), and every variable of the host.
      - Fields of the plugins that O(portmap), O(tuning), O(bandwidth), O(firewall) and O(sbr) name are checked whoever writes them. A plugin
        of which options are given and which the template leaves out is an error.
      - An MTU of null is left out of the file, and V(auto) is filled in on the node.
      - The default is the collection's C(templates/10-kindnet.conflist.j2).
    type: str
  conflist:
    description:
      - The configuration itself, as a dictionary or as one JSON string. The action plugin of this module renders it from O(template).
      - May be given instead of O(template) and O(pod_cidrs).
    type: raw
  path:
    description: The file. Container runtimes take the first of its folder by name.
    type: str
    default: /etc/cni/net.d/10-kindnet.conflist
  name:
    description:
      - Name of the network. A file at O(path) that nobody recorded and that configures a network of another name is left
        alone, and an error.
    type: str
    default: kindnet
  cni_version:
    description:
      - Version of the CNI specification that the configuration follows, from V(0.3.0) on.
      - Every plugin must speak it. Those of Debian 12 speak V(1.0.0) at most, those of release 1.6.0 and newer V(1.1.0).
    type: str
    default: 0.3.1
  ranges:
    description:
      - Which addresses of the pod CIDRs pods get, if not all. A pod CIDR in which no range lies is used whole. Several may lie in one.
      - Each is a mapping of what host-local calls C(subnet), C(rangeStart), C(rangeEnd) and C(gateway). All may be left out. Without
        C(subnet), it is a range of every pod CIDR.
      - An address may be a number, which counts from the subnet's own address, or from behind its end if it is negative. So one value
        serves every node.
      - Live allocations that would lie outside are an error, unless O(force_pod_cidr_change).
    type: raw
    version_added: "0.2.0"
  extra_ranges:
    description:
      - Ranges of the same form from which each pod gets a further address, one of each.
      - C(subnet) is required. One outside of the pod CIDRs is an address that peers have no route to, and a note says so.
    type: raw
    version_added: "0.2.0"
  portmap:
    description:
      - Fields of the plugin C(portmap), which serves host ports, as it spells them. C(snat), C(masqAll) (from release 1.2.0 of the plugins
        on), C(backend) (V(iptables), V(nftables); from 1.6.0 on), C(markMasqBit), C(externalSetMarkChain), C(conditionsV4),
        C(conditionsV6), C(capabilities).
      - This plugin is there in any case.
    type: raw
    version_added: "0.2.0"
  tuning:
    description:
      - Fields of the plugin C(tuning), which sets up a pod's interface. C(sysctl), C(mac), C(promisc), C(mtu), C(allmulti), C(txQLen) (from
        release 1.4.0 on), C(dataDir), C(capabilities).
      - Names in C(sysctl) begin with C(net.); C(IFNAME) in one stands for the pod's interface. Each is tried on the node, in a network
        namespace of its own.
      - Left out, the plugin is not used; an empty mapping turns it on, and so with the three below.
    type: raw
    version_added: "0.2.0"
  bandwidth:
    description:
      - Fields of the plugin C(bandwidth), which limits what a pod receives (C(ingress)) and sends (C(egress)). C(ingressRate), C(egressRate)
        in bits per second, each with C(ingressBurst), C(egressBurst) in bits; C(capabilities).
      - A burst must hold a packet of the MTU and last for at most 274 s of the rate, which is what the plugin can tell the kernel.
      - With a rate, the same for every pod, limits that a runtime hands over for one pod have no effect. An empty mapping leaves it to these,
        such as those of the annotation C(kubernetes.io/ingress-bandwidth).
    type: raw
    version_added: "0.2.0"
  firewall:
    description:
      - Fields of the plugin C(firewall), which lets a pod's packets through a filter that drops forwarded ones. C(backend) (V(iptables),
        V(firewalld)), C(iptablesAdminChainName), C(firewalldZone), C(ingressPolicy), C(capabilities).
      - Needs O(cni_version) V(0.4.0) or newer. Any C(ingressPolicy) but V(open) works with a template that has the plugin C(bridge) only.
    type: raw
    version_added: "0.2.0"
  sbr:
    description:
      - Fields of the plugin C(sbr), routing by source. C(table) (from release 1.6.0 of the plugins on), C(capabilities).
      - It is made for pods with a second network. It moves the pod's routes to tables that are looked into for packets with the pod's address
        alone, so that a program that does not bind its sockets to it has no route. With C(table), only the rules are made.
    type: raw
    version_added: "0.2.0"
  plugin_dirs:
    description: Folders in which the plugins are looked for, the first that has one wins.
    type: list
    elements: str
    default:
      - /opt/cni/bin
      - /usr/lib/cni
      - /usr/libexec/cni
  force_pod_cidr_change:
    description:
      - Change pod CIDR, data folder or ranges although host-local has live allocations that would then lie outside. These pods keep their
        addresses; outside of the pod CIDR they lose their network.
    type: bool
    default: false
  conflicts:
    description:
      - What to do about files of others in the folder of O(path) that a container runtime takes instead, since they sort before it. These are all that end
        in C(.conf), C(.conflist) or C(.json), hidden and damaged ones among them, as libcni looks for them; a folder is none. containerd loads no network at
        all while the first is damaged.
      - V(warn) tells of them in RV(notes), and leaves them.
      - V(fail) refuses the host, by their names, before anything is changed.
      - V(set_aside) renames each to C(NAME.kindnet-set-aside), which no runtime loads, once O(path) is written. O(state=absent) renames it back, unless there
        is another of its name by then.
      - A pass of C(kindnet-reconcile) moves no file of others. With V(fail) and V(set_aside) it reports one that comes later as a problem.
    type: str
    choices: [warn, fail, set_aside]
    default: warn
    version_added: "0.2.0"
extends_documentation_fragment:
  - kindnet.host.recording
  - kindnet.host.recording.tools
attributes:
  check_mode:
    support: full
    description: Predicts exactly what a real run changes, and executes the plugins only to ask for their versions.
  diff_mode:
    support: full
    description: Shows the file before and after, as indented JSON.
  idempotent:
    support: full
    description: Compares data, so order of keys and white space do not matter. A file that is right is not written.
seealso:
  - module: kindnet.host.cni_plugin_links
  - name: host-local
    description: The plugin that allocates addresses, and its configuration.
    link: https://www.cni.dev/plugins/current/ipam/host-local/
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Connect pods as kindnetd does
  kindnet.host.cni_conflist:
    pod_cidrs: [10.244.1.0/24]
    mtu: auto
    peer_ips: [172.18.0.2, 172.18.0.4]

- name: Dual-stack, with a template of one's own
  kindnet.host.cni_conflist:
    pod_cidrs: [10.244.1.0/24, "fd00:10:244:1::/64"]
    template: conflist.j2
    mtu: 1450

- name: Have files of others out of the way until it is taken out again
  kindnet.host.cni_conflist:
    pod_cidrs: [10.244.1.0/24]
    conflicts: set_aside

- name: Keep the first nine addresses of each pod CIDR, and limit what pods send
  kindnet.host.cni_conflist:
    pod_cidrs: [10.244.1.0/24, "fd00:10:244:1::/64"]
    cni_version: 1.0.0
    ranges:
      - rangeStart: 10
    bandwidth:
      egressRate: 100000000
      egressBurst: 10000000
    tuning:
      sysctl:
        net.core.somaxconn: 1024

- name: Take it out again
  kindnet.host.cni_conflist:
    state: absent
"""

RETURN = r"""
file:
  description: The file.
  returned: success and O(state=present)
  type: str
  sample: /etc/cni/net.d/10-kindnet.conflist
conflist:
  description: The configuration as it is in the file.
  returned: success and O(state=present)
  type: dict
  sample:
    cniVersion: 0.3.1
    name: kindnet
    plugins:
      - type: ptp
        ipMasq: false
        ipam:
          type: host-local
          dataDir: /run/cni-ipam-state
          routes: [{dst: 0.0.0.0/0}]
          ranges: [[{subnet: 10.244.1.0/24}]]
        mtu: 1500
      - type: portmap
        capabilities: {portMappings: true}
mtu_interfaces:
  description: The interfaces whose MTU counted, each with a peer that is reached over it. Empty unless the node had to decide.
  returned: success and O(state=present)
  type: dict
  sample: {eth0: 172.18.0.2}
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What is changed.
      type: str
      sample: file /etc/cni/net.d/10-kindnet.conflist
    action:
      description: V(add), V(replace) or V(remove).
      type: str
      sample: replace
    before:
      description: How it was, as a person would read it; empty if there was nothing.
      type: str
      version_added: "0.2.0"
    after:
      description: How it is then; empty if there is nothing any more.
      type: str
      version_added: "0.2.0"
    reason:
      description: Why.
      type: str
      sample: it is damaged
problems:
  description: What is wanted and not so. The module fails if there is one, after everything else was changed.
  returned: always
  type: list
  elements: dict
notes:
  description: What is worth knowing, such as a configuration that a runtime would take instead of this one.
  returned: success
  type: list
  elements: str
host:
  description: Name of the host, as it calls itself.
  returned: on bad input
  type: str
field:
  description: The option, file or plugin that is wrong.
  returned: on bad input
  type: str
remedy:
  description: What to do.
  returned: on bad input
  type: str
left_out:
  description: How many entries of RV(changes), RV(problems) and RV(notes) are not told. Each list has at most 100, and 20 of a failure.
  returned: if a list is longer
  type: dict
  sample: {changes: 12}
"""

from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _conflist
from ansible_collections.kindnet.host.plugins.module_utils._converge import is_absent
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

if TYPE_CHECKING:
    from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {
    "pod_cidrs": {"type": "list", "elements": "str"},
    "mtu": {"type": "raw"},
    "peer_ips": {"type": "raw"},
    "template": {"type": "str"},
    "conflist": {"type": "raw"},
    "path": {"type": "str", "default": "/etc/cni/net.d/10-kindnet.conflist"},
    "name": {"type": "str", "default": "kindnet"},
    "cni_version": {"type": "str", "default": "0.3.1"},
    "ranges": {"type": "raw"},
    "extra_ranges": {"type": "raw"},
    "portmap": {"type": "raw"},
    "tuning": {"type": "raw"},
    "bandwidth": {"type": "raw"},
    "firewall": {"type": "raw"},
    "sbr": {"type": "raw"},
    "plugin_dirs": {"type": "list", "elements": "str", "default": ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"]},
    "force_pod_cidr_change": {"type": "bool", "default": False},
    "conflicts": {"type": "str", "default": "warn", "choices": ["warn", "fail", "set_aside"]},
    "tools_predicted": {"type": "bool", "default": False},
}


def result_of(outcome: Any) -> dict[str, Any]:
    section = outcome.section
    if is_absent(section):
        return {}
    return {
        "file": section["path"],  # a result of the name "path" would grow attributes of the file in real runs only
        "conflist": section["conflist"],
        "mtu_interfaces": section.get("mtu_auto", {}).get("interfaces", {}),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(COMMON_OPTIONS, **OPTIONS),
        mutually_exclusive=[("template", "conflist")],
        supports_check_mode=True,
    )
    # A real run needs the plugins for real.
    module.params["tools_predicted"] = module.params["tools_predicted"] and module.check_mode
    run(module, _conflist, result_of)


if __name__ == "__main__":
    main()
