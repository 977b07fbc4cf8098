#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links to the reference CNI plugins where container runtimes look for them."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: cni_plugin_links
short_description: Link the reference CNI plugins to where container runtimes look for them
version_added: "0.1.0"
description:
  - Distributions install the reference CNI plugins in C(/usr/lib/cni) (Debian, Ubuntu) or C(/usr/libexec/cni) (RHEL and its rebuilds), while
    containerd and others look in C(/opt/cni/bin). This module makes symbolic links there.
  - A plugin that is there already, as a file or as a link that works, is left alone, whoever put it there.
  - kindnetd copies its plugins from its image into that folder; the four of the default are those that its configuration relies on.
options:
  plugins:
    description: Names of the plugins.
    type: list
    elements: str
    default: [ptp, host-local, portmap, loopback]
  source_dirs:
    description: Folders where the distribution has the plugins, the first that has one wins.
    type: list
    elements: str
    default: [/usr/lib/cni, /usr/libexec/cni]
  bin_dir:
    description: Folder where container runtimes look. It is made with mode 0755 if it is missing.
    type: str
    default: /opt/cni/bin
extends_documentation_fragment:
  - kindnet.host.recording
  - kindnet.host.recording.tools
attributes:
  check_mode:
    support: full
    description: Predicts exactly what a real run changes.
  diff_mode:
    support: full
    description: Shows where each changed link leads, before and after.
  idempotent:
    support: full
    description: A plugin that is there is left alone.
notes:
  - O(state=absent) removes the links that this module made, and the folder if it made it and it is empty. That is known from
    C(/var/lib/kindnet/before.json), whatever became of C(/etc/kindnet/desired.json).
seealso:
  - module: kindnet.host.cni_conflist
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Let containerd find the plugins of the distribution
  kindnet.host.cni_plugin_links:

- name: Take the links out again
  kindnet.host.cni_plugin_links:
    state: absent
"""

RETURN = r"""
links:
  description: The links that are ours, path to target.
  returned: success
  type: dict
  sample: {/opt/cni/bin/ptp: /usr/lib/cni/ptp}
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What is changed.
      type: str
      sample: link /opt/cni/bin/ptp
    action:
      description: V(add), V(replace) or V(remove).
      type: str
      sample: add
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
      sample: container runtimes look there
problems:
  description: What is wanted and not so, such as a link of somebody else's that leads nowhere. The module fails if there is one, after everything else
    was changed.
  returned: always
  type: list
  elements: dict
notes:
  description: What is worth knowing.
  returned: success
  type: list
  elements: str
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

from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _plugin_links
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

if TYPE_CHECKING:
    from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {
    "plugins": {"type": "list", "elements": "str", "default": ["ptp", "host-local", "portmap", "loopback"]},
    "source_dirs": {"type": "list", "elements": "str", "default": ["/usr/lib/cni", "/usr/libexec/cni"]},
    "bin_dir": {"type": "str", "default": "/opt/cni/bin"},
    "tools_predicted": {"type": "bool", "default": False},
}


def result_of(outcome: Any) -> dict[str, Any]:
    return {"links": outcome.section.get("links", {})}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(COMMON_OPTIONS, **OPTIONS),
        supports_check_mode=True,
    )
    # A real run needs the plugins for real.
    module.params["tools_predicted"] = module.params["tools_predicted"] and module.check_mode
    run(module, _plugin_links, result_of)


if __name__ == "__main__":
    main()
