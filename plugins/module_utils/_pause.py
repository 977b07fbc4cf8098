# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pause of the passes: a file that names its own end, gone after a reboot."""

from __future__ import annotations

__metaclass__ = type

import time

from . import _files
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

FILE = "/run/kindnet/pause"


def remaining() -> Optional[float]:
    """Seconds left of the pause; zero or less when it is over and nobody has ended it yet; None without one.

    Counted on the clock since boot, so that a corrected wall clock neither ends a pause nor makes it last for ever.
    """
    content = _files.read_bytes(FILE)
    if content is None:
        return None
    try:
        return float(content) - time.clock_gettime(time.CLOCK_BOOTTIME)
    except ValueError:
        raise KindnetError(FILE, repr(content[:40]), "is damaged, so nothing is changed", "End the pause: kindnet-reconcile --resume.")


def start(seconds: float) -> None:
    _files.write_atomic(FILE, b"%.0f\n" % (time.clock_gettime(time.CLOCK_BOOTTIME) + seconds))


def end() -> None:
    _files.remove(FILE)
