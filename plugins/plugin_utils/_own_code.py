# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which code this collection would install on a node."""

from __future__ import annotations

__metaclass__ = type

import importlib
from typing import Tuple

from ..module_utils._installation import Installation
from ..module_utils._reconcile import VERSION

MODULE = "ansible_collections.kindnet.host.plugins.modules.kindnet_reconcile"  # which knows the files


def own_code() -> Tuple[str, str]:
    """The version of the collection, and the digest that names the folder of its code on a node."""
    return VERSION, Installation(importlib.import_module(MODULE).sources(), None).digest
