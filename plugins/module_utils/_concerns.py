# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which concern keeps which section of desired.json true, in the order in which a pass looks at them."""

from __future__ import annotations

__metaclass__ = type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Forwarding first, since without it the rest is of no use; the conflist late, since a runtime that finds it starts pods.
MODULES = {
    "sysctl": "_sysctl",
    "routes": "_routes",
    "masq": "_masq",
    "neighbours": "_neighbours",
    "conflist": "_conflist",
    "cni_plugins": "_plugin_links",
}

FIREWALL = ("masq", "neighbours")  # those that go through iptables, which may be slow, or wait for a lock


def load(section_name: str) -> Any:
    """The concern of a section. Imported only now: a pass pays for the sections that a host has."""
    return __import__("%s.%s" % (__package__, MODULES[section_name]), fromlist=["SECTION"])
