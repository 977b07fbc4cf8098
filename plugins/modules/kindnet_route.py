#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_route
short_description: Route the pod CIDRs of the other nodes
version_added: "0.1.0"
description:
  - "Keeps one unicast route for each pod CIDR of each peer: destination the peer's pod CIDR, next hop the peer's first address of the same
    family, default metric, no source hint. These are the routes of kindnetd, the network plugin of kind, under a route protocol of their own."
  - Of the two families, those of which this host has an address among its V(node_ips); so a dual-stack peer costs a host that has IPv4 alone nothing.
  - The host's own pod CIDR gets no route, as its pods have host routes made by the CNI plugin C(ptp).
  - Whatever is wrong with the routes of this protocol in this table (missing, another next hop or metric, doubled, left over from a node
    or pod CIDR that is gone) is right after one run.
    A changed next hop is one replace, without a moment in between. A changed pod CIDR is routed before the old route goes.
    kindnetd leaves routes of nodes that are gone for ever.
  - Routes of another protocol are never changed. One that already leads a peer's pod CIDR to the right next hop serves the peer and
    stays. One that is in the way is a problem of this peer by name. kindnetd deletes it.
  - A peer that cannot be served (a route in the way, a next hop that is not on-link) fails the module after all the others have been routed.
  - Unless O(persist=false), the arguments are recorded in C(/etc/kindnet/desired.json), from which C(kindnet-reconcile) keeps them true.
options:
  nodes:
    description:
      - Every node of the cluster, this host included, as a list of mappings, or the same list as one JSON string, which costs
        Ansible much less time when there are many nodes.
      - Each has V(name), V(node_ips) (its addresses, the one to prefer first) and V(pod_cidrs).
      - Membership is what is said here and nothing else. The table is right as a whole, or it is refused and nothing is changed.
      - Neither the host's journal nor the result repeats it.
      - Required if O(state=present).
    type: raw
  node_name:
    description:
      - The name of this host in O(nodes).
      - Required if O(state=present).
    type: str
  cluster_cidrs:
    description:
      - The networks in which the cluster's pods have their addresses. If given, every pod CIDR must lie in one of them.
      - With O(takeover=true) they bound which routes of kindnetd are removed.
    type: list
    elements: str
  protocol:
    description:
      - The route protocol number by which routes of this collection are known, from 5 to 255. The ones of C(/etc/iproute2/rt_protos) are not free.
    type: int
    default: 107
  table:
    description:
      - The routing table, V(main) or a number.
      - While routes are recorded in one table or with one protocol they are not moved to another. Run with O(state=absent) first.
    type: str
    default: main
  takeover:
    description:
      - Adopt the routes of a kindnetd that does not run any more, in place and without a gap.
      - Adopted are routes of protocol C(boot) with the default metric, alone at their place, to a wanted pod CIDR by an address of a node in O(nodes).
      - If O(cluster_cidrs) is given, other such routes to a destination inside of these are removed, as routes of nodes and pod CIDRs that are gone.
      - Refused while a C(kindnetd) runs in this host's network, in a container or not.
      - C(ip route add) without a protocol leaves the same kind of route, so do not leave this on.
    type: bool
    default: false
  non_l2:
    description:
      - What becomes of a peer whose address is on none of this host's links, so that the kernel would not take it as a next hop. The others
        are routed to in any case.
      - V(fail) - It is a problem of that peer, by name, and the module fails after all others have been routed to.
      - V(skip) - It gets no route and is left to the network, which has to know where its pods are, as the routers of many clouds do. The
        result names it.
      - V(onlink) - Its route says that it is on-link nevertheless (C(onlink)), on O(non_l2_interface). For networks in which each host has
        an address of its own alone, and a router that answers for all.
      - V(via) - Its route leads to a gateway of O(non_l2_gateways), which has to be on-link, and to know where the peer's pods are.
      - Which peers these are is decided by a run of this module and recorded. A peer that is on-link is routed to by its address whatever this says.
    type: str
    choices: [fail, skip, onlink, via]
    default: fail
  non_l2_interface:
    description:
      - With O(non_l2=onlink), the interface. By default the one by which this host reaches the peer.
    type: str
  non_l2_gateways:
    description:
      - With O(non_l2=via), the gateway of this host. One address, a list with one for each family, or a mapping from the names of peers
        to either of these. A peer that has none of its family fails by name.
      - Required if O(non_l2=via).
    type: raw
  max_removals:
    description:
      - How many peers a run may take away. If the table lacks more of those that were there before, nothing is changed and all of them are named.
      - By default the larger of 2 and 10 % of the peers. To take away every one of them needs O(force_removals=true) in any case.
      - A peer that has another name, address or pod CIDR is not taken away. O(state=absent) is not bounded.
    type: int
  removed_nodes:
    description:
      - Names of peers that are meant to go. They do not count against O(max_removals), and the last one may be among them.
    type: list
    elements: str
    default: []
  renumbered_nodes:
    description:
      - If given, also if empty, a peer that stays loses no recorded pod CIDR unless its name is in this list. Nothing is changed then.
      - The roles give an empty one where there is no ledger, which would have looked. When the module refuses, its action plugin runs it once more with the
        names of those whose M(kindnet.host.cni_conflist) went well in this run of the role C(conflist), as it refuses while pods run, or was left out by the
        role C(shortcut) as one that has nothing to do.
    type: list
    elements: str
  force_removals:
    description:
      - Take away as many peers as the table says.
    type: bool
    default: false
  tools_predicted:
    description:
      - Set by the roles in check mode, when the same play would install pyroute2. That it is missing is then not an error.
    type: bool
    default: false
