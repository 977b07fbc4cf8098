# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the page: the report's lines."""

from __future__ import annotations

__metaclass__ = type

import html
from typing import Any, Dict


def page(report: Dict[str, Any]) -> str:
    lines = ["%s: %s" % (h["name"], h["line"]) for h in report["hosts"]]
    lines += [c["subject"] + ": " + c["message"] for c in report["cross_host"]]
    return "<!DOCTYPE html><title>drift</title><pre>%s</pre>\n" % html.escape("\n".join(lines))
