# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for what the kernel or another process does by and by, however slow the machine is."""

from __future__ import annotations

import json
import time
from typing import Callable

LIMIT = 60  # seconds, after which it will not come


def until(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "never came: " + what
        time.sleep(0.02)


def has_settled(addresses: str) -> bool:
    """By what ``ip -json -6 address`` prints: each link has the address that the kernel gives it, and may use what it has.

    That is so a moment after a link came up, and until then routes appear by themselves.
    """
    links = [link["addr_info"] for link in json.loads(addresses) if link["ifname"] != "lo"]
    return all(any(a["scope"] == "link" for a in link) and not any(a.get("tentative") for a in link) for link in links)
