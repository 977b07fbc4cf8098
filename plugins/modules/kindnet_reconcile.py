#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_reconcile
short_description: Let a host keep its routes, rules and CNI configuration by itself
version_added: "0.1.0"
description:
  - Installs C(kindnet-reconcile) and a systemd timer that starts it every 10 seconds, as often as kindnetd looks. A pass makes what
    C(/etc/kindnet/desired.json) says true again, with the code that the other modules of this collection use. Those modules record that file.
  - "What is installed: the code below C(/usr/local/lib/kindnet/) in a folder named after its digest, C(/usr/local/sbin/kindnet-reconcile),
    C(kindnet-reconcile.timer), C(kindnet-reconcile.service) and C(kindnet-writable-paths.service) in C(/etc/systemd/system), with O(watch) also
    C(kindnet-watch.service) there,
    C(/etc/tmpfiles.d/kindnet.conf), and the name of the route protocol in C(/etc/iproute2/rt_protos.d/kindnet.conf).
    The timer is enabled and started."
  - Another version is installed beside the one in use, which is then switched by one rename. A pass under way ends with the code it began with.
  - A unit that somebody changed, disabled, masked, stopped or extended by a drop-in is made as it was.
options:
  cluster_name:
    description:
      - The cluster that this host is a member of. A host whose recorded desired state is that of another cluster is refused, and nothing is changed.
    type: str
    default: kindnet
  interval:
    description:
      - Seconds from the start of one pass to the start of the next, from 1 to 3600.
    type: int
    default: 10
  protocol:
    description:
      - The number of the route protocol that O(kindnet.host.kindnet_route#module:protocol) marks routes with, from 5 to 255. The C(ip) command then shows it as
        C(proto kindnet).
    type: int
    default: 107
  writable_paths:
    description:
      - The folders of the CNI configuration and of the plugins, which a pass may write. Its service sees nearly everything else read-only.
      - One that is missing is made before each pass.
      - Change it when O(kindnet.host.cni_conflist#module:path) or O(kindnet.host.cni_plugin_links#module:bin_dir) is not at its usual place.
    type: list
    elements: path
    default: [/etc/cni/net.d, /opt/cni/bin]
  lock_timeout:
    description:
      - Seconds to wait for another module or a pass that is at work on this host (C(/run/kindnet/lock)).
    type: float
    default: 30.0
  watch:
    description:
      - Also start a pass as soon as the kernel tells of a change to routes, rules of nf_tables (those of iptables-nft among them) or files of ours, so that
        what is damaged is right again within a second. The timer goes on, and sees to what has no such events, iptables-legacy and settings of the kernel.
      - A small program, C(kindnet-watch.service), sleeps until then.
    type: bool
    default: false
    version_added: "0.2.0"
  textfile_dir:
    description:
      - The folder of the textfile collector of Prometheus' node_exporter, such as C(/var/lib/prometheus/node-exporter). Each pass that systemd starts then
        writes C(kindnet.prom) there, clean passes too. Empty, which is the default, means no metrics, and that a clean pass writes nothing.
      - The folder has to belong to root. It is made if it is missing.
    type: path
    default: ""
    version_added: "0.2.0"
  rendered:
    description:
      - The content of the files, which the action plugin of this module makes of the other options. Leave it out.
    type: dict
  state:
    description:
      - With V(absent), everything that this module made is removed once a pass under way has ended, and so is what passes wrote of themselves, such as the
        history of what they repaired. What passes kept true stays as it is.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Predicts the changes without making them, also on a host where nothing is installed yet.
    support: full
  diff_mode:
    description: Shows the content of units and other small files, and which code is installed, before and after.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
requirements:
  - "On the host: systemd as the service manager, and Python 3.9 or newer as C(/usr/bin/python3)."
notes:
  - Needs root.
  - For a pause without removing anything, run C(kindnet-reconcile --pause 1h) on the host.
seealso:
  - module: kindnet.host.kindnet_route
  - module: kindnet.host.kindnet_masq
  - module: kindnet.host.cni_conflist
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Keep what the other modules recorded true
  kindnet.host.kindnet_reconcile:

- name: The same for a conflist that is not in its usual place
  kindnet.host.kindnet_reconcile:
    writable_paths:
      - /var/lib/rancher/k3s/agent/etc/cni/net.d
      - /opt/cni/bin

- name: Have passes start on events, too
  kindnet.host.kindnet_reconcile:
    watch: true

- name: Have each pass write metrics for node_exporter
  kindnet.host.kindnet_reconcile:
    textfile_dir: /var/lib/prometheus/node-exporter

- name: Take it out again
  kindnet.host.kindnet_reconcile:
    state: absent
"""

RETURN = r"""
digest:
  description: The digest of the code of this version, which names its folder below C(/usr/local/lib/kindnet).
  returned: O(state=present), unless it failed before that was known
  type: str
  sample: 3f8a1c20b7d94e55
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
    - subject: kindnet-reconcile.timer
      action: replace
      before: inactive
      after: active
      reason: passes go on
problems:
  description: Always empty; what fails ends this module with its message.
  returned: as RV(changes)
  type: list
  elements: dict
  sample: []
notes:
  description: Worth knowing, wrong for nobody.
  returned: as RV(changes)
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule

# All that a pass runs. Ansible brings these files here with the module, unchanged, and from there they are installed.
from ansible_collections.kindnet.host.plugins.module_utils import (
    _before,
    _cni_fields,
    _cni_plugins,
    _concerns,
    _conflist,
    _conflist_data,
    _converge,
    _daemons,
    _desired,
    _errors,
    _files,
    _firewall,
    _history,
    _links,
    _masq,
    _masq_backend,
    _masq_options,
    _masq_shadow,
    _metrics,
    _neighbours,
    _netlink,
    _nftables,
    _node_table,
    _non_l2,
    _on_link,
    _pass_report,
    _pause,
    _plan,
    _plan_chain,
    _plan_conflist,
    _plan_forward,
    _plan_routes,
    _plan_shadow,
    _plan_table,
    _plugin_links,
    _problem_memory,
    _pyroute2_dep,
    _ranges,
    _reconcile,
    _reconcile_cli,
    _removal_guard,
    _rivals,
    _route,
    _routes,
    _status_file,
    _sysctl,
    _systemd,
    _wanted_routes,
    _watch,
)
from ansible_collections.kindnet.host.plugins.module_utils._installation import OPTIONS, Installation
from ansible_collections.kindnet.host.plugins.module_utils._module import run

PACKAGE = (
    _before,
    _cni_fields,
    _cni_plugins,
    _concerns,
    _conflist,
    _conflist_data,
    _converge,
    _daemons,
    _desired,
    _errors,
    _files,
    _firewall,
    _history,
    _links,
    _masq,
    _masq_backend,
    _masq_options,
    _masq_shadow,
    _metrics,
    _neighbours,
    _netlink,
    _nftables,
    _node_table,
    _non_l2,
    _on_link,
    _pass_report,
    _pause,
    _plan,
    _plan_chain,
    _plan_conflist,
    _plan_forward,
    _plan_routes,
    _plan_shadow,
    _plan_table,
    _plugin_links,
    _problem_memory,
    _pyroute2_dep,
    _ranges,
    _reconcile,
    _reconcile_cli,
    _removal_guard,
    _rivals,
    _route,
    _routes,
    _status_file,
    _sysctl,
    _systemd,
    _wanted_routes,
    _watch,
)


def sources():
    """The files of the package by name, as they are in the collection."""
    return {module.__name__.rpartition(".")[2] + ".py": module.__loader__.get_data(module.__file__) for module in PACKAGE}


def digest(outcome):
    return {"digest": outcome.section["digest"]} if "digest" in outcome.section else {}


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    rendered = module.params.pop("rendered")  # pages, which no result needs to repeat
    module.params["persist"] = False  # it is what reads the record
    run(module, Installation(sources(), rendered), digest)


if __name__ == "__main__":
    main()
