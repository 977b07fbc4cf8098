#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin of this name, which does the work on the controller."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_free_pod_cidrs
short_description: Free the pod CIDRs of a node in the ledger
version_added: "0.1.0"
description:
  - Takes a node out of the ledger of M(kindnet.host.kindnet_node_table). Its pod CIDRs are then free, and the last to be given again.
  - If the inventory still has the node, the ledger remembers that it was removed. Until its name is taken out there, runs refuse to take it for a new one.
  - A node that the ledger does not have, or no ledger at all, is no change.
  - Runs on the controller alone and opens no connection. Meant for the end of C(playbooks/remove_node.yml), when the peers' routes are gone.
  - kindnetd leaves this to kube-controller-manager.
options:
  name:
    description: Name of the node in the inventory.
    type: str
    required: true
  group:
    description: Inventory group whose members are the nodes.
    type: str
    default: kindnet_nodes
  ledger:
    description: Path of the ledger, as M(kindnet.host.kindnet_node_table) takes it.
    type: str
  cluster_name:
    description: Name of the cluster. The ledger of another one is refused.
    type: str
    default: kindnet
attributes:
  check_mode:
    support: full
    description: Does not write the ledger.
  diff_mode:
    support: full
    description: What changes in the ledger.
  idempotent:
    support: full
    description: What is free stays free.
seealso:
  - module: kindnet.host.kindnet_node_table
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Free what worker3 held
  kindnet.host.kindnet_free_pod_cidrs:
    name: worker3
  run_once: true
"""

RETURN = r"""
pod_cidrs:
  description: What was freed.
  returned: success
  type: list
  elements: str
  sample: [10.244.3.0/24]
listed:
  description: Whether the inventory still has the node.
  returned: success
  type: bool
  sample: true
ledger:
  description: Path of the ledger, whether there is one or not; empty where none could be.
  returned: success
  type: str
  sample: /home/me/inventory/kindnet-ledger.yml
"""
