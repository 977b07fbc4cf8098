# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role shortcut asks what the other roles would do: with their options to the letter, of each task that it can spare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.kindnet.host.plugins.action.kindnet_idle import DIGEST, VALIDATORS, validated
from ansible_collections.kindnet.host.plugins.module_utils._concerns import MODULES
from ansible_collections.kindnet.host.plugins.module_utils._idle import SECTIONS
from ansible_collections.kindnet.host.plugins.module_utils._installation import Installation
from ansible_collections.kindnet.host.plugins.module_utils._plugin_archive import folder_of, parse_checksum
from ansible_collections.kindnet.host.plugins.modules import kindnet_reconcile

ROLES = Path(__file__).resolve().parents[2] / "roles"
PREFIX = "kindnet.host."


def tasks_of(entries: list[dict[str, Any]], when: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each task's module, options and condition; a block's condition is that of its tasks."""
    for entry in entries:
        condition = str(entry.get("when", when))
        if "block" in entry:
            yield from tasks_of(entry["block"], condition)
        for key, options in entry.items():
            if key.startswith(PREFIX):
                yield key[len(PREFIX):], options, condition


def load(role: str) -> list[tuple[str, dict[str, Any], str]]:
    return list(tasks_of(yaml.safe_load((ROLES / role / "tasks/main.yml").read_text())))


ASKED = next(options["modules"] for name, options, _when in load("shortcut") if name == "kindnet_idle")
SPARED = {
    name: (options, when)
    for role in ("prerequisites", "neighbours", "masquerade", "conflist", "reconcile", "routes")
    for name, options, when in load(role)
    if name in SECTIONS
}


def test_it_asks_for_every_module_that_can_be_spared_and_no_other() -> None:
    assert set(ASKED) == set(SPARED) == set(SECTIONS) == set(VALIDATORS)


@pytest.mark.parametrize("name", SECTIONS)
def test_with_the_options_of_its_task(name: str) -> None:
    options, _when = SPARED[name]
    # In a play with the role, a tool that is missing is something to do.
    assert ASKED[name] == {key: value for key, value in options.items() if key != "tools_predicted"}


@pytest.mark.parametrize("name", SECTIONS)
def test_its_task_is_left_out_for_its_own_name(name: str) -> None:
    _options, when = SPARED[name]
    assert when == "'%s' not in (__kindnet_idle | default([]))" % name


def test_every_section_of_a_pass_is_asked_for() -> None:
    assert {section for section in SECTIONS.values() if section} == set(MODULES)


def test_the_digest_is_that_of_what_would_be_installed() -> None:
    assert Installation(kindnet_reconcile.sources(), None).digest == DIGEST


def test_options_are_those_that_a_module_has() -> None:
    given = {"sysctls": {"net.ipv4.ip_forward": 1}, "lock_timeout": "5", "tools_predicted": True}
    assert validated("kindnet_sysctl", given) == {
        "sysctls": {"net.ipv4.ip_forward": 1},
        "keep_ra_routes": True,
        "cluster_name": "kindnet",
        "lock_timeout": 5.0,
        "persist": True,
        "state": "present",
    }


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("kindnet_sysctl", {"sysctl": {}}),
        ("kindnet_masq", {"backend": "none", "cluster_cidrs": []}),
        ("kindnet_masq", {}),
        ("kindnet_neighbours", {}),
        ("kindnet_route", {"max_removals": "many", "nodes": "[]", "node_name": "me"}),
        ("kindnet_route", {"node_name": "me"}),
        ("kindnet_route", {"nodes": "[]", "node_name": "me", "non_l2": "via"}),
    ],
)
def test_what_a_module_refuses_is_not_planned(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(AnsibleError):
        validated(name, given)


def test_nothing_is_left_out_once_the_run_has_changed_what_later_tasks_build_on(tmp_path: Path) -> None:
    """Such as the rules of others, which firewalld flushes when it is told of its policy: they were there when the host was asked."""
    idle, looked = ["cni_conflist", "kindnet_masq"], {"changed": False, "idle": ["cni_conflist", "kindnet_masq"]}
    still: list[dict[str, Any]] = [
        {},
        {"__kindnet_neighbours": {"changed": False}, "__kindnet_archive": {"changed": False, "skipped": True}, "__kindnet_host": {"missing_packages": []}},
        {"__kindnet_host": {"missing_packages": ["iptables"]}, "kindnet_install_packages": False},
        {"__kindnet_conflist": {"changed": True}},
    ]
    no_more: list[dict[str, Any]] = [
        *({name: {"changed": True}} for name in ("__kindnet_archive", "__kindnet_sysctl", "__kindnet_cni_plugins", "__kindnet_neighbours")),
        {"__kindnet_host": {"missing_packages": ["iptables"]}},
    ]
    cases = [*((registered, idle) for registered in still), *((registered, []) for registered in no_more)]
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLES / "shortcut/vars/main.yml")],
        "vars": {"__kindnet_look": looked, "kindnet_install_packages": True},
        "tasks": [
            {"ansible.builtin.assert": {"that": "__kindnet_idle == expected"}, "vars": dict(registered, expected=expected)} for registered, expected in cases
        ],
    }
    run(tmp_path, play, len(cases))


def test_the_folder_of_an_archive_is_told_before_it_is_unpacked(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    checksums = ["sha256:" + digest, "sha256:" + digest.upper(), " sha256:%s\n" % digest]
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [str(ROLES / "prerequisites/vars/main.yml")],
        "vars": {"kindnet_cni_archive": "plugins.tgz"},
        "tasks": [
            {
                "ansible.builtin.assert": {"that": "__kindnet_plugin_dirs == [expected]"},
                "vars": {"kindnet_cni_archive_checksum": checksum, "expected": folder_of(parse_checksum(checksum))},
            }
            for checksum in checksums
        ],
    }
    run(tmp_path, play, len(checksums))


def run(folder: Path, play: dict[str, Any], count: int) -> None:
    """Play it, in which so many tasks are to go well."""
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "localhost,", "-c", "local", "play.yml"]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ, LC_ALL="C.UTF-8"), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok=%d " % count in done.stdout
