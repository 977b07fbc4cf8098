#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_walk_ends
short_description: Find between whom a packet is to be walked
version_added: "0.2.0"
description:
  - Turns what an operator types into two addresses of one family, the nodes they are on, and the questions that every node is then asked.
  - A pod is named by its container id (or four and more characters that no other begins with), its name, or an address; a node by its name or an address.
    Names are not looked up anywhere else.
  - Where both ends have both families the walk is one of IPv4; an IPv6 address as O(src) or O(dst) makes it one of IPv6.
  - Runs on the controller alone and opens no connection.
  - kindnetd has nothing like it.
options:
  src:
    description: A pod or a node.
    type: str
    default: ""
  dst:
    description: Any address, a pod or a node.
    type: str
    default: ""
  nodes:
    description: The node table, as M(kindnet.host.kindnet_route) takes it.
    type: raw
    required: true
  infos:
    description: What M(kindnet.host.kindnet_info) told of each host (C(addresses) and C(pods)), by the host's name. Of hosts that could not be asked, what
      Ansible registered.
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode as otherwise.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing. RV(probe_id) is another one each time.
seealso:
  - module: kindnet.host.kindnet_info
  - module: kindnet.host.kindnet_walk
  - module: kindnet.host.kindnet_walk_verdict
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Find both ends
  kindnet.host.kindnet_walk_ends:
    src: pod-1
    dst: 10.244.2.2
    nodes: "{{ table.nodes_json | string }}"
    infos: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'info'))) }}"
  run_once: true
  register: ends
"""

RETURN = r"""
source:
  description: One end; V(kind) (pod, node, absent for an address of a pod CIDR that no pod is known to have, or outside), V(name), V(address), V(node),
    and of a pod V(interface), the host's end of its link, and V(netns), its network namespace.
  returned: success
  type: dict
  sample: {kind: pod, name: pod-1, address: 10.244.1.2, node: k8s-guide-worker, interface: veth16d7af43, netns: /proc/237/ns/net}
destination:
  description: The other.
  returned: success
  type: dict
  sample: {kind: pod, name: pod-3, address: 10.244.2.2, node: k8s-guide-worker2, interface: veth32daae7b, netns: /proc/238/ns/net}
flows:
  description: For O(kindnet.host.kindnet_walk#module:flows).
  returned: success
  type: list
  elements: dict
  sample: [{source: 10.244.1.2, destination: 10.244.2.2, begins: true}, {source: 10.244.2.2, destination: 10.244.1.2, begins: false}]
pods:
  description: For O(kindnet.host.kindnet_walk#module:pods), by the node that is to be asked.
  returned: success
  type: dict
  sample: {k8s-guide-worker: [{address: 10.244.1.2, netns: /proc/237/ns/net}]}
nodes:
  description: The nodes of both ends.
  returned: success
  type: list
  elements: str
  sample: [k8s-guide-worker, k8s-guide-worker2]
probe_id:
  description: A number for probes, O(kindnet.host.kindnet_probe#module:identifier).
  returned: success
  type: int
  sample: 4711
"""
