#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that there is to know of a host that pods live on."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_info
short_description: Gather routes, pods, veths, chains with their counters, CNI configurations, the timer and versions of a host
version_added: "0.2.0"
description:
  - Gathers in one task what a playbook, a report or a person may want to know of a host and its pods.
  - Changes nothing, and takes no lock of this collection's. Works on a host that was never converged, whose values are then empty, and on one
    without iptables, nft, containerd or systemd.
  - Never fails because one thing is missing or broken. What cannot be looked at is empty, and a line of RV(notes) says why.
  - A route or pod costs no process, so that a host with thousands of them answers within a second.
  - kindnetd has nothing like it.
options:
  node_name:
    description:
      - The name of this host in the inventory. It is returned as RV(node_name), so that an answer can be told from others.
      - Without it, what the host has recorded is returned, or else what it calls itself.
    type: str
    default: ""
  cluster_cidrs:
    description:
      - CIDRs out of which all pod CIDRs are. Routes of others that lie in them are told, too.
      - To them are added those that the host has recorded, and the pod CIDRs of itself and its peers.
    type: list
    elements: str
    default: []
  gather:
    description: What to gather. What is not asked for is not returned, and most of it is not looked at.
    type: list
    elements: str
    choices: [versions, desired, peers, node_interface, links, addresses, sysctls, routes, pods, veths, masquerade, conflists, timer, watch, history]
    default: [versions, desired, peers, node_interface, links, addresses, sysctls, routes, pods, veths, masquerade, conflists, timer, watch, history]
  most_right_routes:
    description:
      - Of routes of ours that are as recorded, tell no more than so many. If there are more, none of them is in RV(routes), and RV(routes_left_out) counts
        them. Together, a thousand hosts have a million of them.
      - A route counts as one if it leads to a recorded peer by its own address, and no other one leads there. Of a host with peers in other networks,
        none does.
      - By default all are told.
    type: int
  most_repairs:
    description: Of RV(history), tell the last so many; V(0) for none. By default all that are kept are told, which are up to 256 KB.
    type: int
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode as otherwise.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
notes:
  - Run it as root (C(become=true)). Others may look at less, and RV(notes) says at what.
  - All programs of iptables and nftables together get 20 seconds. An iptables that waits for its lock is waited for, for 5 seconds.
seealso:
  - module: kindnet.host.kindnet_verify
  - module: kindnet.host.kindnet_host_info
  - module: kindnet.host.cni_allocations
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Gather all there is
  kindnet.host.kindnet_info:
    node_name: "{{ inventory_hostname }}"
  register: kindnet
  become: true

- name: Say which pod is behind which interface
  ansible.builtin.debug:
    msg: "{{ item.namespace }}/{{ item.name }} has {{ item.ips | join(', ') }} behind {{ item.interface }}"
  loop: "{{ kindnet.pods }}"
  loop_control:
    label: "{{ item.container }}"

- name: Look only at what costs no process
  kindnet.host.kindnet_info:
    gather: [peers, routes, pods]
  register: kindnet
  become: true

- name: Refuse to go on while a peer has no route
  ansible.builtin.assert:
    that: kindnet.peers.missing == []
    fail_msg: "no route to {{ kindnet.peers.missing | join(', ') }}"
"""

RETURN = r"""
node_name:
  description: O(node_name); without it the name under which the host has recorded its routes, or else RV(hostname).
  returned: always
  type: str
  sample: k8s-guide-worker
hostname:
  description: What the host calls itself.
  returned: always
  type: str
  sample: k8s-guide-worker
managed:
  description: Whether this collection has ever been at work here, and was not taken out since.
  returned: always
  type: bool
  sample: true
cluster_name:
  description: The cluster that the host is recorded as a member of; empty if it has nothing recorded.
  returned: always
  type: str
  sample: kindnet
versions:
  description: Versions of what matters; empty where it is not there.
  returned: when gathered
  type: dict
  contains:
    collection:
      description: That of the collection whose code passes run.
      type: str
    digest:
      description: Digest of that code, by which its folder is named.
      type: str
    python:
      description: That of the Python that ran this module.
      type: str
    kernel:
      description: Release of the kernel.
      type: str
    pyroute2:
      description: That of the pyroute2 that changes routes.
      type: str
    iptables:
      description: That of plain C(iptables), and its flavour.
      type: str
    nft:
      description: That of C(nft).
      type: str
    containerd:
      description: That of C(containerd).
      type: str
  sample:
    collection: 0.2.0
    digest: 5f0c2b6a9d1e4c37
    python: 3.11.2
    kernel: 6.1.0-28-amd64
    pyroute2: 0.7.2
    iptables: 1.8.9 (nf_tables)
    nft: 1.0.6
    containerd: 1.6.20
