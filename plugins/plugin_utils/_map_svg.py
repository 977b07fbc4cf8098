# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map as SVG. Pure."""

from __future__ import annotations

__metaclass__ = type

from ._map import Map


def svg(found: Map) -> str:
    return ""