extends_documentation_fragment: [kindnet.host.recording]
attributes:
  check_mode:
    description: Predicts the changes without making them.
    support: full
  diff_mode:
    description: Shows each changed route before and after.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
requirements:
  - "On the host: pyroute2 0.7 or newer, only when there is something to change."
notes:
  - Needs root, or C(CAP_NET_ADMIN).
  - This module looks at every route to a peer's pod CIDR. A pass of C(kindnet-reconcile) looks at those of others only when a route of this
    collection is not as wanted, so that its cost does not grow with them. A foreign route that somebody later puts ahead of a right one is
    found by the next run of this module.
  - Nodes are meant to be in one layer 2 domain, so that each is a next hop to the others. O(non_l2) says what happens elsewhere.
  - IPv6 routes of one metric that several programs add to are one multipath route to the kernel. If somebody appends a next hop to a route
    of this collection, that is a conflict, and it stays untouched.
seealso:
  - module: kindnet.host.kindnet_masq
  - module: kindnet.host.cni_conflist
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Route the pods of two peers
  kindnet.host.kindnet_route:
    node_name: k8s-guide-worker
    nodes:
      - name: k8s-guide-control-plane
        node_ips: [172.18.0.2]
        pod_cidrs: [10.244.0.0/24]
      - name: k8s-guide-worker
        node_ips: [172.18.0.3]
        pod_cidrs: [10.244.1.0/24]
      - name: k8s-guide-worker2
        node_ips: [172.18.0.4]
        pod_cidrs: [10.244.2.0/24]

- name: The same out of the inventory, with the table made once for all hosts
  kindnet.host.kindnet_route:
    node_name: "{{ inventory_hostname }}"
    nodes: "{{ kindnet_table.nodes_json }}"
    cluster_cidrs: "{{ kindnet_cluster_cidrs }}"

- name: Take over what kindnetd left
  kindnet.host.kindnet_route:
    node_name: "{{ inventory_hostname }}"
    nodes: "{{ kindnet_table.nodes_json }}"
    cluster_cidrs: [10.244.0.0/16]
    takeover: true

- name: Route to peers in another network by the router between them
  kindnet.host.kindnet_route:
    node_name: "{{ inventory_hostname }}"
    nodes: "{{ kindnet_table.nodes_json }}"
    non_l2: via
    non_l2_gateways: [172.18.0.1, "fc00:f853:ccd:e793::1"]

