#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real probes between two addresses, watched on every node of their way. Nothing of it stays."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_probe
short_description: Send real probes, and watch them on a node by captures and a trace
version_added: "0.2.0"
description:
  - In three steps, since a probe is watched on several hosts at once. O(step=watch) on each node of the way, O(step=send) on the one that it starts from,
    O(step=collect) on each again.
  - What watches is one process of a host. By a packet socket it sees the probes, and nothing else, come in and leave on every interface. Through nftables
    it has the kernel trace them (C(meta nftrace)), which tells what the filter chains of nftables and of C(iptables-nft) make of them.
  - Nothing of it stays. The table of the trace is owned by a process (C(flags owner)), so that the kernel takes it away when that ends, even if it is killed.
    No file is written. Who is never asked to end does so after O(seconds). The kernel's own memory of the probes, an entry of conntrack and, where a
    router said so, the MTU of the path, expires as that of any packet.
  - Probes are echo requests as C(ping) sends them, 3 small ones, and if these come back 2 of the MTU of the interface that they leave by, with DF. They are
    sent by this host's Python from within the pod's network namespace, so the pod needs no C(ping).
  - kindnetd has nothing like it. C(playbooks/walk.yml -e probe=true) uses this.
options:
  node_name:
    description: The name of this host in the inventory.
    type: str
    required: true
  step:
    description: What to do.
    type: str
    required: true
    choices: [watch, send, collect]
  identifier:
    description: The number of these probes, the same in all three steps, from 1 to 65535. It is the identifier in the echo requests.
    type: int
    required: true
  source:
    description: Address to send from. It has to be there. Needed but for O(step=collect).
    type: str
  destination:
    description: Address to send to. Needed but for O(step=collect).
    type: str
  netns:
    description: Path of the network namespace to send from; empty for that of the host.
    type: str
    default: ""
  seconds:
    description: After which time, in seconds, a process that watches ends by itself. 600 at most.
    type: int
    default: 60
  wait:
    description: How long, in seconds, to wait for the last answer of the small, and of the large ones. By default long enough for a kernel to tell that a next
      hop does not answer. When all have come back nobody waits. 60 at most.
    type: float
    default: 3.5
attributes:
  check_mode:
    support: full
    description: Neither sends nor watches in check mode, and says so by RV(skipped).
  diff_mode:
    support: none
    description: Nothing that it changes stays.
  idempotent:
    support: full
    description: Nothing that it changes stays.
seealso:
  - module: kindnet.host.kindnet_walk
  - module: kindnet.host.kindnet_walk_verdict
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Watch for the probes
  kindnet.host.kindnet_probe:
    node_name: "{{ inventory_hostname }}"
    step: watch
    identifier: 4711
    source: 10.244.1.2
    destination: 10.244.2.2

- name: Send them
  kindnet.host.kindnet_probe:
    node_name: "{{ inventory_hostname }}"
    step: send
    identifier: 4711
    source: 10.244.1.2
    destination: 10.244.2.2
    netns: /proc/237/ns/net
  when: inventory_hostname == 'k8s-guide-worker'
  register: sent

- name: Collect what was seen
  kindnet.host.kindnet_probe:
    node_name: "{{ inventory_hostname }}"
    step: collect
    identifier: 4711
  register: seen
"""

RETURN = r"""
small:
  description: The V(size) in bytes of a packet, how many were V(sent) and how many answers V(received), and V(errors) with which the kernel did not send.
  returned: with O(step=send)
  type: dict
  sample: {size: 84, sent: 3, received: 3, sequences: [1, 2, 3], errors: []}
large:
  description: The same of the large ones; null if they were not sent.
  returned: with O(step=send)
  type: dict
  sample: {size: 1500, sent: 2, received: 2, sequences: [4, 5], errors: []}
refusals:
  description: What routers on the way said no with; V(source), V(what) and V(mtu), which is 0 if that was not the reason.
  returned: with O(step=send)
  type: list
  elements: dict
  sample: [{source: 172.18.0.3, what: Fragmentation Needed, mtu: 1400}]
seen:
  description: Where this host saw them; V(interface), V(way) (in or out), V(kind) (request or reply), V(source), V(destination) and their V(sequences).
  returned: with O(step=collect)
  type: list
  elements: dict
  sample: [{interface: eth0, way: out, kind: request, source: 10.244.1.2, destination: 10.244.2.2, sequences: [1, 2, 3]}]
trace:
  description:
    - What chains made of each; V(packets), each with its V(kind), its V(sequence) and its V(chains), and the base chains of V(forward) there are.
    - V(why) there is none; empty if there is. In V(legacy) are the tables of C(iptables-legacy), which cannot be traced this way.
  returned: with O(step=watch) and O(step=collect)
  type: dict
  sample: {why: "", legacy: [], forward: [ip filter FORWARD], packets: []}
skipped:
  description: Whether nothing was done, because of check mode.
  returned: in check mode
  type: bool
  sample: true
"""

import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _probe_send, _probe_watch
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_address


def do_step(params):
    identifier = params["identifier"]
    if not 1 <= identifier <= 65535:
        raise KindnetError("identifier", identifier, "is no number of a probe", "Write one from 1 to 65535.")
    for option, most in (("seconds", 600), ("wait", 60)):
        if not 0 < params[option] <= most:
            raise KindnetError(option, params[option], "is not above 0 and at most %d" % most, "Write a number within that.")
    if os.geteuid() != 0:
        raise KindnetError("user", "uid %d" % os.geteuid(), "may not send and watch probes", "Run as root (become: true).")
    if params["step"] == "collect":
        found = _probe_watch.collect(identifier)
        why = "nobody watches any more: more than the time for it went by since it began, or the process was killed"
        return found or {"seen": [], "trace": {"why": why, "legacy": [], "packets": [], "forward": []}}
    source, destination = (parse_address(end, params[end]).text for end in ("source", "destination"))
    if params["step"] == "send":
        return _probe_send.send(identifier, source, destination, params["netns"], params["wait"])
    said = _probe_watch.start(identifier, source, destination, params["seconds"])
    return {"trace": {"why": said["trace"]}}


def main():
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "step": {"type": "str", "required": True, "choices": ["watch", "send", "collect"]},
            "identifier": {"type": "int", "required": True},
            "source": {"type": "str"},
            "destination": {"type": "str"},
            "netns": {"type": "str", "default": ""},
            "seconds": {"type": "int", "default": 60},
            "wait": {"type": "float", "default": 3.5},
        },
        required_if=[("step", step, ("source", "destination")) for step in ("watch", "send")],
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, skipped=True)
    try:
        module.exit_json(changed=False, **do_step(params))
    except (KindnetError, OSError) as e:
        named = e if isinstance(e, KindnetError) else KindnetError("probe", params["identifier"], "the kernel refuses (%s)" % e, "See what forbids it.")
        host = params["node_name"] or platform.node()
        module.fail_json(msg="%s: %s" % (host, named), field=named.field, value=str(named.value), remedy=named.remedy)


if __name__ == "__main__":
    main()
