# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of the page, for a person to look at: of 3 and of 50 nodes, light and dark, and the one that the README shows."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.plugin_utils._report_page import page
from reports import guide, large

BOTTOM = "return document.getElementById(arguments[0]).closest('section').querySelector('figure').getBoundingClientRect().bottom + scrollY"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name, make", [("3", guide), ("50", large)])
@pytest.mark.parametrize("width", [1280, 400])
def test_pictures(browser, pictures, name, make, scheme, width):
    browser.open(page(make()), width=width, scheme=scheme)
    path = pictures / ("drift-%s-nodes-%s-%d.png" % (name, scheme, width))
    browser.picture(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_the_readme(browser, pictures):
    report = guide()
    for host in report["hosts"]:
        host["differences"] = [d for d in host["differences"] if d["concern"] != "masq"]  # the longest, and a picture is no place to read it
    report["totals"]["differences"] -= 1
    browser.open(page(report), width=1120)
    browser.picture(pictures / "drift.png", bottom=browser.run(BOTTOM, "map") + 20)
    assert (pictures / "drift.png").stat().st_size < 200_000
