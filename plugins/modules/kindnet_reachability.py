#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_reachability
short_description: Decide which nodes and pods ask which others for an echo, and draw their answers as a matrix
version_added: "0.2.0"
description:
  - Runs on the controller alone and opens no connection. C(playbooks/reachability.yml) runs it twice, each time once for all hosts. Before
    M(kindnet.host.kindnet_ping) it decides what each host is to ask, and after it, with O(answers), what the answers come to.
  - One pod stands for all of its node. Each node asks its own pod, the pods of the others, and the others; each pod asks the pods of the others.
  - With a sample, each host asks so many others, and is asked by as many. Who asks whom depends on the names and O(seed) alone. At no moment of a run
    do all hosts ask the same one.
  - A host that could not be reached, that failed, or that takes no part in the run asks nobody. It is a row without answers, and never one that is reachable.
    The others ask it.
  - With O(answers), prints the matrix of up to 20 hosts, and of more only the pairs that do not answer, and writes RV(reachability) to
    C(reachability.json) in O(report_dir).
  - kindnetd has nothing like it.
options:
  nodes:
    description: The node table, as M(kindnet.host.kindnet_route) takes it.
    type: raw
    required: true
  info:
    description:
      - Name of the variable in which each host has registered what M(kindnet.host.kindnet_info) returned, at least
        RV(kindnet.host.kindnet_info#module:pods).
    type: str
    required: true
  answers:
    description: Name of the variable in which each host has registered what M(kindnet.host.kindnet_ping) returned.
    type: str
  sample:
    description: How many others each host asks; V(0) for all of them. V(auto) is 10 in a cluster of more than 50 hosts, else all.
    type: raw
    default: auto
  seed:
    description: With a sample, another number makes it another one.
    type: int
    default: 0
  report_dir:
    description: Folder of the report; it is made. A relative path starts beside the inventory. By default C(kindnet-report) beside the inventory;
      where that is a folder, beside the folder.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Changes no host, in check mode as otherwise. The report is written in either.
  diff_mode:
    support: none
    description: Changes no host.
  idempotent:
    support: full
    description: Changes no host. The report is not counted as a change.
seealso:
  - module: kindnet.host.kindnet_ping
  - module: kindnet.host.kindnet_info
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Look which pods there are
  kindnet.host.kindnet_info:
    gather: [pods]
  register: pods

- name: Decide who asks whom
  kindnet.host.kindnet_reachability:
    nodes: "{{ kindnet_table.nodes_json }}"
    info: pods
    sample: 5
  run_once: true
  register: plan

- name: Ask
  kindnet.host.kindnet_ping:
    sources: "{{ plan.sources[inventory_hostname] }}"
  register: answers

- name: Draw the matrix
  kindnet.host.kindnet_reachability:
    nodes: "{{ kindnet_table.nodes_json }}"
    info: pods
    answers: answers
    sample: 5
  run_once: true
"""

RETURN = r"""
mode:
  description: V(full), or V(sampled) if each host asks only some of the others.
  returned: success
  type: str
  sample: full
sample:
  description: How many others each host asks; V(0) for all.
  returned: success
  type: int
  sample: 0
sources:
  description: Of each host that is to ask, O(kindnet.host.kindnet_ping#module:sources).
  returned: without O(answers)
  type: dict
  sample: {node-a: '[{"name":"node-a","netns":"","targets":["10.244.1.2"]}]'}
path:
  description: The file that was written.
  returned: with O(answers)
  type: str
  sample: /home/me/kindnet-report/reachability.json
reachability:
  description: What was written.
  returned: with O(answers)
  type: dict
  contains:
    generated:
      description: When, in ISO 8601 and UTC.
      type: str
    mode:
      description: As RV(mode).
      type: str
    sample:
      description: As RV(sample).
      type: int
    hosts:
      description: All hosts of the node table.
      type: list
      elements: str
    sources:
      description: Who was to ask. Hosts by their names; pods with the name of their host, their namespace and their own name behind it.
      type: list
      elements: str
    targets:
      description: Who was asked.
      type: list
      elements: str
    results:
      description: One entry for each source and address that was asked.
      type: list
      elements: dict
      contains:
        kind:
          description: V(pod to pod), V(node to pod) or V(node to node).
          type: str
        source:
          description: Who asked.
          type: str
        source_host:
          description: Its host.
          type: str
        target:
          description: Who was asked.
          type: str
        target_host:
          description: Its host.
          type: str
        address:
          description: By which address.
          type: str
        sent:
          description: Requests.
          type: int
        received:
          description: Answers.
          type: int
        loss:
          description: What was lost, in percent.
          type: float
        rtt_ms:
          description: The mean time to an answer in milliseconds; null without any.
          type: float
        rtt_min_ms:
          description: The shortest.
          type: float
        rtt_max_ms:
          description: The longest.
          type: float
        error:
          description: Why answers are missing, if somebody said so.
          type: str
    not_asked:
      description: Hosts that asked nobody, whether they were reached, and why.
      type: list
      elements: dict
    not_tried:
      description: What else was not tried, and why.
      type: list
      elements: str
lost:
  description: Of each host of which something does not answer, what it is, a line each.
  returned: with O(answers)
  type: dict
  sample: {node-a: "pod to pod: node-a/default/web -> node-b/default/db (10.244.1.2): 0 of 3 answered"}
"""