desired:
  description: What is recorded as wanted here, C(/etc/kindnet/desired.json).
  returned: when gathered
  type: dict
  contains:
    digest:
      description: The first 16 hexadecimal digits of the SHA-256 of the file; empty without one. It differs between hosts, each of which has other peers.
      type: str
    recorded:
      description: When it was written, in ISO 8601 and UTC; empty without a file.
      type: str
    sections:
      description: What is managed.
      type: list
      elements: str
    error:
      description: Why the file cannot be used; empty if it can, or if there is none.
      type: str
    pod_cidrs:
      description: This node's own pod CIDRs.
      type: list
      elements: str
    peers:
      description:
        - A digest of the recorded peers, their pod CIDRs and next hops, as 16 hexadecimal digits; empty if none are recorded.
        - It does not depend on their order, and a controller can tell what it ought to be.
      type: str
  sample:
    digest: 0f3c9a2b1d4e5f60
    recorded: "2026-11-27T02:22:30Z"
    sections: [conflist, masq, routes, sysctl]
    error: ""
    pod_cidrs: [10.244.1.0/24]
    peers: 8d1f0c7a55e2b394
peers:
  description: Pod CIDRs of peers, as recorded, against the kernel.
  returned: when gathered
  type: dict
  contains:
    wanted:
      description: To how many a route is recorded as wanted. Peers that are left to the network are none of them.
      type: int
    present:
      description: To how many a route leads by the right next hop, whoever made it.
      type: int
    missing:
      description: The others.
      type: list
      elements: str
  sample: {wanted: 2, present: 1, missing: [10.244.2.0/24]}
node_interface:
  description: The interface that leads to the peers.
  returned: when gathered
  type: dict
  contains:
    name:
      description: Its name; empty if it is not known, as on a host without peers.
      type: str
    mtu:
      description: Its MTU in bytes; 0 if it is not known.
      type: int
  sample: {name: eth0, mtu: 1500}
links:
  description: The interfaces of the host.
  returned: when gathered
  type: list
  elements: dict
  contains:
    name:
      description: Name.
      type: str
    index:
      description: Number.
      type: int
    mtu:
      description: MTU in bytes.
      type: int
    up:
      description: Whether it is up and has a link.
      type: bool
    kind:
      description: Such as V(veth) or V(bridge), as C(ip -details link) says; empty of hardware.
      type: str
    mac:
      description: Its address on the link.
      type: str
  sample: [{name: eth0, index: 2, mtu: 1500, up: true, kind: "", mac: "02:42:ac:12:00:03"}]
addresses:
  description: Addresses of global scope of all interfaces; no loopback or link-local one.
  returned: when gathered
  type: list
  elements: dict
  contains:
    interface:
      description: Name of the interface.
      type: str
    ip:
      description: The address.
      type: str
    prefix_length:
      description: How many bits name its network.
      type: int
  sample: [{interface: eth0, ip: 172.18.0.3, prefix_length: 16}]
sysctls:
  description:
    - C(net.ipv4.ip_forward), C(net.ipv6.conf.all.forwarding), C(net.ipv4.conf.all.rp_filter), and the latter of RV(node_interface), as the kernel has them.
    - Empty where the kernel does not know one.
  returned: when gathered
  type: dict
  sample: {net.ipv4.ip_forward: "1", net.ipv6.conf.all.forwarding: "1", net.ipv4.conf.all.rp_filter: "0", net.ipv4.conf.eth0.rp_filter: "0"}
