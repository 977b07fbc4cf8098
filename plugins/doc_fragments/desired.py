# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules share which record their part of a host's desired state."""

from __future__ import annotations

__metaclass__ = type


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cluster_name:
    description:
      - Name of the cluster that this host is a member of. It is recorded on the host, and a run that gives another name is refused.
    type: str
    default: kindnet
  lock_timeout:
    description: Seconds to wait for the lock that modules and the timer's pass share.
    type: float
    default: 30.0
  persist:
    description:
      - Record what is wanted in C(/etc/kindnet/desired.json), by which C(kindnet-reconcile) keeps it so every 10 seconds.
      - Without it the state is made once and nobody keeps it.
    type: bool
    default: true
  state:
    description:
      - V(present) makes the state and records it.
      - V(absent) takes out what is ours, and the record of it.
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
