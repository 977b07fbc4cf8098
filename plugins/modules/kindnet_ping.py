#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses answer this host and its pods, and how fast."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_ping
short_description: Ask many addresses for an echo, from this host and from the network of its pods
version_added: "0.2.0"
description:
  - Sends ICMP echo requests to a list of addresses, many at once, and tells for each how many were answered and how long that took. IPv4 and IPv6.
  - They come from the host itself, or from the network namespace of a pod. Only the sockets are made in there. Nothing runs in the pod,
    and nothing has to be in its image.
  - The load is bounded. All sources of a host together send no more than O(rate) requests a second; what is late is not caught up with in a burst.
    A run that would take more than 10 minutes is refused.
  - That an address does not answer is a result and not a failure. So is a namespace that is gone, as of a pod that has just ended.
  - Changes nothing. kindnetd has nothing like it.
options:
  targets:
    description: Addresses to ask from the host itself, or from O(netns).
    type: list
    elements: str
  netns:
    description:
      - Path of the network namespace from which to ask O(targets), such as C(/run/netns/cni-1234) or C(/proc/812/ns/net).
      - By default the host's own.
    type: path
  source_ips:
    description:
      - Addresses to ask O(targets) from, one of each family that they have. By default the kernel chooses.
      - A namespace that does not have them is not asked from. The paths of some runtimes lead to another pod's once the one that they were for has ended.
    type: list
    elements: str
    default: []
  sources:
    description:
      - In place of O(targets), several sources at once, as one JSON string. A list of mappings with V(name) (what to call it in RV(results)), V(netns) (as
        O(netns), empty for the host), V(source_ips) and V(targets).
      - Neither the host's journal nor the result repeats it.
    type: str
  count:
    description: Requests to each target, 1 to 100.
    type: int
    default: 3
  interval:
    description: Seconds at least between two requests to one target, 0.01 to 10.
    type: float
    default: 0.1
  timeout:
    description: Seconds to wait for an answer after the last request, 0.05 to 30.
    type: float
    default: 1.0
  rate:
    description: Requests a second that the host sends at most, 1 to 1000. One is 24 bytes long beside its IP header.
    type: float
    default: 100.0
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode as otherwise. Asks in either.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
notes:
  - Needs root, or C(CAP_NET_RAW), for namespaces of pods C(CAP_SYS_ADMIN) as well.
seealso:
  - module: kindnet.host.kindnet_reachability
  - module: kindnet.host.kindnet_verify
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Do the peers answer?
  kindnet.host.kindnet_ping:
    targets: [172.18.0.3, "fc00:f853:ccd:e793::3"]

- name: Does the pod of another node answer a pod here?
  kindnet.host.kindnet_ping:
    netns: /run/netns/cni-5b0c1f3e
    source_ips: [10.244.0.2]
    targets: [10.244.1.2]
    count: 10
  register: answers

- name: Fail if it does not
  ansible.builtin.assert:
    that: answers.results | rejectattr('received', 'equalto', 10) | length == 0
"""

RETURN = r"""
results:
  description: One entry for each source and target, in the order given.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The name of the source; empty with O(targets).
      type: str
      sample: k8s-guide-worker/pod-1
    target:
      description: The address.
      type: str
      sample: 10.244.2.2
    sent:
      description: Requests that were sent. One that this host refused to send counts, as the program C(ping) has it. V(0) if the source could not be used.
      type: int
      sample: 3
    received:
      description: How many of them were answered.
      type: int
      sample: 3
    loss:
      description: How many were not, in percent; null if none was sent.
      type: float
      sample: 0.0
    rtt_min_ms:
      description: The shortest time to an answer, in milliseconds; null without any.
      type: float
      sample: 0.081
    rtt_avg_ms:
      description: The mean of these times.
      type: float
      sample: 0.102
    rtt_max_ms:
      description: The longest one.
      type: float
      sample: 0.141
    error:
      description: Why answers are missing, if the kernel or a router on the way says so; else empty.
      type: str
      sample: ""
"""

import json
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _ping
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._module import short_invocation


def sources_of(params):
    if params["sources"] is None:
        return _ping.parse_sources([{"name": "", **{key: params[key] for key in ("netns", "source_ips", "targets")}}])
    try:
        given = json.loads(params["sources"])
    except ValueError as e:
        raise KindnetError("sources", ascii(params["sources"][:60]), "is not JSON (%s)" % e, "Give a list of mappings as one JSON string.")
    return _ping.parse_sources(given)


def main():
    module = AnsibleModule(
        argument_spec={
            "targets": {"type": "list", "elements": "str"},
            "netns": {"type": "path"},
            "source_ips": {"type": "list", "elements": "str", "default": []},
            # Hidden, or the journal of every host would repeat the addresses of all its peers in every run.
            "sources": {"type": "str", "no_log": True},
            "count": {"type": "int", "default": 3},
            "interval": {"type": "float", "default": 0.1},
            "timeout": {"type": "float", "default": 1.0},
            "rate": {"type": "float", "default": 100.0},
        },
        required_one_of=[("targets", "sources")],
        mutually_exclusive=[("targets", "sources"), ("netns", "sources")],
        supports_check_mode=True,
    )
    params = module.params
    try:
        pace = _ping.parse_pace(params["count"], params["interval"], params["timeout"], params["rate"])
        sources = sources_of(params)
        if os.geteuid() != 0:
            raise KindnetError("user", "uid %d" % os.geteuid(), "may not send echo requests of its own", "Run as root (become: true).")
        results = _ping.ping(sources, pace)
    except KindnetError as e:
        module.fail_json(
            msg="%s: %s" % (platform.node(), e), field=e.field, value=str(e.value), remedy=e.remedy, invocation=short_invocation(params)
        )
    module.exit_json(changed=False, results=results, invocation=short_invocation(params))


if __name__ == "__main__":
    main()