routes:
  description:
    - Of routing table main, and of the recorded one if that is another, the routes of ours, all others that lie in a cluster CIDR, and those by which
      peers are reached.
    - A route with several next hops is told once for each.
  returned: when gathered
  type: list
  elements: dict
  contains:
    dst:
      description: Destination, as a CIDR.
      type: str
    via:
      description: Next hop; empty if there is none.
      type: str
    dev:
      description: Name of the interface; empty if there is none.
      type: str
    protocol:
      description: Who made it, such as V(kernel), V(boot) or V(static); a number where that has no name of its own, such as ours, V(107).
      type: str
    metric:
      description: Metric; 0 stands for none, and 1024 is what IPv6 has for it.
      type: int
    type:
      description: V(unicast), or V(blackhole) and the like.
      type: str
    ours:
      description: Whether it is marked as one of this collection's.
      type: bool
  sample: [{dst: 10.244.2.0/24, via: 172.18.0.4, dev: eth0, protocol: "107", metric: 0, type: unicast, ours: true}]
routes_left_out:
  description: How many routes are not in RV(routes) because of O(most_right_routes). Each is as it should be.
  returned: when RV(routes) is gathered
  type: int
  sample: 0
pods:
  description:
    - Pods that have their addresses from host-local, by the CNI configuration in use and the recorded one.
    - The plugin C(ptp) makes a route to each pod, so what a crash left is not told, and a note counts it. Other plugins leave no such sign, and every
      address that is given out is told.
  returned: when gathered
  type: list
  elements: dict
  contains:
    ips:
      description: Its addresses.
      type: list
      elements: str
    container:
      description: What its runtime calls it, towards the plugins.
      type: str
    name:
      description: The name of the pod in Kubernetes, or of the container that C(ctr) started; else that of RV(pods[].container).
      type: str
    namespace:
      description: The pod's namespace in Kubernetes, or that of containerd; empty if it is not known.
      type: str
    interface:
      description: The interface of the host that leads to it; empty if it is not known.
      type: str
    netns:
      description: Where its network namespace is; empty if it is not known, or gone.
      type: str
  sample: [{ips: [10.244.1.2], container: default-pod-1, name: pod-1, namespace: default, interface: veth1b2c3d4e, netns: /proc/812/ns/net}]
veths:
  description: The ends of veth pairs that the host has, but for RV(node_interface).
  returned: when gathered
  type: list
  elements: dict
  contains:
    name:
      description: Name.
      type: str
    mtu:
      description: MTU in bytes.
      type: int
    up:
      description: Whether it is up, and its other end too.
      type: bool
    container:
      description: RV(pods[].container) of the pod behind it; empty if none is known.
      type: str
    addresses:
      description: Addresses of global scope on it. The plugin C(ptp) puts the gateway of the pod CIDR there.
      type: list
      elements: str
  sample: [{name: veth1b2c3d4e, mtu: 1500, up: true, container: default-pod-1, addresses: [10.244.1.1]}]
masquerade:
  description: The masquerade chain, where it is recorded to be, and where else it is.
  returned: when gathered
  type: list
  elements: dict
  contains:
    family:
      description: V(ipv4) or V(ipv6).
      type: str
    backend:
      description: V(iptables-nft), V(iptables-legacy) or V(nftables).
      type: str
    chain:
      description: Name.
      type: str
    present:
      description: Whether it is there.
      type: bool
    jumps:
      description: How many rules of POSTROUTING lead to it. One is right. With V(nftables) there is one for both families.
      type: int
    rules:
      description: Its rules, in their order.
      type: list
      elements: dict
      contains:
        rule:
          description: As C(iptables -S) or C(nft list) prints it, less the chain, the counters and the comments of ours.
          type: str
        packets:
          description: How many packets it has counted.
          type: int
        bytes:
          description: How many bytes.
          type: int
  sample:
    - family: ipv4
      backend: iptables-nft
      chain: KIND-MASQ-AGENT
      present: true
      jumps: 1
      rules:
        - {rule: -d 10.244.0.0/16 -j RETURN, packets: 120, bytes: 7200}
        - {rule: -j MASQUERADE, packets: 3, bytes: 180}
conflists:
  description: CNI configurations in the folder of the recorded one and in C(/etc/cni/net.d), in the order in which a runtime comes to them.
  returned: when gathered
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    name:
      description: Name of the network; empty of a damaged one.
      type: str
    cni_version:
      description: Version of the CNI specification.
      type: str
    plugins:
      description: Types of its plugins, in their order.
      type: list
      elements: str
    ours:
      description: Whether it is recorded as that of this collection.
      type: bool
    in_use:
      description: Whether pods get it, being the first of its folder.
      type: bool
    mtu:
      description: MTU in bytes that it gives to pods; null if it leaves that to the plugins.
      type: int
    subnets:
      description: The subnets out of which host-local gives addresses.
      type: list
      elements: str
  sample:
    - path: /etc/cni/net.d/10-kindnet.conflist
      name: kindnet
      cni_version: 0.3.1
      plugins: [ptp, portmap]
      ours: true
      in_use: true
      mtu: 1500
      subnets: [10.244.1.0/24]
