#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel settings that routing between pods needs."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_sysctl
short_description: Keep the kernel settings that routing between pods needs
version_added: "0.1.0"
description:
  - Sets network settings of the kernel at once, and writes them to C(/etc/sysctl.d/zz-kindnet.conf), which is read last, so that they hold after a
    reboot. C(accept_ra) comes first, then forwarding, with which the kernel sets others anew, then the rest.
  - Records them in C(/etc/kindnet/desired.json), by which C(kindnet-reconcile) restores a setting that is turned off later, within 10 seconds.
  - Records the values before the first change in C(/var/lib/kindnet/before.json), once, so that O(state=absent) can bring them back. Among
    them is what the kernel sets anew with forwarding.
  - kindnetd relies on the node image of kind for forwarding, and never looks at it again.
options:
  sysctls:
    description:
      - The settings, all below C(net), in either notation of sysctl.d(5); values are numbers or one line of text.
      - A key that was wanted earlier and is not any more keeps its value, and is brought back by O(state=absent).
    type: dict
    default: {}
  keep_ra_routes:
    description:
      - Turning IPv6 forwarding on makes the kernel drop a default route that it learned from a router advertisement, and hear no more of them, so
        that other routes and addresses it has from there expire. With this, C(accept_ra=2) is set first on every interface that has such a route.
    type: bool
    default: true
extends_documentation_fragment: [kindnet.host.recording]
attributes:
  check_mode:
    support: full
    description: Predicts exactly the changes that a run makes.
  diff_mode:
    support: full
    description: One line for each setting or file.
  idempotent:
    support: full
    description: A second run changes nothing.
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Forward packets
  kindnet.host.kindnet_sysctl:
    sysctls:
      net.ipv4.ip_forward: 1
      net.ipv6.conf.all.forwarding: 1

- name: Bring back what was there before
  kindnet.host.kindnet_sysctl:
    state: absent
"""

RETURN = r"""
changes:
  description: What was changed, or would be in check mode.
  returned: success
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
  sample: [{subject: sysctl net.ipv4.ip_forward, action: replace, before: "0", after: "1", reason: routing between pods needs it}]
problems:
  description: What is wanted and could not be had, by name. The rest was done all the same.
  returned: always
  type: list
  elements: dict
  sample: []
notes:
  description: Worth knowing, such as a setting that somebody else changed since.
  returned: success
  type: list
  elements: str
  sample: []
field:
  description: The option or file that is wrong.
  returned: failure
  type: str
  sample: sysctls
value:
  description: The value that is wrong.
  returned: failure
  type: str
  sample: kernel.panic
remedy:
  description: What to do.
  returned: failure
  type: str
  sample: Write a key below net, such as net.ipv4.ip_forward.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _sysctl
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

OPTIONS = {
    "sysctls": {"type": "dict", "default": {}},
    "keep_ra_routes": {"type": "bool", "default": True},
}


def main():
    module = AnsibleModule(argument_spec=dict(COMMON_OPTIONS, **OPTIONS), supports_check_mode=True)
    run(module, _sysctl)


if __name__ == "__main__":
    main()
