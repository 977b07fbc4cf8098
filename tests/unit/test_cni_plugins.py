# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How plugins are asked for their versions: what they are given, and what is made of what they say."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _cni_plugins as cni
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError

GOOD = """#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] || exit 1
read -r question
[ "$question" = '{"cniVersion": "0.3.1"}' ] || exit 2
echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "1.0.0"]}'
"""


def plugin(folder, name, text, mode=0o755):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(mode)


def test_a_plugin_that_speaks_the_version(tmp_path):
    plugin(tmp_path / "a", "ptp", GOOD)
    cni.check_plugins(["ptp"], ["0.3.1"], [str(tmp_path / "a")], False)


def test_the_first_regular_file_wins_as_in_libcni(tmp_path):
    (tmp_path / "a" / "ptp").mkdir(parents=True)
    plugin(tmp_path / "b", "ptp", GOOD, 0o644)
    plugin(tmp_path / "c", "ptp", GOOD)
    folders = [str(tmp_path / f) for f in "abc"]
    assert cni.find_plugin("ptp", folders) == str(tmp_path / "b" / "ptp")
    with pytest.raises(KindnetError, match="does not run"):
        cni.check_plugins(["ptp"], ["0.3.1"], folders, False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("#!/nowhere\n", "does not run"),
        ("#!/bin/sh\nexit 7\n", "exit code 7"),
        ("#!/bin/sh\necho '[]'\n", "does not say its versions"),
        ("#!/bin/sh\necho '{\"supportedVersions\": 1}'\n", "does not speak CNI 0.3.1"),
        ("#!/bin/sh\nprintf 'a\\nb\\033[2J' >&2; exit 1\n", r"'a\\nb\\x1b\[2J'"),
        ("#!/bin/sh\nexec sleep 60\n", "did not say its versions within 0.2 s"),
    ],
)
def test_a_plugin_that_does_not_work(tmp_path, monkeypatch, text, problem):
    monkeypatch.setattr(cni, "TIMEOUT", 0.2 if "sleep" in text else 10.0)
    plugin(tmp_path, "ptp", text)
    with pytest.raises(KindnetError, match=problem) as e:
        cni.check_plugins(["ptp"], ["0.3.1"], [str(tmp_path)], True)  # a plugin that is there is asked, also where one is predicted
    assert "\n" not in str(e.value)


def test_a_missing_plugin_is_an_error_or_a_prediction(tmp_path):
    cni.check_plugins(["ptp"], ["0.3.1"], [str(tmp_path)], True)
    with pytest.raises(KindnetError, match="CNI plugin: ptp: is in none of .*containernetworking-plugins"):
        cni.check_plugins(["ptp"], ["0.3.1"], [str(tmp_path)], False)


# Tags of structures, as a program in Go has them.
GO = GOOD + '# json:"cniVersion,omitempty" json:"snat,omitempty"%s\n'


def test_a_field_that_the_installed_plugin_does_not_know(tmp_path):
    wanted = [{"type": "ptp"}, {"type": "portmap", "snat": True, "backend": "nftables"}]
    plugin(tmp_path, "portmap", GO % "")
    with pytest.raises(KindnetError, match=r'^portmap\.backend: "nftables": is not known to .*/portmap\. .*release 1\.6\.0 or newer'):
        cni.check_fields(wanted, [str(tmp_path)])
    cni.check_fields([{"type": "portmap", "snat": True}], [str(tmp_path)])
    plugin(tmp_path, "portmap", GO % ' json:"backend,omitempty"')
    cni.check_fields(wanted, [str(tmp_path)])


def test_of_a_plugin_that_is_none_of_the_reference_ones_nothing_is_told(tmp_path):
    wanted = [{"type": "portmap", "backend": "nftables"}]
    cni.check_fields(wanted, [str(tmp_path)])  # predicted
    plugin(tmp_path, "portmap", GOOD)
    cni.check_fields(wanted, [str(tmp_path)])


def test_every_version_that_a_runtime_may_choose_is_asked_for(tmp_path):
    plugin(tmp_path, "ptp", GOOD)
    cni.check_plugins(["ptp"], ["0.3.1", "1.0.0"], [str(tmp_path)], False)
    with pytest.raises(KindnetError, match=r"does not speak CNI 1\.1\.0, it speaks \['0\.3\.1', '1\.0\.0'\].*kindnet_cni_version"):
        cni.check_plugins(["ptp"], ["0.3.1", "1.1.0"], [str(tmp_path)], False)
