#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference CNI plugins out of a release archive."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: cni_plugin_archive
short_description: Unpack the reference CNI plugins out of a release archive
version_added: "0.2.0"
description:
  - Unpacks an archive as U(https://github.com/containernetworking/plugins/releases) has them into a folder of its own,
    C(/usr/local/lib/kindnet/cni/DIGEST/). M(kindnet.host.cni_plugin_links) links the plugins from there to where container runtimes look.
  - The archive comes from the controller, which fetches it once if it is given as a URL. A node needs no way to the network, and gets the archive only if
    its plugins are not unpacked there.
  - Its checksum is verified on the controller and on the node, before anything of it is read. It may hold regular files at its top and nothing else.
  - kindnetd brings the plugins in its image.
options:
  archive:
    description:
      - A file on the controller, searched for as M(ansible.builtin.copy) does, or a URL.
      - Required with O(state=present).
    type: str
  checksum:
    description:
      - Its checksum, V(sha256:) and 64 hexadecimal digits. Required with O(state=present).
      - With O(state=absent), that of the archive whose plugins stay.
    type: str
  src:
    description: The archive on the node. The action plugin of this module puts it there; without it, nothing is changed and what would be is told.
    type: path
  cluster_name:
    description: Name of the cluster. A host that is recorded as a member of another one is refused.
    type: str
    default: kindnet
  lock_timeout:
    description: Seconds to wait for a run or a pass that is at work on this host.
    type: float
    default: 30.0
  state:
    description:
      - V(present) unpacks the archive, and makes good what is damaged of it.
      - V(absent) removes what was unpacked of archives. Take the links away before.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Predicts exactly what a real run changes. The archive need not be there yet.
  diff_mode:
    support: full
    description: Shows each folder that is made or removed.
  idempotent:
    support: full
    description: Nothing is sent to a node on which the plugins of that checksum are, with the size and mode that they were unpacked with.
seealso:
  - module: kindnet.host.cni_plugin_links
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Unpack plugins newer than the distribution's
  kindnet.host.cni_plugin_archive:
    archive: https://github.com/containernetworking/plugins/releases/download/v1.9.0/cni-plugins-linux-amd64-v1.9.0.tgz
    checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  register: plugins

- name: Link them
  kindnet.host.cni_plugin_links:
    source_dirs: ["{{ plugins.folder }}"]

- name: Remove those of other archives
  kindnet.host.cni_plugin_archive:
    state: absent
    checksum: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""

RETURN = r"""
folder:
  description: Where the plugins are.
  returned: success and O(state=present)
  type: str
  sample: /usr/local/lib/kindnet/cni/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
changes:
  description: What was changed, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What is changed.
      type: str
      sample: folder /usr/local/lib/kindnet/cni/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
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
      sample: it is not here
problems:
  description: What could not be changed. The module fails if there is one.
  returned: always
  type: list
  elements: dict
host:
  description: Name of the host.
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
from ansible_collections.kindnet.host.plugins.module_utils import _plugin_archive
from ansible_collections.kindnet.host.plugins.module_utils._converge import is_absent
from ansible_collections.kindnet.host.plugins.module_utils._module import COMMON_OPTIONS, run

if TYPE_CHECKING:
    from typing import Any


def result_of(outcome: Any) -> dict[str, Any]:
    return {} if is_absent(outcome.section) else {"folder": _plugin_archive.folder_of(outcome.section["digest"])}


def main() -> None:
    options = {name: option for name, option in COMMON_OPTIONS.items() if name != "persist"}
    module = AnsibleModule(
        argument_spec=dict(options, archive={"type": "str"}, checksum={"type": "str"}, src={"type": "path"}),
        supports_check_mode=True,
    )
    module.params["persist"] = False  # a pass has no archive, so there is nothing to record
    if module.params["state"] == "present" and not module.params["src"]:
        module.check_mode = True
    run(module, _plugin_archive, result_of)


if __name__ == "__main__":
    main()
