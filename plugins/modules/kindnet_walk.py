#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel of this host makes of a packet, whichever way it comes. Looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_walk
short_description: Tell what the kernel of a host does with a packet
version_added: "0.2.0"
description:
  - For each flow of packets the answer of C(ip route get) by every interface that such a packet may come in by, the neighbour entry of the next hop, the MTU of
    route and interface, the settings for forwarding and the reverse-path filter, and which rule of the nat tables, of iptables in both flavours and of
    nftables, would give the packet another source.
  - The same questions are put in the network namespaces of pods that run here and are an end of a flow.
  - The packet that is asked about is a ping. What the filter tables make of it is not looked at; M(kindnet.host.kindnet_probe) sends real ones and traces them.
  - Changes nothing. C(playbooks/walk.yml) asks every node at once, and follows the packet through what they answer.
  - kindnetd has nothing like it.
options:
  node_name:
    description: The name of this host in the inventory.
    type: str
    required: true
  flows:
    description: From where to where packets go. All addresses are of one family.
    type: list
    elements: dict
    required: true
    suboptions:
      source:
        description: Source address.
        type: str
        required: true
      destination:
        description: Destination address.
        type: str
        required: true
      begins:
        description:
          - Whether these packets begin a connection. Nat rules are asked about these alone, since what answers goes by what the kernel remembers.
        type: bool
        default: false
  pods:
    description: Pods of this host that are an end of a flow.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address of the pod.
        type: str
        required: true
      netns:
        description: Path of its network namespace. Empty if it is not known; the pod is then not asked.
        type: str
        default: ""
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
  - module: kindnet.host.kindnet_walk_ends
  - module: kindnet.host.kindnet_walk_verdict
  - module: kindnet.host.kindnet_probe
  - module: kindnet.host.kindnet_verify
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Ask what becomes of a packet, there and back
  kindnet.host.kindnet_walk:
    node_name: "{{ inventory_hostname }}"
    flows:
      - {source: 10.244.1.2, destination: 10.244.2.2, begins: true}
      - {source: 10.244.2.2, destination: 10.244.1.2}
  register: answer
"""

RETURN = r"""
lookups:
  description: One for each flow and interface by which its packets may come in; RV(lookups[].iif) is empty for packets that this host itself sends.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: Source address.
      type: str
    destination:
      description: Destination address.
      type: str
    iif:
      description: Interface by which the packet comes in.
      type: str
    question:
      description: What to type to ask the same.
      type: str
    error:
      description: Why there is no way, in the kernel's words; empty if there is one.
      type: str
    in_the_way:
      description: The route that holds the destination although there is no way, such as a blackhole; only with RV(lookups[].error).
      type: str
    type:
      description: V(unicast), V(local) if the packet is for this host, or another type of route.
      type: str
    via:
      description: Next hop; empty if the destination is on the link.
      type: str
    dev:
      description: Interface by which the packet leaves.
      type: str
    prefsrc:
      description: Source address that the host itself would take.
      type: str
    mtu:
      description: MTU of the route, in bytes; 0 if it has none of its own.
      type: int
    learned_mtu:
      description: MTU of the path, in bytes, that the kernel learned from a router and forgets after some minutes; 0 if it has learned none.
      type: int
    flags:
      description: Flags of the route, such as V(linkdown).
      type: list
    matched:
      description: The route that was taken.
      type: str
    back:
      description: The same, briefly, for packets to the source. The reverse-path filter goes by it.
      type: dict
    neighbour:
      description: State and MAC of the next hop's entry; empty if there is none, as long as nobody has sent it anything.
      type: dict
    translation:
      description: Of flows that begin a connection; by what the source is translated (empty if it is kept), the rule that decides, to which address, and rules
        that cannot be told and may decide otherwise.
      type: dict
  sample:
    - {source: 10.244.1.2, destination: 10.244.2.2, iif: veth16d7af43, error: "", type: unicast, via: 172.18.0.4, dev: eth0, mtu: 0}
interfaces:
  description: MTU (bytes), state and addresses of the interfaces that are on a way, by their names.
  returned: success
  type: dict
  sample: {eth0: {mtu: 1500, up: true, addresses: [172.18.0.3/16]}}
sysctls:
  description: The settings about these interfaces, by their names.
  returned: success
  type: dict
  sample: {"net.ipv4.conf.eth0.rp_filter": "0"}
