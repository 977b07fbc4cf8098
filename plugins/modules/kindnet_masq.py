#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_masq
short_description: Masquerade what pods send out of the cluster
version_added: "0.1.0"
description:
  - Keeps one chain in the C(nat) table, and one jump to it from C(POSTROUTING), so that pods reach each other with their own addresses
    and everything else with the address of their node. By iptables in either of its flavours, or by nftables.
  - "The rules are those of kindnetd, the network plugin of kind, to the letter: one C(RETURN) per cluster CIDR, C(MASQUERADE) last."
  - Whatever is wrong with the chain (a rule missing, extra, doubled, out of order, or dead behind C(MASQUERADE)) or with its jump (missing, doubled,
    altered) is right after one run, in one transaction per IP family, before which a set of nftables that is new is filled in one of its own. kindnetd
    appends a missing C(RETURN) behind C(MASQUERADE), where it has no effect.
  - A chain that is right is not touched, and its counters survive. A jump that is right stays where it is, also when others appended rules behind
    it. Rules and chains of others are never changed.
  - Unless O(persist=false), the arguments are recorded in C(/etc/kindnet/desired.json), from which C(kindnet-reconcile) keeps them true.
options:
  cluster_cidrs:
    description:
      - The networks in which the cluster's pods have their addresses, IPv4, IPv6 or both. Traffic to them is not masqueraded.
      - A family is used when one of its networks is here. A chain of ours in a family that is used no more is removed.
      - The rules stand in the order of this list. Required unless O(state=absent).
    type: list
    elements: str
  chain:
    description:
      - "The name of the chain. At most 28 letters, digits and C(_ . : + -), no dash in front, and not the name of a
        built-in chain or of a target such as C(MASQUERADE). With O(backend=nftables) at most 26 letters, digits and C(_ . -), one of them a capital."
      - The chain of this name belongs to this collection. When the name changes, the chain of the old name is removed once the new one is in place.
    type: str
    default: KIND-MASQ-AGENT
  backend:
    description:
      - Through what the rules are kept. V(iptables-nft) and V(iptables-legacy) are asked for by these names, whatever plain C(iptables) is.
        V(nftables) needs no iptables on the host.
      - With V(auto) it is where the chain already is, or was by the record of the last run; else what the rules of others (kube-proxy's,
        Docker's) use, that is the flavour of iptables with more of them, or nftables if only native nat chains hold some; else the flavour
        that plain C(iptables) is; and nftables on a host without iptables.
        It is decided by this module, recorded, and said with its reason (RV(backend_reason)); a pass of C(kindnet-reconcile) does not
        decide anew, and C(kindnet-reconcile --check) tells if V(auto) would choose otherwise by now.
      - With V(nftables) there is one table C(inet kindnet), in which interval sets hold the networks. Its base chain is hooked after
        the nat table of iptables (priority 101), or before it (99) with O(jump_position=first).
      - When the backend changes, the new chain is in place before the old one goes. Both say the same, so every packet is treated alike at any moment.
    type: str
    choices: [auto, iptables-nft, iptables-legacy, nftables]
    default: auto
    version_added: "0.2.0"
  non_masquerade_cidrs:
    description:
      - Networks beside O(cluster_cidrs) that see the pods' own addresses, in CIDR notation. V(0.0.0.0/0) or V(::/0) masquerades nothing of that family.
      - One of a family that the cluster does not have is without effect. They may overlap each other and O(cluster_cidrs).
    type: list
    elements: str
    default: []
    version_added: "0.2.0"
  masquerade_cidrs:
    description:
      - Only what goes to these networks is masqueraded. Left out, everything that is not spared.
      - If the cluster has both families, both have to be in the list.
    type: list
    elements: str
    default: []
    version_added: "0.2.0"
  source_cidrs:
    description:
      - Only what these networks send is masqueraded, such as the pod CIDRs, so that the host's own traffic is left alone. Left out, what
        anybody sends, as kindnetd does.
      - If the cluster has both families, both have to be in the list.
    type: list
    elements: str
    default: []
    version_added: "0.2.0"
  masquerade_link_local:
    description: Whether traffic to link-local addresses (V(169.254.0.0/16)), such as the metadata service of a cloud, is masqueraded like any other.
    type: bool
    default: true
    version_added: "0.2.0"
  masquerade_link_local_ipv6:
    description: The same for V(fe80::/10).
    type: bool
    default: true
    version_added: "0.2.0"
  random_fully:
    description: Have the kernel choose source ports at random, so that connections which begin at the same moment do not get the same one.
    type: bool
    default: false
    version_added: "0.2.0"
  jump_position:
    description:
      - Where in C(POSTROUTING) the jump to the chain stands.
      - V(last) adds a missing jump at the end, as kindnetd does; one that is there stays where it is.
      - V(first), and V(before TARGET) with the name of a chain or target such as V(before KUBE-POSTROUTING), are kept true. As long as
        no rule leads to V(TARGET) the jump may stand anywhere.
      - V(before TARGET) goes with iptables only.
    type: str
    default: last
    version_added: "0.2.0"
  ip_masq_agent_config:
    description:
      - A configuration file of ip-masq-agent on the controller, whose CIDRs and link-local switches are added to the options.
      - Read by the action plugin of this module, which refuses what the agent would refuse, and an option that contradicts the file.
    type: str
    version_added: "0.2.0"
  lock_wait:
    description:
      - Seconds to wait, each time, for the lock that the programs of C(iptables-legacy) take (C(/run/xtables.lock)), from 1 to 60.
        After that the module fails, and has changed nothing. A pass of the timer gives all programs of iptables together no more than 20 seconds, so
        that one which waits or hangs keeps it from nothing else.
    type: int
    default: 5
  tools_predicted:
    description:
      - Set by the roles in check mode, when the same play would install iptables or nftables. That it is missing is then not an error.
    type: bool
    default: false
extends_documentation_fragment: [kindnet.host.recording]
attributes:
  check_mode:
    description: Predicts the changes without making them.
    support: full
  diff_mode:
    description: Shows the rules of the chain and the jump before and after.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
requirements:
  - "On the host, in C(/usr/sbin), C(/sbin), C(/usr/local/sbin) or C(/usr/bin): iptables 1.8 or newer of the flavour in use, or nft of
    nftables 0.9.3 or newer, with a kernel of 5.2 or newer."
notes:
  - Needs root, or C(CAP_NET_ADMIN).
  - A table that somebody filled through C(nft) itself, with rules that iptables cannot read, is an error and is left as it is.
seealso:
  - module: kindnet.host.kindnet_route
  - module: kindnet.host.cni_conflist
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Masquerade what leaves the cluster of kind's defaults
  kindnet.host.kindnet_masq:
    cluster_cidrs:
      - 10.244.0.0/16

- name: The same for both families, in the rules that Docker's iptables uses on this host
  kindnet.host.kindnet_masq:
    cluster_cidrs:
      - 10.244.0.0/16
      - fd00:10:244::/56
    backend: iptables-legacy

- name: The same without iptables, for pods alone, and not towards the data centre
  kindnet.host.kindnet_masq:
    cluster_cidrs:
      - 10.244.0.0/16
    backend: nftables
    source_cidrs:
      - 10.244.0.0/16
    non_masquerade_cidrs:
      - 10.0.0.0/8

- name: Take the chain and its jump out again
  kindnet.host.kindnet_masq:
    state: absent
"""

RETURN = r"""
backend:
  description: The backend in use, with V(auto) decided.
  returned: O(state=present), unless it failed before that was known
  type: str
  sample: iptables-nft
backend_reason:
  description: Why it is this one.
  returned: as RV(backend)
  type: str
  sample: "auto: 12 rules and chains of others in iptables-nft, 0 rules and chains of others in iptables-legacy, 0 rules of others in native nat chains"
shadowed_by:
  description:
    - Rules of others that decide about pods' packets otherwise than our chain does, where and what, at most ten. They are warned of and not touched.
    - "Ahead of our jump that is NAT of what is to keep its address, and C(ACCEPT) of what is to be masqueraded; behind it the former."
  returned: as RV(backend)
  type: list
  elements: str
  sample: ["iptables-nft -t nat POSTROUTING rule 1 '-s 10.244.0.0/16 -j MASQUERADE': masquerades pods' traffic to 10.244.0.0/16"]
families:
  description:
    - What was found of each family in use (V(ipv4), V(ipv6)), before any change. A family that could not be read is left out and is a problem.
    - With nftables it is one entry, V(inet).
  returned: as RV(backend)
  type: dict
  contains:
    command:
      description: The program that shows this family's rules.
      type: str
      sample: iptables-nft
    rules:
      description: The rules of the chain, without their comments.
      type: list
      elements: str
      sample: ["-d 10.244.0.0/16 -j RETURN", "-j MASQUERADE"]
    chain:
      description: V(right), or what was wrong with the chain.
      type: str
      sample: RETURN for 10.244.0.0/16 is dead behind MASQUERADE
    jump:
      description: V(right), or what was wrong with the jump.
      type: str
      sample: right
    table:
      description: Of nftables, instead of the two, V(right), or what was wrong with the table.
      type: str
      sample: right
    sets:
      description: Of nftables, the networks in each set.
      type: dict
      sample: {non_masquerade_ipv4: [10.244.0.0/16]}
  sample:
    ipv4:
      command: iptables-nft
      rules: ["-j MASQUERADE"]
      chain: RETURN for 10.244.0.0/16 missing
      jump: right
changes:
  description: What was changed, or would be in check mode.
  returned: unless it failed before that was known
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
    - subject: iptables-nft chain nat/KIND-MASQ-AGENT
      action: replace
      before: -j MASQUERADE
      after: -d 10.244.0.0/16 -j RETURN, -j MASQUERADE
      reason: RETURN for 10.244.0.0/16 missing
problems:
  description: What is not as wanted, one entry each; everything else was done. With any, the module fails.
  returned: as RV(changes)
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
  returned: as RV(changes)
  type: list
  elements: str
  sample: []
left_out:
  description: How many entries of RV(changes), RV(problems) and RV(notes) are not told. Each list has at most 100, and 20 of a failure.
  returned: if a list is longer
  type: dict
  sample: {changes: 12}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _masq
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

OPTIONS = {
    "cluster_cidrs": {"type": "list", "elements": "str"},
    "chain": {"type": "str", "default": "KIND-MASQ-AGENT"},
    "backend": {"type": "str", "default": "auto", "choices": ["auto", "iptables-nft", "iptables-legacy", "nftables"]},
    "non_masquerade_cidrs": {"type": "list", "elements": "str", "default": []},
    "masquerade_cidrs": {"type": "list", "elements": "str", "default": []},
    "source_cidrs": {"type": "list", "elements": "str", "default": []},
    "masquerade_link_local": {"type": "bool", "default": True},
    "masquerade_link_local_ipv6": {"type": "bool", "default": True},
    "random_fully": {"type": "bool", "default": False},
    "jump_position": {"type": "str", "default": "last"},
    "ip_masq_agent_config": {"type": "str"},
    "lock_wait": {"type": "int", "default": 5},
    "tools_predicted": {"type": "bool", "default": False},
}
REQUIRED_IF = [("state", "present", ["cluster_cidrs"])]


def families(outcome):
    """What the planner saw, for the result."""
    if "backend" not in outcome.section:
        return {}
    details = dict(outcome.plan.details)
    said = {key: details.pop(key) for key in ("backend_reason", "shadowed_by")}
    return dict(said, backend=outcome.section["backend"], families=details)


def main():
    module = AnsibleModule(
        argument_spec=dict(COMMON_OPTIONS, **OPTIONS),
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    run(module, _masq, families)


if __name__ == "__main__":
    main()