- name: Take all routes of the collection out again
  kindnet.host.kindnet_route:
    state: absent
"""

RETURN = r"""
routes:
  description:
    - What was done, or would be in check mode, about each route that was not as wanted. The others are counted in RV(unchanged).
  returned: unless it failed before that was known
  type: list
  elements: dict
  contains:
    dst:
      description: The destination.
      type: str
      sample: 10.244.1.0/24
    next_hop:
      description: The next hop that is wanted, or that of the route which is removed; empty if it has none.
      type: str
      sample: 172.18.0.3
    node:
      description: The peer; empty for a route to no peer.
      type: str
      sample: k8s-guide-worker
    action:
      description:
        - V(add), V(replace) or V(remove).
        - V(foreign) if a route of another protocol is right and serves the peer.
        - V(conflict) if a route of another protocol is in the way.
        - V(skip) if the peer is left to the network, see O(non_l2).
        - V(fail) if the next hop is not on-link, or the kernel refused the change.
      type: str
      sample: add
    reason:
      description: Why.
      type: str
      sample: missing
  sample:
    - dst: 10.244.1.0/24
      next_hop: 172.18.0.3
      node: k8s-guide-worker
      action: add
      reason: missing
unchanged:
  description: The number of routes of this collection that were right, and stay.
  returned: as RV(routes)
  type: int
  sample: 4998
changes:
  description: What was changed, or would be in check mode, the recorded arguments included.
  returned: as RV(routes)
  type: list
  elements: dict
  contains:
    subject:
      description: What was changed.
      type: str
    action:
      description: V(add), V(replace) or V(remove).
      type: str
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
  sample:
    - subject: route 10.244.1.0/24
      action: add
      before: ""
      after: via 172.18.0.3 proto 107
      reason: missing
problems:
  description: What is not as wanted, one entry each; everything else was done. With any, the module fails.
  returned: as RV(routes)
  type: list
  elements: dict
  contains:
    subject:
      description: What it is about.
      type: str
    message:
      description: What is wrong, and what to do.
      type: str
  sample: []
notes:
  description: Worth knowing, wrong for nobody.
  returned: as RV(routes)
  type: list
  elements: str
  sample: []
left_out:
  description:
    - How many entries of RV(routes), RV(changes), RV(problems) and RV(notes) are not told. Each list has at most 100, since the controller keeps what every
      host told, and 20 of a failure, of which Ansible prints all there is. What is added is left out first, and the record never; of RV(routes) what is
      wrong is told first.
      C(--diff) tells all changes, and so does the journal of a host of what its passes did.
  returned: if a list is longer
  type: dict
  sample: {changes: 4978, routes: 4978}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _routes
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

OPTIONS = {
    # Hidden, or the journal of every host would repeat the whole table in every run.
    "nodes": {"type": "raw", "no_log": True},
    "node_name": {"type": "str"},
    "cluster_cidrs": {"type": "list", "elements": "str"},
    "protocol": {"type": "int", "default": 107},
    "table": {"type": "str", "default": "main"},
    "takeover": {"type": "bool", "default": False},
    "non_l2": {"type": "str", "default": "fail", "choices": ["fail", "skip", "onlink", "via"]},
    "non_l2_interface": {"type": "str"},
    "non_l2_gateways": {"type": "raw"},
    "max_removals": {"type": "int"},
    "removed_nodes": {"type": "list", "elements": "str", "default": []},
    "renumbered_nodes": {"type": "list", "elements": "str"},
    "force_removals": {"type": "bool", "default": False},
    "tools_predicted": {"type": "bool", "default": False},
}
REQUIRED_IF = [("state", "present", ["nodes", "node_name"]), ("non_l2", "via", ["non_l2_gateways"])]


def main():
    module = AnsibleModule(
        argument_spec=dict(COMMON_OPTIONS, **OPTIONS),
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    run(module, _routes, _routes.result)


if __name__ == "__main__":
    main()
