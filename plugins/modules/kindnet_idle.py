#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_idle
short_description: Tell which modules of this collection would find nothing to do
version_added: "0.2.0"
description:
  - Has each module that it is given planned as in check mode, all of them in one process on the host, and tells those that would change nothing,
    record nothing, and have nothing to say. A play can then leave out what would only cost the start of a module.
  - The planners are the ones that M(kindnet.host.kindnet_reconcile) has installed for its passes. On a host that does not have the very code of the
    controller, to the letter, every module counts as one with something to do.
  - So does a module that would fail or warn, for whatever reason. What is wrong is told by that module itself.
  - The controller's half of each module (the template of M(kindnet.host.cni_conflist), the file of ip-masq-agent of M(kindnet.host.kindnet_masq)) is run
    as the module itself runs it.
  - Changes nothing.
options:
  modules:
    description:
      - Options by module, of M(kindnet.host.cni_conflist), M(kindnet.host.cni_plugin_links), M(kindnet.host.kindnet_masq),
        M(kindnet.host.kindnet_neighbours), M(kindnet.host.kindnet_reconcile), M(kindnet.host.kindnet_route) and M(kindnet.host.kindnet_sysctl), by their
        names without C(kindnet.host).
      - C(tools_predicted) is taken for V(false); while a tool is missing, there is something to do.
      - Neither the host's journal nor the result repeats them.
    type: raw
    required: true
  digest:
    description:
      - That of the code on the controller, put there by the action plugin.
    type: str
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
notes:
  - Needs root. Without it, every module counts as one with something to do.
  - What it tells is true when it tells it, as is what a module in check mode predicts.
seealso:
  - module: kindnet.host.kindnet_reconcile
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: See whether the routes are as they shall be
  kindnet.host.kindnet_idle:
    modules:
      kindnet_route:
        node_name: "{{ inventory_hostname }}"
        nodes: "{{ kindnet_table.nodes_json }}"
  register: kindnet_look

- name: Route to the pods of the peers
  kindnet.host.kindnet_route:
    node_name: "{{ inventory_hostname }}"
    nodes: "{{ kindnet_table.nodes_json }}"
  when: "'kindnet_route' not in kindnet_look.idle"
"""

RETURN = r"""
idle:
  description: Modules with nothing to do.
  returned: always
  type: list
  elements: str
  sample: [cni_conflist, kindnet_masq]
busy:
  description: The others, each with the first thing that it would do or say.
  returned: always
  type: dict
  sample: {kindnet_route: route 10.244.1.0/24}
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils._idle import reasons


def main():
    module = AnsibleModule(
        # Hidden, or the journal of every host would repeat the whole table in every run.
        argument_spec={"modules": {"type": "raw", "required": True, "no_log": True}, "digest": {"type": "str"}},
        supports_check_mode=True,
    )
    modules, digest = module.params["modules"], module.params["digest"]
    if not isinstance(modules, str) or not digest:
        module.fail_json(msg="digest is what the action plugin of this module gives; run the module by its full name, kindnet.host.kindnet_idle")
    found = reasons(json.loads(modules), digest)
    module.exit_json(changed=False, idle=sorted(n for n, why in found.items() if not why), busy={n: why for n, why in found.items() if why})


if __name__ == "__main__":
    main()
