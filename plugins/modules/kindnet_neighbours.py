#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_neighbours
short_description: Keep the network of pods together beside systemd-networkd, NetworkManager, firewalld and Docker
version_added: "0.1.0"
description:
  - Looks which of them a host has, and has each leave alone what is not its own. A host that has none of them is not changed, and nothing is recorded.
  - "B(systemd-networkd) drops routes of others when it starts: C(ManageForeignRoutes=no) in C(/etc/systemd/networkd.conf.d/zz-kindnet.conf), which it reads
    at that very moment. It is neither restarted nor reloaded by this module. C(ManageForeignRoutingPolicyRules) stays as it is."
  - "B(NetworkManager) may configure the pods' interfaces: C(unmanaged-devices+=) for names as CNI plugins give them, in
    C(/etc/NetworkManager/conf.d/zz-kindnet.conf). It is told to read its configuration; connections are not touched."
  - "B(firewalld) rejects forwarded packets: a policy C(kindnet) in C(/etc/firewalld/policies/kindnet.xml), which accepts what is forwarded from and to
    the cluster CIDRs. It opens no port of the host. firewalld is reloaded when the policy is not in force. As with every reload, what was set at
    runtime only is lost, and rules that others made through iptables are flushed; the masquerade chain is laid anew at once."
  - "B(Docker), and whoever else has C(FORWARD) drop what no rule knows: two rules for each cluster CIDR, marked by a comment, in C(DOCKER-USER) if
    C(FORWARD) leads there, else in C(FORWARD), ahead of the first rule that decides about everything. A pass of C(kindnet-reconcile) keeps them.
    Where the rules of somebody else accept the same, none are added."
  - A file of somebody else's at one of these three paths stays while none of ours is needed there. Otherwise it is kept, and comes back when ours goes.
  - kindnetd has none of this, as the nodes of kind run nothing else.
options:
  cluster_cidrs:
    description:
      - The networks in which the cluster's pods have their addresses, IPv4, IPv6 or both. Required unless O(state=absent).
    type: list
    elements: str
  manage_networkd:
    description:
      - Whether to have systemd-networkd leave foreign routes alone. Otherwise, what to do is said, once per run.
    type: bool
    default: true
  manage_networkmanager:
    description:
      - Whether to have NetworkManager leave the pods' interfaces alone. Otherwise, what to do is said.
    type: bool
    default: true
  manage_firewalld:
    description:
      - Whether to have firewalld forward packets of pods. Otherwise, what to do is said. Needs firewalld 0.9 or newer.
    type: bool
    default: true
  manage_forward:
    description:
      - Whether to accept packets of pods in a filter table whose C(FORWARD) drops. Otherwise, what to do is said.
    type: bool
    default: true
  lock_wait:
    description:
      - Seconds to wait, each time, for the lock that the programs of C(iptables-legacy) take (C(/run/xtables.lock)), from 1 to 60.
        A pass of the timer gives all programs of iptables together no more than 20 seconds.
    type: int
    default: 5
extends_documentation_fragment: [kindnet.host.recording]
attributes:
  check_mode:
    description: Predicts the changes without making them.
    support: full
  diff_mode:
    description: Shows the files, the policy and the rules before and after.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
notes:
  - Needs root.
  - With systemd-networkd 252, a restart takes a static address away for a moment, and every route through its interface with it, whatever
    C(ManageForeignRoutes) says, unless the C(.network) file sets C(Broadcast=) or C(KeepConfiguration=static). The next pass brings our routes back.
seealso:
  - module: kindnet.host.kindnet_masq
  - module: kindnet.host.kindnet_route
  - module: kindnet.host.kindnet_verify
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Make room for pods beside what else runs here
  kindnet.host.kindnet_neighbours:
    cluster_cidrs:
      - 10.244.0.0/16

- name: The same, on a host whose firewall is somebody else's affair
  kindnet.host.kindnet_neighbours:
    cluster_cidrs:
      - 10.244.0.0/16
    manage_firewalld: false
    manage_forward: false

- name: Take it out again
  kindnet.host.kindnet_neighbours:
    state: absent
"""

RETURN = r"""
neighbours:
  description:
    - "What there is on the host of V(networkd), V(networkmanager), V(firewalld) and V(forward) (a filter table that drops), each with V(handled) or
      V(left alone)."
  returned: unless it failed before that was known
  type: dict
  sample: {firewalld: handled, networkd: left alone}
changes:
  description: What was changed, or would be in check mode.
  returned: as RV(neighbours)
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
    - subject: iptables-nft rules filter/FORWARD of pods
      action: add
      before: ""
      after: -s 10.244.0.0/16 -j ACCEPT, -d 10.244.0.0/16 -j ACCEPT
      reason: the policy of FORWARD is DROP
problems:
  description: What is not as wanted, one entry each; everything else was done. With any, the module fails.
  returned: as RV(neighbours)
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
  description: What an option leaves to the operator and nobody has done yet, with what to do.
  returned: as RV(neighbours)
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _neighbours
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

OPTIONS = {
    "cluster_cidrs": {"type": "list", "elements": "str"},
    "manage_networkd": {"type": "bool", "default": True},
    "manage_networkmanager": {"type": "bool", "default": True},
    "manage_firewalld": {"type": "bool", "default": True},
    "manage_forward": {"type": "bool", "default": True},
    "lock_wait": {"type": "int", "default": 5},
}
REQUIRED_IF = [("state", "present", ["cluster_cidrs"])]


def main():
    module = AnsibleModule(
        argument_spec=dict(COMMON_OPTIONS, **OPTIONS),
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    run(module, _neighbours, lambda outcome: {"neighbours": outcome.plan.details})


if __name__ == "__main__":
    main()
