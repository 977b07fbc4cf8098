#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_node_table
short_description: Make the node table of a kindnet cluster out of the inventory
version_added: "0.1.0"
description:
  - Collects name, addresses and pod CIDRs of every member of an inventory group into one table, checks it as a whole, and
    returns it in the form that M(kindnet.host.kindnet_route) takes.
  - Pod CIDRs that no host says itself are given by a ledger, a plain YAML file beside the inventory. One that was given stays with its host.
  - Runs on the controller alone and opens no connection. Use it with C(run_once); the cost grows in proportion to the hosts, while
    loops over C(hostvars) in every host's tasks grow with the square.
  - Before anything is given out, and to learn the address of an interface, nodes have to be asked with M(kindnet.host.kindnet_node_info). The first
    run then returns whom (RV(ask), RV(ask_outside)) and no table; a second one with O(answers) makes it.
  - Membership is declared, never observed. All hosts of the group are in the table, whatever C(--limit), C(serial), unreachable
    hosts or missing facts make of the run.
  - kindnetd takes the same from the Kubernetes API, where it is each node's C(InternalIP) and C(spec.podCIDRs).
options:
  group:
    description:
      - Inventory group whose members are the nodes.
      - Of each member, C(kindnet_node_ips) (list of addresses) and C(kindnet_pod_cidrs) (list of CIDRs) are read, and, for the ledger,
        C(kindnet_renamed_from) (the name it had before) and C(kindnet_renumbered_from) (the CIDRs that it gives up).
      - Without C(kindnet_pod_cidrs) the ledger gives a block of each family in which there are cluster CIDRs and the host has an address.
      - Without C(kindnet_node_ips), C(kindnet_node_interface) names the interface whose address it is. It is read once and kept in the ledger.
      - Without either the address is C(ansible_host), or the host's name in the inventory, if that is a literal address; brackets
        are dropped. A name is an error and is never looked up.
    type: str
    default: kindnet_nodes
  node_table:
    description:
      - The table itself, instead of the inventory group, which is then not looked at.
      - A list of dictionaries with C(name), C(node_ips) and C(pod_cidrs), or the same as one JSON string.
    type: raw
  cluster_cidrs:
    description: CIDRs in which every pod CIDR must lie. Not checked when empty.
    type: list
    elements: str
    default: []
  cluster_name:
    description: Name of the cluster. The ledger carries it, and is refused for another one.
    type: str
    default: kindnet
  node_cidr_mask_size:
    description: Prefix length of the IPv4 blocks that the ledger gives. The default of kube-controller-manager, 24.
    type: raw
  node_cidr_mask_size_ipv6:
    description: Prefix length of the IPv6 blocks that the ledger gives. The default of kube-controller-manager, 64.
    type: raw
  ledger:
    description:
      - Path of the ledger; a relative one starts at the folder of the first inventory source.
      - By default C(kindnet-ledger.yml) in the folder of an inventory source. It is made when there is something to write into it.
    type: str
  removed_node:
    description:
      - A node that leaves, and is not in the table although the inventory may still have it. Its pod CIDRs stay in the ledger until
        M(kindnet.host.kindnet_free_pod_cidrs) frees them.
    type: str
  reread_node_ips:
    description: Have the addresses of interfaces read again, of the hosts that take part. An address that an interface still has stays.
    type: bool
    default: false
  force_pod_cidr_change:
    description:
      - Let a host give up a block of the ledger (C(kindnet_renumbered_from)) also when it has pods with addresses of it. They keep them, and peers
        send those to another place.
    type: bool
    default: false
  answers:
    description:
      - Results of M(kindnet.host.kindnet_node_info) on the hosts of RV(ask) and RV(ask_outside). Results without an answer, as of a host that cannot be
        reached, may be among them.
      - Nothing is given while one of them holds pod CIDRs that the ledger does not know, or while a host that is to be given some has not answered.
    type: list
    elements: dict
