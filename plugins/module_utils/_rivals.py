# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons that program the same routes and rules as we do: which of them run. Of a pass only where there is something to take over."""

from __future__ import annotations

__metaclass__ = type

import os
import re

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Collection, Dict, List

# Of one network the same inode. ns/net would need more capabilities than a pass has.
NETWORK = "/proc/%s/net/dev"


def running(names: Collection[str]) -> List[Dict[str, Any]]:
    """Processes in this host's network whose executable has one of ``names``: exactly, as a path may hold any word.

    /proc shows those in containers, too. One with a network of its own, as in a node of kind on a workstation, is not in our way.
    """
    network = os.stat(NETWORK % "self")
    found = []
    for pid in sorted(int(p) for p in os.listdir("/proc") if p.isdigit()):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                argv = f.read().decode("utf-8", "replace").split("\0")
            name = os.path.basename(argv[0])
            if name not in names or not os.path.samestat(os.stat(NETWORK % pid), network):
                continue
        except OSError:  # it ended
            continue
        found.append({"name": name, "pid": pid, "command": re.sub(r"\s+", " ", " ".join(argv)).strip()[:200]})
    return found


def kindnetd() -> str:
    """The kindnetd that runs here, in words; "" if none does."""
    return ", ".join("pid %(pid)d: %(command)s" % d for d in running(("kindnetd",)))


def refuse_takeover() -> None:
    """Raise while kindnetd runs: it would make its own routes again, and delete ours for it."""
    found = kindnetd()
    if found:
        raise KindnetError(
            "takeover",
            "true",
            "kindnetd still runs here (%s)" % found,
            "Stop it and keep it from starting again; nothing was changed.",
        )
