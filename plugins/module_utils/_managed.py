# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this collection has been at work on a host."""

from __future__ import annotations

__metaclass__ = type

import os

from . import _before, _desired
from ._code_folder import LIBRARY


def is_managed() -> bool:
    """Whether it ever was, and was not taken out since. What looks like its work elsewhere is kindnetd's."""
    return any(os.path.lexists(path) for path in (_desired.FILE, _before.FILE, LIBRARY))
