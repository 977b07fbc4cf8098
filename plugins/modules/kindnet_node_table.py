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
  - Runs on the controller alone and opens no connection. Use it with C(run_once); the cost grows in proportion to the hosts, while
    loops over C(hostvars) in every host's tasks grow with the square.
  - Membership is declared, never observed. All hosts of the group are in the table, whatever C(--limit), C(serial), unreachable
    hosts or missing facts make of the run.
  - kindnetd takes the same from the Kubernetes API, where it is each node's C(InternalIP) and C(spec.podCIDRs).
options:
  group:
    description:
      - Inventory group whose members are the nodes.
      - Of each member, C(kindnet_node_ips) (list of addresses) and C(kindnet_pod_cidrs) (list of CIDRs) are read.
      - Without C(kindnet_node_ips) the address is C(ansible_host), or the host's name in the inventory, if that is a literal address; brackets
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
seealso:
  - module: kindnet.host.kindnet_route
notes:
  - C(kindnet_cluster_cidrs), C(kindnet_cluster_name) and C(kindnet_node_table) must be the same for all hosts of the play.
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

- name: Route to the peers
  kindnet.host.kindnet_route:
    # The filter keeps older releases of ansible-core from making a list of it again.
    nodes: "{{ table.nodes_json | string }}"
    node_name: "{{ inventory_hostname }}"
"""

RETURN = r"""
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