timer:
  description: What starts passes, and how they go.
  returned: when gathered
  type: dict
  contains:
    active:
      description: The state of C(kindnet-reconcile.timer), such as V(active) or V(inactive), as systemd says; empty without systemd.
      type: str
    enabled:
      description: Whether it is started at boot, V(enabled), V(disabled) or V(not installed); empty without systemd.
      type: str
    since:
      description: Since when it is active, or inactive, in ISO 8601 and UTC; empty if it has never been active since boot.
      type: str
    paused_seconds:
      description: For how many seconds more passes are paused; null if they are not.
      type: int
    last_pass:
      description: How the last pass that the timer started ended.
      type: dict
      contains:
        result:
          description: V(ok), V(failed), V(running), V(none yet since boot) or V(unknown).
          type: str
        at:
          description: When, in ISO 8601 and UTC; empty if not yet.
          type: str
    problems:
      description: What passes could not repair, and still remember.
      type: list
      elements: dict
      contains:
        subject:
          description: The thing.
          type: str
        message:
          description: What is wrong with it, and what to do.
          type: str
  sample:
    active: active
    enabled: enabled
    since: "2026-11-27T02:12:04Z"
    paused_seconds: null
    last_pass: {result: ok, at: "2026-11-27T02:22:30Z"}
    problems: []
watch:
  description: C(kindnet-watch.service), which starts passes on events where that is wanted.
  returned: when gathered
  type: dict
  contains:
    active:
      description: As RV(timer.active).
      type: str
    enabled:
      description: As RV(timer.enabled).
      type: str
  sample: {active: inactive, enabled: not installed}
history:
  description: What passes have repaired here, the newest last, as far as it is kept.
  returned: when gathered
  type: list
  elements: dict
  contains:
    at:
      description: When, in ISO 8601 and UTC.
      type: str
    section:
      description: The section of RV(desired.sections) that the thing is of.
      type: str
    subject:
      description: The thing.
      type: str
    action:
      description: V(add), V(replace) or V(remove).
      type: str
    before:
      description: What it was.
      type: str
    after:
      description: What it was made.
      type: str
    reason:
      description: Why.
      type: str
  sample:
    - at: "2026-11-27T02:22:30Z"
      section: routes
      subject: route 10.244.2.0/24
      action: add
      before: ""
      after: via 172.18.0.4 proto 107
      reason: missing
notes:
  description: What could not be looked at, or not in full, and why. The values that it would have given are empty.
  returned: always
  type: list
  elements: str
  sample: []
unseen:
  description:
    - Those of RV(notes), by what they begin with, that are of something by which hosts are compared with each other and that could not be looked
      at at all, such as C(routes) or C(kindnet-reconcile.timer). Empty values of it are not what this host has.
    - C(playbooks/drift.yml) reports such a host as failed, since nothing of that was compared.
    - What costs a part alone is a line of RV(notes) and not here, such as a lock of iptables that somebody holds, or a file that cannot be read.
  returned: always
  type: list
  elements: str
  sample: []
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._gather import SUBSETS, gather
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_cidrs


def main():
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "default": ""},
            "cluster_cidrs": {"type": "list", "elements": "str", "default": []},
            "gather": {"type": "list", "elements": "str", "choices": list(SUBSETS), "default": list(SUBSETS)},
            "most_right_routes": {"type": "int"},
            "most_repairs": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        clusters = parse_cidrs("cluster_cidrs", params["cluster_cidrs"])
        module.exit_json(changed=False, **gather(params["node_name"], clusters, params["gather"], params["most_right_routes"], params["most_repairs"]))
    except KindnetError as e:
        module.fail_json(msg="%s: %s" % (params["node_name"] or platform.node(), e), field=e.field, value=str(e.value), remedy=e.remedy)


if __name__ == "__main__":
    main()
