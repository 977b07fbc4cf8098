#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host knows of the node table: its addresses, and what it has recorded."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_node_info
short_description: Tell the addresses of a node's interface, and which pod CIDRs it has recorded
version_added: "0.1.0"
description:
  - Answers what M(kindnet.host.kindnet_node_table) asks before it gives out pod CIDRs, or when it does not know a node's address yet.
  - Changes nothing, and needs nothing on the host but Python 3.9.
  - kindnetd has both from the Kubernetes API.
options:
  name:
    description: The host's name in the inventory. It is returned, so that an answer can be told from others.
    type: str
    required: true
  interface:
    description:
      - Interface whose addresses to tell. One that does not exist is an error.
      - Empty for none.
    type: str
    default: ""
  cluster_name:
    description: The cluster whose pod CIDRs to tell. What the host has recorded of another cluster is left out.
    type: str
    default: kindnet
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
  - module: kindnet.host.kindnet_node_table
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Ask which addresses eth1 has, and which pod CIDRs are recorded
  kindnet.host.kindnet_node_info:
    name: "{{ inventory_hostname }}"
    interface: eth1
  register: answer
"""

RETURN = r"""
name:
  description: That of O(name).
  returned: success
  type: str
  sample: worker
interface:
  description: That of O(interface).
  returned: success
  type: str
  sample: eth1
addresses:
  description:
    - Addresses of O(interface) by which peers can reach the host, the best one first. Never a temporary, deprecated, tentative, link-local or
      loopback one.
    - IPv4 before IPv6; of a family primary before secondary ones, configured before leased or advertised ones, those of a network before single ones
      (V(/32), V(/128)), then the lowest.
  returned: success
  type: list
  elements: str
  sample: [172.18.0.3, "fc00:f853:ccd:e793::3"]
pod_cidrs:
  description:
    - Pod CIDRs by node, this one included, as the last run recorded them here.
    - Where no CNI configuration is recorded, this one's are those of C(/etc/cni/net.d/10-kindnet.conflist), such as kindnetd writes.
    - Empty on a host that has neither.
  returned: success
  type: dict
  sample: {worker: [10.244.1.0/24], worker2: [10.244.2.0/24]}
allocations:
  description: Addresses that host-local has given to pods of that CNI configuration.
  returned: success
  type: list
  elements: str
  sample: [10.244.1.2]
"""

import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _addresses, _conflist, _desired, _files
from ansible_collections.kindnet.host.plugins.module_utils._conflist_data import stores_of
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_address, parse_cidr


def recorded(name, cluster_name):
    """Pod CIDRs by node, and the addresses that pods of this one have."""
    desired = _desired.load()
    if desired.sections and desired.cluster_name != cluster_name:
        return {}, []
    found = {}
    routes, conflist = (desired.sections.get(section, {}) for section in ("routes", "conflist"))
    for node, cidr, _next_hop in routes.get("peers", ()):
        found.setdefault(node, []).append(cidr)
    # The pods of a host that lost its record, or that kindnetd runs on, have addresses all the same.
    stores = stores_of(_conflist.in_use(conflist))
    own = conflist.get("pod_cidrs") or [cidr for cidrs in stores.values() for cidr in canonical(cidrs)]
    if own:
        found[routes.get("node_name", name)] = own
    return found, [ip for store in sorted(stores) for ip in allocations(store)]


def canonical(cidrs):
    """A file that others wrote may hold anything; kindnetd writes an empty subnet when it has none."""
    for cidr in cidrs:
        try:
            yield parse_cidr("conflist", cidr).text
        except KindnetError:
            continue


def allocations(store):
    """A file each; the lock and what was reserved last are others."""
    for name in sorted(_files.names_in(store) or ()):
        try:
            yield parse_address(store, name).text
        except KindnetError:
            continue


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "interface": {"type": "str", "default": ""},
            "cluster_name": {"type": "str", "default": "kindnet"},
        },
        supports_check_mode=True,
    )
    name, interface = module.params["name"], module.params["interface"]
    try:
        pod_cidrs, ips = recorded(name, module.params["cluster_name"])
        module.exit_json(
            changed=False,
            name=name,
            interface=interface,
            addresses=_addresses.candidates(interface) if interface else [],
            pod_cidrs=pod_cidrs,
            allocations=ips,
        )
    except KindnetError as e:
        module.fail_json(msg="%s: %s" % (name or platform.node(), e), field=e.field, value=str(e.value), remedy=e.remedy)


if __name__ == "__main__":
    main()
