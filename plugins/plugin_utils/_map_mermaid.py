# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The map as Mermaid, for documents. Pure."""

from __future__ import annotations

__metaclass__ = type

from typing import Any, Mapping

from ._map import Map, map_of


def mermaid(report: Mapping[str, Any]) -> str:
    """The map of ``report``, which is the content of drift.json, as the text of a Mermaid flowchart."""
    return mermaid_of(map_of(report))


def mermaid_of(found: Map) -> str:
    return "flowchart LR\n"