pods:
  description: For each of O(pods) its RV(lookups) and RV(interfaces), or why it could not be asked, by its address.
  returned: success
  type: dict
  sample: {10.244.1.2: {error: "", lookups: [], interfaces: {eth0: {mtu: 1500}}}}
gateways:
  description: By which gateway this node is told to reach peers that are not on-link, by their addresses.
  returned: success
  type: dict
  sample: {}
notes:
  description: What could not be told, and why.
  returned: success
  type: list
  elements: str
  sample: []
"""

import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _desired, _translations
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._lookups import Namespace, lookups
from ansible_collections.kindnet.host.plugins.module_utils._node_table import family_of, parse_address

FLOW = {
    "source": {"type": "str", "required": True},
    "destination": {"type": "str", "required": True},
    "begins": {"type": "bool", "default": False},
}
POD = {"address": {"type": "str", "required": True}, "netns": {"type": "str", "default": ""}}


def family_of_all(flows):
    families = {family_of(parse_address("flows", flow[end]).text) for flow in flows for end in ("source", "destination")}
    if len(families) != 1:
        raise KindnetError("flows", len(flows), "are not of one family", "Ask about IPv4 and about IPv6 one after the other.")
    return families.pop()


def on_this_host(flows, family, notes):
    here = Namespace()
    found = lookups(here, [(f["source"], f["destination"]) for f in flows], family)
    begin = {(f["source"], f["destination"]) for f in flows if f["begins"]}
    try:
        _translations.of_lookups([e for e in found if (e["source"], e["destination"]) in begin], here, family)
    except KindnetError as e:
        notes.append("which rule translates the source cannot be told: %s" % e)
    links = here.addresses()
    used = {name for e in found for name in (e["iif"], e.get("dev", "")) if name in links}
    hops = {ip for f in flows for ip in (f["source"], f["destination"])} | {e["via"] for e in found if e.get("via")}
    near = {name for name, link in links.items() if not link["loopback"] and hops & {a.rpartition("/")[0] for a in link["addresses"]}}
    networks = used | near | {e["iif"] for e in found if e["iif"]}
    return {
        "lookups": found,
        "interfaces": {name: links[name] for name in sorted(networks) if name in links},
        "sysctls": here.settings(family, networks),
    }


def in_a_pod(pod, flows, family):
    """What the pod's own kernel tables say, or why they could not be asked."""
    if not pod["netns"]:
        return {"error": "its network namespace is not known", "lookups": [], "interfaces": {}}
    mine = [(f["source"], f["destination"]) for f in flows if pod["address"] in (f["source"], f["destination"])]
    try:
        namespace = Namespace(pod["netns"])
        links = namespace.addresses()
        if not any(pod["address"] == a.rpartition("/")[0] for link in links.values() for a in link["addresses"]):
            # A path by a process id that another process has by now, or a pod that is being taken away.
            return {"error": "nobody has %s in the network namespace %s" % (pod["address"], pod["netns"]), "lookups": [], "interfaces": {}}
        found = lookups(namespace, mine, family)
    except KindnetError as e:
        return {"error": str(e), "lookups": [], "interfaces": {}}
    return {"error": "", "lookups": found, "interfaces": {name: link for name, link in links.items() if not link["loopback"]}}


def gateways(notes):
    try:
        decided = _desired.load().sections.get("routes", {}).get("non_l2", {})
    except KindnetError as e:
        notes.append("what is recorded about peers that are not on-link cannot be read: %s" % e)
        return {}
    return {ip: how[1] for ip, how in decided.items() if how[:1] == ["via"] and how[1]}


def main():
    module = AnsibleModule(
        argument_spec={
            "node_name": {"type": "str", "required": True},
            "flows": {"type": "list", "elements": "dict", "options": FLOW, "required": True},
            "pods": {"type": "list", "elements": "dict", "options": POD, "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    notes = []
    try:
        if os.geteuid() != 0:
            raise KindnetError("user", "uid %d" % os.geteuid(), "may not ask for all of it", "Run as root (become: true).")
        family = family_of_all(params["flows"])
        result = on_this_host(params["flows"], family, notes)
        result["pods"] = {pod["address"]: in_a_pod(pod, params["flows"], family) for pod in params["pods"]}
        result["gateways"] = gateways(notes)
    except KindnetError as e:
        module.fail_json(msg="%s: %s" % (params["node_name"] or platform.node(), e), field=e.field, value=str(e.value), remedy=e.remedy)
    module.exit_json(changed=False, notes=notes, **result)


if __name__ == "__main__":
    main()
