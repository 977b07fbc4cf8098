# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of the plugin links: what is in the folder in, changes out."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._plugin_links import Actual, plan, resolve

BIN = "/opt/cni/bin"
PTP = BIN + "/ptp"
LEFTOVER = BIN + "/.ptp.kindnet-tmp"


def section(**more):
    return dict({"links": {PTP: "/usr/lib/cni/ptp"}, "source_dirs": ["/usr/lib/cni", "/usr/libexec/cni"], "former": {}, "made_folders": []}, **more)


def actual(places=None, leftovers=(), folders=None):
    return Actual(places or {}, tuple(leftovers), folders or {BIN: ()})


CASES = [
    ("nothing there", {}, (), [("add", PTP)], 0),
    ("our link", {PTP: ("/usr/lib/cni/ptp", True)}, (), [], 0),
    ("a file", {PTP: ("", True)}, (), [], 0),
    ("a link elsewhere that works", {PTP: ("/srv/cni/ptp", True)}, (), [], 0),
    ("a link to the other source that works", {PTP: ("/usr/libexec/cni/ptp", True)}, (), [], 0),
    ("a link to the other source that does not", {PTP: ("/usr/libexec/cni/ptp", False)}, (), [("replace", PTP)], 0),
    ("somebody's link that leads nowhere", {PTP: ("/srv/cni/ptp", False)}, (), [], 1),
    ("our link, the package is gone", {PTP: ("/usr/lib/cni/ptp", False)}, (), [], 1),
    ("a killed run", {PTP: ("/usr/lib/cni/ptp", True)}, (LEFTOVER,), [("remove", LEFTOVER)], 0),
]


@pytest.mark.parametrize(("places", "leftovers", "changes", "problems"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_present(places, leftovers, changes, problems):
    result = plan(section(), actual(places, leftovers))
    assert [(c.action, c.op[1]) for c in result.changes] == changes
    assert len(result.problems) == problems


def test_the_folder_comes_first():
    result = plan(section(made_folders=["/opt/cni", BIN]), actual(folders={"/opt/cni": None, BIN: None}))
    assert [c.subject for c in result.changes] == ["folder /opt/cni", "folder " + BIN, "link " + PTP]


@pytest.mark.parametrize(
    ("place", "goes"),
    [
        (("/usr/lib/cni/ptp", True), True),
        (("/usr/lib/cni/ptp", False), True),
        (("/usr/libexec/cni/ptp", True), True),
        (("/srv/cni/ptp", True), False),
        (("", True), False),
    ],
)
def test_absent_removes_what_leads_into_the_sources(place, goes):
    wanted = {"state": "absent", "former": {PTP: "/usr/lib/cni/ptp"}, "source_dirs": section()["source_dirs"], "made_folders": ["/opt/cni", BIN]}
    result = plan(wanted, actual({PTP: place}, (), {"/opt/cni": ("bin",), BIN: ("ptp",)}))
    assert [c.op[1] for c in result.changes] == ([PTP, BIN, "/opt/cni"] if goes else [])


def test_absent_removes_what_we_made_also_when_the_sources_have_changed_since():
    wanted = {"state": "absent", "former": {PTP: "/usr/lib/cni/ptp"}, "source_dirs": ["/srv/cni"], "made_folders": []}
    assert [c.op[1] for c in plan(wanted, actual({PTP: ("/usr/lib/cni/ptp", True)})).changes] == [PTP]


def test_absent_leaves_a_folder_with_something_in_it():
    wanted = {"state": "absent", "former": {PTP: "/usr/lib/cni/ptp"}, "source_dirs": ["/usr/lib/cni"], "made_folders": [BIN]}
    result = plan(wanted, actual({PTP: ("/usr/lib/cni/ptp", True)}, (), {BIN: ("ptp", "flannel")}))
    assert [c.op[1] for c in result.changes] == [PTP]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"plugins": ["../../etc/passwd"]}, "is not the name of a CNI plugin"),
        ({"plugins": [""]}, "is not the name of a CNI plugin"),
        ({"plugins": ["a\nb"]}, "is not the name of a CNI plugin"),
        ({"bin_dir": "opt/cni/bin"}, "is not a plain absolute path"),
        ({"bin_dir": "/opt/../etc"}, "is not a plain absolute path"),
        ({"source_dirs": []}, "nowhere to link to"),
        ({"source_dirs": ["/usr/lib/cni/"]}, "is not a plain absolute path"),
        ({"plugins": ["no-such-plugin"], "source_dirs": ["/nowhere"]}, "Install the reference plugins"),
    ],
)
def test_bad_input(more, problem):
    params = dict({"plugins": ["ptp"], "source_dirs": ["/usr/lib/cni"], "bin_dir": BIN, "state": "present", "tools_predicted": False}, **more)
    with pytest.raises(KindnetError, match=problem):
        resolve(params, None)
