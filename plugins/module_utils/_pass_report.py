# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass tells of itself beside the journal. Imported by a pass that has something to tell, which a clean one has not."""

from __future__ import annotations

__metaclass__ = type

from . import _history, _status_file
from ._reconcile import ERROR, as_kindnet_error, build, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from ._problem_memory import Memory
    from ._reconcile import Pass


def record(this: Pass) -> None:
    """For those who ask later. What cannot be recorded is repaired all the same."""
    try:
        _history.append(this.repairs)
    except Exception as e:
        this.history_error = str(as_kindnet_error("the history", e))
        say(ERROR, "problem: %s" % this.history_error)


def tell(this: Pass, news: Optional[Memory]) -> None:
    """For other programs, what is new. ``news``: the problems that there are now, if they are not those of the last pass."""
    try:
        _status_file.update(build(), this.repairs, news, this.history_error)
    except Exception as e:
        say(ERROR, "problem: %s" % as_kindnet_error("the status", e))
