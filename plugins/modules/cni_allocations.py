#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses that host-local has given to pods which are gone, and hostPort rules that lead to nobody."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: cni_allocations
short_description: Find and release pod addresses that nobody uses
version_added: "0.2.0"
description:
  - A node that crashes, or a runtime that loses its state, leaves allocations of host-local behind, until no address is left for new pods.
  - Reports an allocation as leaked if no route leads to its address, no network namespace of the host has it, no CNI plugin runs for its container,
    and it is older than O(min_age). Namespaces are looked for at all processes and threads, at open files, and at mounts in every mount namespace.
  - With O(release=true) releases these, and no other. That is decided under host-local's own lock, so that no pod can be given one meanwhile.
  - Every doubt counts as in use. While one namespace cannot be looked at, nothing is leaked; a file that cannot be read is not; and allocations of another
    plugin than C(ptp) are not judged, since only C(ptp) makes a route to each pod, and a sandboxed runtime keeps the address out of the namespace.
  - Reports the rules for hostPorts, as the plugin C(portmap) makes them, that lead to an address which no pod has. It leaves them.
  - kindnetd has nothing like it. No pass of C(kindnet-reconcile) releases anything.
options:
  release:
    description: Release what is leaked.
    type: bool
    default: false
  min_age:
    description: Age in seconds up to which an allocation counts as in use, whatever else is seen of it. At least 60.
    type: int
    default: 300
  lock_timeout:
    description: Seconds to wait for host-local's lock, which it holds for some milliseconds.
    type: float
    default: 30.0
attributes:
  check_mode:
    support: full
    description: Predicts exactly what a real run releases.
  diff_mode:
    support: full
    description: Shows each allocation that is released, and who had it.
  idempotent:
    support: full
    description: What is released is not found again.
seealso:
  - module: kindnet.host.cni_conflist
  - name: host-local
    description: The plugin that allocates addresses.
    link: https://www.cni.dev/plugins/current/ipam/host-local/
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Report what is leaked
  kindnet.host.cni_allocations:
  register: allocations

- name: Release it
  kindnet.host.cni_allocations:
    release: true
"""

RETURN = r"""
stores:
  description: The folders of host-local that were looked at, by the CNI configuration in use.
  returned: success
  type: list
  elements: str
  sample: [/run/cni-ipam-state/kindnet]
allocations:
  description: How many allocations there are, before any is released.
  returned: success
  type: int
  sample: 12
leaked:
  description: Those that nobody uses. The same with O(release=true), which releases them.
  returned: success
  type: list
  elements: dict
  contains:
    ip:
      description: The address.
      type: str
      sample: 10.244.1.7
    container:
      description: The container that it was given to; empty if the file does not say.
      type: str
      sample: 3f5c2e9a
    ifname:
      description: The interface in it; empty if the file does not say, as those of old versions.
      type: str
      sample: eth0
    age:
      description: Seconds since it was given.
      type: int
      sample: 86400
    store:
      description: The folder that it is in.
      type: str
      sample: /run/cni-ipam-state/kindnet
host_ports:
  description: HostPorts that lead to an address which no pod has, one entry for each chain of portmap, or each pod in its nftables table.
  returned: success
  type: list
  elements: dict
  contains:
    table:
      description: The command that asks for the table, less what it asks.
      type: str
      sample: iptables-nft -w -t nat
    chain:
      description: The chain.
      type: str
      sample: CNI-DN-8ef1a2b3c4d5e6f70819a
    container:
      description: The container that they were made for; empty if no rule says so.
      type: str
      sample: 3f5c2e9a
    rules:
      description: The rules that lead there.
      type: list
      elements: str
      sample: [-A CNI-DN-8ef1a2b3c4d5e6f70819a -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.7:80]
    ports:
      description: Protocols and ports of this host.
      type: list
      elements: str
      sample: [tcp 8080]
    targets:
      description: The addresses.
      type: list
      elements: str
      sample: [10.244.1.7]
    remedy:
      description: The command that takes them out.
      type: str
changes:
  description: What was released, or would be in check mode. Empty without O(release=true).
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What is changed.
      type: str
      sample: allocation 10.244.1.7
    action:
      description: V(remove).
      type: str
      sample: remove
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
      sample: no pod has it
problems:
  description: What could not be released. The module fails if there is one.
  returned: success
  type: list
  elements: dict
doubts:
  description: What could not be looked at, and what counts as in use for it. Each is a warning, too.
  returned: success
  type: list
  elements: str
  sample: []
host:
  description: Name of the host, as it calls itself.
  returned: on bad input
  type: str
