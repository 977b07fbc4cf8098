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
    and everything else with the address of their node.
  - "The rules are those of kindnetd, the network plugin of kind, to the letter: one C(RETURN) per cluster CIDR, C(MASQUERADE) last."
  - Whatever is wrong with the chain (a rule missing, extra, doubled, out of order, or dead behind C(MASQUERADE)) or with its jump (missing, doubled,
    altered) is right after one run, in one transaction per IP family. kindnetd appends a missing C(RETURN) behind
    C(MASQUERADE), where it has no effect.
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
        built-in chain or of a target such as C(MASQUERADE)."
      - The chain of this name belongs to this collection. When the name changes, the chain of the old name is removed once the new one is in place.
    type: str
    default: KIND-MASQ-AGENT
  flavour:
    description:
      - Which flavour of iptables to use, V(nft) (C(iptables-nft)) or V(legacy) (C(iptables-legacy)). Both are asked for by these names, whatever plain
        C(iptables) is.
      - With V(auto) it is the flavour in which the chain already is, else the one that holds more rules and chains of others,
        else the one that plain C(iptables) is. It is decided by this module and recorded; a pass of C(kindnet-reconcile) does not decide anew.
      - When the flavour changes, the chain of the other flavour is removed once the new one is in place.
    type: str
    choices: [auto, nft, legacy]
    default: auto
  lock_wait:
    description:
      - Seconds to wait, each time, for the lock that the programs of C(iptables-legacy) take (C(/run/xtables.lock)), from 1 to 60.
        After that the module fails, and has changed nothing. A pass of the timer gives all programs of iptables together no more than 20 seconds, so
        that one which waits or hangs keeps it from nothing else.
    type: int
    default: 5
  tools_predicted:
    description:
      - Set by the roles in check mode, when the same play would install iptables. That it is missing is then not an error.
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
  - "On the host: iptables 1.8 or newer of the flavour in use, in C(/usr/sbin), C(/sbin), C(/usr/local/sbin) or C(/usr/bin)."
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
    flavour: legacy

- name: Take the chain and its jump out again
  kindnet.host.kindnet_masq:
    state: absent
"""

RETURN = r"""
flavour:
  description: The flavour of iptables in use, with V(auto) decided.
  returned: O(state=present), unless it failed before that was known
  type: str
  sample: nft
families:
  description: What was found of each family in use (V(ipv4), V(ipv6)), before any change. A family that could not be read is left out and is a problem.
  returned: as RV(flavour)
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
    reason:
      description: Why.
      type: str
  sample:
    - subject: iptables-nft chain nat/KIND-MASQ-AGENT
      action: replace
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
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _masq
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

OPTIONS = {
    "cluster_cidrs": {"type": "list", "elements": "str"},
    "chain": {"type": "str", "default": "KIND-MASQ-AGENT"},
    "flavour": {"type": "str", "default": "auto", "choices": ["auto", "nft", "legacy"]},
    "lock_wait": {"type": "int", "default": 5},
    "tools_predicted": {"type": "bool", "default": False},
}


def families(outcome):
    """What the planner saw, for the result."""
    if "flavour" not in outcome.section:
        return {}
    return {"flavour": outcome.section["flavour"], "families": outcome.plan.details}


def main():
    module = AnsibleModule(
        argument_spec=dict(COMMON_OPTIONS, **OPTIONS),
        required_if=[("state", "present", ["cluster_cidrs"])],
        supports_check_mode=True,
    )
    run(module, _masq, families)


if __name__ == "__main__":
    main()
