# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real probes showed: how many came back, where each was seen last, and which rule dropped them. Pure."""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Evidence(NamedTuple):
        sent: int
        received: int
        lost: bool  # of the small ones some did not come back
        dropped_at: str  # the node whose rule dropped one; "" if none is known
        dropped_by: str
        last_node: str
        last_seen: str
        large_size: int  # bytes of the large ones with DF; 0 if none was sent
        too_large: bool  # they did not come back, and small ones did
        large_reason: str
else:
    Evidence = namedtuple("Evidence", "sent received lost dropped_at dropped_by last_node last_seen large_size too_large large_reason")