attributes:
  check_mode:
    support: full
    description: Does not write the ledger. The table is the one that a real run would make.
  diff_mode:
    support: full
    description: What is given out, and what changes in the ledger otherwise.
  idempotent:
    support: full
    description: What was given stays.
seealso:
  - module: kindnet.host.kindnet_route
  - module: kindnet.host.kindnet_node_info
  - module: kindnet.host.kindnet_free_pod_cidrs
notes:
  - C(kindnet_cluster_cidrs), C(kindnet_cluster_name), C(kindnet_node_table), C(kindnet_ledger) and the mask sizes must be the same for all hosts of
    the play.
  - Variables of a host are read as the inventory (and C(-e)) gives them. Variables of a play or role are not seen.
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Make the node table
  kindnet.host.kindnet_node_table:
    group: kindnet_nodes
    cluster_cidrs: "{{ kindnet_cluster_cidrs }}"
  run_once: true
  register: table

- name: Ask nodes
  kindnet.host.kindnet_node_info:
    name: "{{ inventory_hostname }}"
    interface: "{{ kindnet_node_interface | default('') }}"
  when: inventory_hostname in table.ask
  register: answer

- name: Route to the peers
  kindnet.host.kindnet_route:
    # The filter keeps older releases of ansible-core from making a list of it again.
    nodes: "{{ table.nodes_json | string }}"
    node_name: "{{ inventory_hostname }}"
"""

RETURN = r"""
ask:
  description: Hosts of this run that have to be asked. When there are any, here or in RV(ask_outside), nothing else is returned.
  returned: success
  type: list
  elements: str
  sample: []
ask_outside:
  description: Hosts that have to be asked and do not take part in this run; at most 16.
  returned: success
  type: list
  elements: str
  sample: []
ledger:
  description: Path of the ledger, whether there is one or not; empty where none could be.
  returned: success
  type: str
  sample: /home/me/inventory/kindnet-ledger.yml
changes:
  description: What is given out, or would be in check mode, and what changes in the ledger otherwise.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What of the ledger.
      type: str
    action:
      description: V(add), V(replace) or V(remove).
      type: str
    before:
      description: How it was; empty if there was nothing.
      type: str
    after:
      description: How it is then; empty if there is nothing any more.
      type: str
    reason:
      description: Why.
      type: str
  sample:
    - subject: pod CIDRs of worker in the ledger
      action: add
      before: ""
      after: 10.244.1.0/24
      reason: it had none
  version_added: "0.2.0"
nodes_json:
  description: The table as one JSON string. A list of thousands of nodes would be templated item by item, for each host and task.
  returned: success
  type: str
  sample: '[{"name":"worker","node_ips":["172.18.0.3"],"pod_cidrs":["10.244.1.0/24"]}]'
nodes:
  description: The same by name, to look up one node.
  returned: success
  type: dict
  sample: {worker: {node_ips: [172.18.0.3], pod_cidrs: [10.244.1.0/24]}}
sample_ips:
  description:
    - Some of the node IPs, at most 16 from all over the table, for who wants to know which interfaces of a host lead to its peers.
  returned: success
  type: list
  elements: str
  sample: [172.18.0.2, 172.18.0.3]
count:
  description: How many nodes there are.
  returned: success
  type: int
  sample: 3
families:
  description: Families of IP in which there are pod CIDRs.
  returned: success
  type: list
  elements: int
  sample: [4, 6]
cluster_cidrs:
  description: The cluster CIDRs in canonical form.
  returned: success
  type: list
  elements: str
  sample: [10.244.0.0/16]
field:
  description: The variable that is wrong, and whose.
  returned: failure
  type: str
  sample: pod_cidrs of worker
value:
  description: The value that is wrong.
  returned: failure
  type: str
  sample: 10.244.1.5/24
remedy:
  description: What to do.
  returned: failure
  type: str
  sample: Write 10.244.1.0/24.
"""
