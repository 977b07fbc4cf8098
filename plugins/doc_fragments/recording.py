# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in plugins/module_utils/_module.py, COMMON_OPTIONS."""

from __future__ import annotations

__metaclass__ = type


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cluster_name:
    description:
      - The cluster that this host is a member of. A host whose recorded desired state is that of another cluster is refused, and nothing is changed.
    type: str
    default: kindnet
  lock_timeout:
    description:
      - Seconds to wait for another module or a pass of C(kindnet-reconcile) that is at work on this host (C(/run/kindnet/lock)).
    type: float
    default: 30.0
  persist:
    description:
      - Whether to record the arguments in C(/etc/kindnet/desired.json), from which C(kindnet-reconcile) keeps them true.
      - With V(false) the host is changed once, and what was recorded before stays recorded, so a later pass may change it back.
    type: bool
    default: true
  state:
    description:
      - With V(absent), what this module made is removed, and its section of C(/etc/kindnet/desired.json) with it.
    type: str
    choices: [present, absent]
    default: present
"""

    TOOLS = r"""
options:
  tools_predicted:
    description:
      - In check mode, take a tool that is missing for one that this play installs. The roles set it; otherwise a missing tool is an
        error in check mode too, because a real run would fail.
      - Without effect outside of check mode.
    type: bool
    default: false
"""
