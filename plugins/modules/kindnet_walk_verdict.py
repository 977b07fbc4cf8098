#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_walk_verdict
short_description: Follow a packet through what every node answered, and say in one sentence what becomes of it
version_added: "0.2.0"
description:
  - Puts the answers of M(kindnet.host.kindnet_walk) together, from hop to hop, there and back. The next hop of one node says which node is next, and by which
    interface the packet comes in there.
  - Prints the walk, unless what prints is for a program (a callback that ends in V(json)), and the sentence last.
  - Never fails by what it finds, so that a play can do something with it. C(playbooks/walk.yml) fails unless RV(delivered).
  - Runs on the controller alone and opens no connection.
  - kindnetd has nothing like it.
options:
  nodes:
    description: The node table, as M(kindnet.host.kindnet_route) takes it.
    type: raw
    required: true
  cluster_cidrs:
    description: CIDRs out of which all pod CIDRs are. What goes to them keeps its source.
    type: list
    elements: str
    default: []
  ends:
    description: What M(kindnet.host.kindnet_walk_ends) returned.
    type: dict
    required: true
  infos:
    description: As O(kindnet.host.kindnet_walk_ends#module:infos). C(timer) tells why a node does not mend itself.
    type: dict
    required: true
  answers:
    description: What M(kindnet.host.kindnet_walk) told of each host, by its name. Of hosts that could not be asked, what Ansible registered.
    type: dict
    required: true
  sent:
    description: What M(kindnet.host.kindnet_probe) told of sending, by host. Without it the verdict is by lookups alone.
    type: dict
  seen:
    description: What it collected, by host.
    type: dict
    default: {}
  show:
    description: Whether to print the walk.
    type: bool
    default: true
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
  - module: kindnet.host.kindnet_walk
  - module: kindnet.host.kindnet_walk_ends
  - module: kindnet.host.kindnet_probe
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Follow the packet
  kindnet.host.kindnet_walk_verdict:
    nodes: "{{ table.nodes_json | string }}"
    cluster_cidrs: [10.244.0.0/16]
    ends: "{{ ends }}"
    infos: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'info'))) }}"
    answers: "{{ dict(ansible_play_hosts_all | zip(ansible_play_hosts_all | map('extract', hostvars, 'answer'))) }}"
  run_once: true
  register: walked

- name: Say it
  ansible.builtin.debug:
    msg: "{{ walked.sentence }}"
  run_once: true
"""

RETURN = r"""
delivered:
  description: Whether all is right; RV(status) is V(delivered) or V(handed_over).
  returned: success
  type: bool
  sample: false
status:
  description:
    - V(delivered); V(handed_over) to somebody outside, by way of a node that has done all it should.
    - V(lost); V(translated), it arrives with another source although it stays in the cluster; V(detour), over a node that it should not pass;
      V(too_large), only packets smaller than the pod sends arrive; V(unknown), a node that it has to pass could not be asked, or no probe be sent.
  returned: success
  type: str
  sample: lost
sentence:
  description: What became of it, and if it is not right, the hop and the reason.
  returned: success
  type: str
  sample: "Not delivered: k8s-guide-worker2 has no route back to 10.244.1.0/24; its timer is stopped since 14:02 UTC."
hop:
  description: The node or pod that the sentence is about; empty if all is right.
  returned: success
  type: str
  sample: k8s-guide-worker2
reason:
  description: What is wrong there.
  returned: success
  type: str
  sample: has no route back to 10.244.1.0/24
hops:
  description:
    - Each hop, there and then back; V(direction), V(where), V(kind) (pod, node or outside), V(source) and V(destination) as they are in the packet there.
    - Of a hop that was looked at, V(iif), V(question), V(error), V(type), V(via), V(dev), V(matched), V(neighbour), V(mtu), V(route_mtu), V(forwarding),
      V(rp_filter), V(translation), V(forward) with its V(verdict) (accepted, dropped or not evaluated) and V(why), and V(seen); of another V(note) says
      why not.
  returned: success
  type: list
  elements: dict
  sample: [{direction: there, where: k8s-guide-worker, kind: node, iif: veth16d7af43, via: 172.18.0.4, dev: eth0, error: ""}]
nodes:
  description: The nodes that the packet meets, and those of both ends.
  returned: success
  type: list
  elements: str
  sample: [k8s-guide-worker, k8s-guide-worker2]
text:
  description: The lines that are printed.
  returned: success
  type: list
  elements: str
  sample: ["pod-1 (10.244.1.2 on k8s-guide-worker) -> pod-3 (10.244.2.2 on k8s-guide-worker2)"]
"""