field:
  description: The option or file that is wrong.
  returned: on bad input
  type: str
remedy:
  description: What to do.
  returned: on bad input
  type: str
"""

import os
import platform
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _allocations, _conflist, _desired, _host_ports
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._module import message_of
from ansible_collections.kindnet.host.plugins.module_utils._plan import Plan, as_data, diff_of
from ansible_collections.kindnet.host.plugins.module_utils._plan_allocations import leaked, releasing, without_pod

LEAST_AGE = 60
MOST_DOUBTS = 10  # a process that cannot be looked at has as many as it has threads


class Findings:
    """One look at the host, in the order in which a pod's network comes about, backwards.

    Whoever has a rule of portmap has a file of host-local's, and whoever has that is being made by then, or has all that he is known by.
    """

    def __init__(self, stores, others, min_age):
        host_ports, blind = _host_ports.read()
        self.now = time.time()
        self.allocations = [a for store, subnets in sorted(stores.items()) for a in _allocations.read(store, subnets)]
        self.seen = _allocations.look()
        self.leaked = leaked(self.allocations, self.seen, self.now, min_age)
        self.host_ports = without_pod(host_ports, [a for a in self.allocations if a not in self.leaked], self.seen)
        self.doubts = ["%s, so nothing counts as leaked." % doubt for doubt in self.seen.doubts[:MOST_DOUBTS]]
        if self.seen.doubts[MOST_DOUBTS:]:
            self.doubts.append("%d further places cannot be looked at, so nothing counts as leaked." % len(self.seen.doubts[MOST_DOUBTS:]))
        self.doubts += ["%s, so its hostPorts are not looked at." % b for b in blind]
        self.doubts += ["%s/%s %s, so it counts as in use." % (a.store, ascii(a.ip)[1:-1], a.doubt) for a in self.allocations if a.doubt]
        for store, plugin in sorted(others.items()):
            count = len(_allocations.read(store, ()))
            if count:
                text = "%s: its %d allocations are of plugin %s, which makes no route to each pod, so they count as in use."
                self.doubts.append(text % (store, count, ascii(plugin)))


def run(params, check_mode):
    if os.geteuid() != 0:
        raise KindnetError("user", "uid %d" % os.geteuid(), "may not look at and change all that this takes", "Run as root (become: true).")
    if params["min_age"] < LEAST_AGE:
        problem = "is less than %d seconds, and the network of a pod may be under way" % LEAST_AGE
        raise KindnetError("min_age", params["min_age"], problem, "Leave it at 300.")
    stores, others = _allocations.stores(_conflist.in_use(_desired.load().sections.get("conflist")))
    found = Findings(stores, others, params["min_age"])
    problems = []
    if params["release"] and found.leaked and not check_mode:
        folders = {a.store for a in found.leaked}
        with _allocations.locked(folders, params["lock_timeout"]):
            # What was seen without the lock may have been given to a pod since.
            found = Findings(stores, others, params["min_age"])
            found.leaked = [a for a in found.leaked if a.store in folders]
            problems = release(found.leaked)
    return result(stores, found, params["release"], problems)


def release(allocations):
    problems = []
    for allocation in allocations:
        try:
            _allocations.release(allocation)
        except KindnetError as e:
            problems.append({"subject": "allocation %s" % allocation.ip, "message": str(e)})
    return problems


def result(stores, found, is_release, problems):
    changes = [releasing(a) for a in found.leaked] if is_release else []
    return {
        "changed": bool(changes),
        "diff": diff_of(Plan(tuple(changes))),
        "changes": as_data(changes),
        "problems": problems,
        "stores": sorted(stores),
        "allocations": len(found.allocations),
        "leaked": [
            {"ip": a.ip, "container": a.container, "ifname": a.ifname, "age": int(found.now - a.time), "store": a.store} for a in found.leaked
        ],
        "host_ports": [dict(h._asdict()) for h in found.host_ports],
        "doubts": found.doubts,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "bool", "default": False},
            "min_age": {"type": "int", "default": 300},
            "lock_timeout": {"type": "float", "default": 30.0},
        },
        supports_check_mode=True,
    )
    host = platform.node()
    try:
        outcome = run(module.params, module.check_mode)
    except KindnetError as e:
        module.fail_json(msg="%s: %s" % (host, e), host=host, field=e.field, value=str(e.value), remedy=e.remedy)
    for doubt in outcome["doubts"]:
        module.warn("%s: %s" % (host, doubt))
    if outcome["problems"]:
        module.fail_json(msg=message_of(host, outcome["problems"]), **outcome)
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
