# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the installation of kindnet-reconcile plans, as tables, and what its action plugin renders."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from ansible_collections.kindnet.host.plugins.action.kindnet_reconcile import render
from ansible_collections.kindnet.host.plugins.module_utils import _before, _code_folder, _concerns
from ansible_collections.kindnet.host.plugins.module_utils._code_folder import Code
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._files import Found
from ansible_collections.kindnet.host.plugins.module_utils._installation import FILES, MODES, OPTIONS, Actual, Installation, textfile_dir_of, validate
from ansible_collections.kindnet.host.plugins.modules import kindnet_reconcile

SOURCES = {"_a.py": b"a = 1\n", "_b.py": b"b = 2\n"}
DEFAULTS = {name: option.get("default") for name, option in OPTIONS.items()}
RENDERED = render(DEFAULTS)
INSTALLATION = Installation(SOURCES, RENDERED)
SECTION = INSTALLATION.resolve(dict(DEFAULTS, state="present"), None)
DIGEST = INSTALLATION.digest
FOLDER = "/usr/local/lib/kindnet/" + DIGEST
OLD = "/usr/local/lib/kindnet/" + "0" * 16
MAGIC = b"\xa7\x0d\x0d\x0a"
FOLDER_FOUND = Found("folder", b"", 0o755, 0, 0)
CURRENT, TIMER, BOOT = "/usr/local/lib/kindnet/current", "kindnet-reconcile.timer", "kindnet-reconcile.timer at boot"
COMMAND, TIMER_FILE = "/usr/local/sbin/kindnet-reconcile", "/etc/systemd/system/kindnet-reconcile.timer"
WATCH, WATCH_FILE = "kindnet-watch.service", "/etc/systemd/system/kindnet-watch.service"


WATCHED = INSTALLATION.resolve(dict(DEFAULTS, state="present", watch=True), None)
WATCH_FOUND = {WATCH_FILE: WATCHED["files"][WATCH_FILE].encode()}


def of(content, mode=0o644, kind="file", uid=0):
    return Found(kind, content, mode, uid, 0)


def tree(paths=()):
    """The code as installed, with some of it changed, or left out where it is None."""
    found = {"": FOLDER_FOUND, "kindnet_host": FOLDER_FOUND, "kindnet_host/__pycache__": FOLDER_FOUND, "kindnet_host/__init__.py": of(b"")}
    for name, content in SOURCES.items():
        found["kindnet_host/" + name] = of(content)
    for name in [*SOURCES, "__init__.py"]:
        found["kindnet_host/__pycache__/%s.cpython-311.pyc" % name[:-3]] = of(MAGIC + b"\1\0\0\0rest")
    found.update(paths)
    return {path: f for path, f in found.items() if f is not None}


def code(**changes):
    return Code(DIGEST, (FOLDER,), (), tree(), "cpython-311", MAGIC)._replace(**changes)


def actual(**changes):
    files = dict.fromkeys(MODES)
    files.update((path, of(text.encode(), MODES[path])) for path, text in SECTION["files"].items())
    files.update(changes.pop("files", {}))
    return Actual(files, code(), {}, "active", True, False)._replace(**changes)


PRISTINE = Actual(dict.fromkeys(MODES), Code("", (), (), None, "", b""), {}, "inactive", False, False)


@pytest.mark.parametrize(
    ("found", "planned"),
    [
        (actual(), []),
        (
            PRISTINE,
            [("add", FOLDER), ("add", CURRENT), *(("add", path) for path in SECTION["files"]), ("replace", BOOT), ("replace", TIMER)],
        ),
        # another version is there
        (actual(code=code(current="0" * 16, tree=None)), [("add", FOLDER), ("replace", CURRENT)]),
        (actual(code=code(current="0" * 16)), [("replace", CURRENT)]),
        (actual(code=code(current="0" * 16, idle=(OLD,))), [("replace", CURRENT), ("remove", OLD)]),
        (actual(code=code(idle=(OLD,))), [("remove", OLD)]),
        (actual(code=code(installed=(FOLDER, OLD))), []),
        (actual(code=code(current="")), [("add", CURRENT)]),
        (actual(code=code(leftovers=(FOLDER + ".tmp",))), [("remove", FOLDER + ".tmp")]),
        # somebody changed the code
        (actual(code=code(tree=tree(paths={"kindnet_host/_a.py": None}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"kindnet_host/_a.py": of(b"a = 2\n")}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"kindnet_host/_a.py": of(SOURCES["_a.py"], 0o664)}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"kindnet_host/_a.py": of(SOURCES["_a.py"], uid=1000)}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"kindnet_host/_a.py": of(SOURCES["_a.py"], kind="a symbolic link to /tmp/a")}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"json.py": of(b"")}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"": FOLDER_FOUND._replace(mode=0o777)}))), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"kindnet_host/__pycache__/_a.cpython-311.pyc": of(MAGIC + b"\1\0\0\0", 0o666)}))), [("replace", FOLDER)]),
        # the bytecode is missing, of another Python, or one that looks at its source
        (actual(code=code(tree=tree(paths={"kindnet_host/__pycache__/_a.cpython-311.pyc": None}))), [("replace", FOLDER)]),
        (actual(code=code(python_tag="cpython-313")), [("replace", FOLDER)]),
        (actual(code=code(python_magic=b"\xcb\x0d\x0d\x0a")), [("replace", FOLDER)]),
        (actual(code=code(tree=tree(paths={"kindnet_host/__pycache__/_a.cpython-311.pyc": of(MAGIC + b"\0\0\0\0rest")}))), [("replace", FOLDER)]),
        # a file is missing, edited, closed to others, not root's, masked
        (actual(files={COMMAND: None}), [("add", COMMAND)]),
        (actual(files={COMMAND: of(b"#!/bin/sh\n", 0o755)}), [("replace", COMMAND)]),
        (actual(files={COMMAND: of(SECTION["files"][COMMAND].encode(), 0o700)}), [("replace", COMMAND)]),
        (actual(files={COMMAND: of(SECTION["files"][COMMAND].encode(), 0o755, uid=1000)}), [("replace", COMMAND)]),
        (actual(files={TIMER_FILE: of(b"", 0o777, "a symbolic link to /dev/null")}, timer="inactive"), [("replace", TIMER_FILE), ("replace", TIMER)]),
        # drop-ins, and what systemd holds
        (actual(drop_ins={TIMER_FILE + ".d/slow.conf": "[Timer]\n"}), [("remove", TIMER_FILE + ".d/slow.conf")]),
        (actual(reload_needed=True), [("replace", "systemd")]),
        (actual(reload_needed=True, files={TIMER_FILE: None}), [("add", TIMER_FILE)]),
        (actual(enabled=False), [("replace", BOOT)]),
        (actual(timer="inactive"), [("replace", TIMER)]),
        (actual(timer="failed"), [("replace", TIMER)]),
        (actual(timer="elapsed"), [("replace", TIMER)]),
    ],
)
def test_plan(found, planned):
    plan = INSTALLATION.plan(SECTION, found)
    assert [(c.action, c.subject) for c in plan.changes] == planned
    assert not plan.problems
    assert len({c.subject for c in plan.changes}) == len(plan.changes)
    for c in plan.changes:
        assert c.before != c.after and bool(c.before) == (c.action != "add") and bool(c.after) == (c.action != "remove"), c


def watched(**changes):
    files = {WATCH_FILE: of(WATCH_FOUND[WATCH_FILE]), **changes.pop("files", {})}
    return actual(files=files, watch="active", watch_enabled=True)._replace(**changes)


@pytest.mark.parametrize(
    ("section", "found", "planned"),
    [
        (WATCHED, watched(), []),
        (WATCHED, actual(), [("add", WATCH_FILE), ("replace", WATCH + " at boot"), ("replace", WATCH)]),
        (WATCHED, watched(watch="failed"), [("replace", WATCH)]),
        (WATCHED, watched(watch_enabled=False), [("replace", WATCH + " at boot")]),
        (WATCHED, watched(files={WATCH_FILE: of(b"[Service]\n")}), [("replace", WATCH_FILE)]),
        # it is not wanted any more, or was never finished
        (SECTION, watched(), [("replace", WATCH), ("replace", WATCH + " at boot"), ("remove", WATCH_FILE)]),
        (SECTION, actual(files={WATCH_FILE: of(b"", 0o777, "a symbolic link to /dev/null")}), [("remove", WATCH_FILE)]),
        (SECTION, actual(watch="failed"), [("replace", WATCH)]),
    ],
)
def test_plan_of_the_watch(section, found, planned):
    plan = INSTALLATION.plan(section, found)
    assert [(c.action, c.subject) for c in plan.changes] == planned
    for c in plan.changes:
        assert c.before != c.after and bool(c.before) == (c.action != "add") and bool(c.after) == (c.action != "remove"), c


METRICS = "/srv/old/kindnet.prom"
MEASURED = INSTALLATION.resolve(dict(DEFAULTS, state="present", textfile_dir="/srv/new"), None)
HISTORY = "/var/lib/kindnet/history"
PRIOR = {"mode": "0644", "owner": [0, 0], "text": "theirs"}


@pytest.mark.parametrize(
    ("section", "found", "planned"),
    [
        (MEASURED, actual(missing_folders=("/srv/new",)), [("add", "folder /srv/new")]),
        (MEASURED, actual(priors=_before.Priors({}, {"/srv/new/kindnet.prom": None})), [("add", "what was at /srv/new/kindnet.prom")]),
        # it is written elsewhere now, or nowhere
        (MEASURED, actual(metrics=_before.Priors({METRICS: None}, {})), [("remove", METRICS), ("remove", "what was at " + METRICS)]),
        (SECTION, actual(metrics=_before.Priors({METRICS: None}, {})), [("remove", METRICS), ("remove", "what was at " + METRICS)]),
        (SECTION, actual(metrics=_before.Priors({METRICS: PRIOR}, {METRICS: None})), [("replace", METRICS), ("remove", "what was at " + METRICS)]),
        (
            {"state": "absent"},
            PRISTINE._replace(metrics=_before.Priors({METRICS: None}, {}), history=True),
            [("remove", METRICS), ("remove", "what was at " + METRICS), ("remove", HISTORY)],
        ),
        # what passes repaired is theirs to keep until then
        (SECTION, actual(history=True), []),
    ],
)
def test_plan_of_what_passes_write_of_themselves(section, found, planned):
    plan = INSTALLATION.plan(section, found)
    assert [(c.action, c.subject) for c in plan.changes] == planned
    for c in plan.changes:
        assert c.before != c.after and bool(c.before) == (c.action != "add") and bool(c.after) == (c.action != "remove"), c


def test_where_metrics_are_written_is_known_by_the_unit():
    assert textfile_dir_of(None) == textfile_dir_of(of(RENDERED["kindnet-reconcile.service"].encode())) == ""
    assert textfile_dir_of(of(render(dict(DEFAULTS, textfile_dir="/srv/new"))["kindnet-reconcile.service"].encode())) == "/srv/new"


@pytest.mark.parametrize(
    ("found", "planned"),
    [
        (PRISTINE, []),
        (
            watched(),
            [
                ("replace", WATCH),
                ("replace", WATCH + " at boot"),
                ("replace", TIMER),
                ("replace", BOOT),
                *(("remove", path) for path in reversed(list(WATCHED["files"]))),
                ("remove", CURRENT),
                ("remove", FOLDER),
            ],
        ),
        (PRISTINE._replace(watch="failed", watch_enabled=True), [("replace", WATCH), ("replace", WATCH + " at boot")]),
        (
            actual(drop_ins={"/x.d/a.conf": ""}),
            [
                ("replace", TIMER),
                ("replace", BOOT),
                *(("remove", path) for path in reversed(list(SECTION["files"]))),
                ("remove", "/x.d/a.conf"),
                ("remove", CURRENT),
                ("remove", FOLDER),
            ],
        ),
        (PRISTINE._replace(code=Code("", (), (FOLDER + ".tmp",), None, "", b"")), [("remove", FOLDER + ".tmp")]),
    ],
)
def test_plan_of_removal(found, planned):
    plan = INSTALLATION.plan(INSTALLATION.resolve({"state": "absent"}, None), found)
    assert [(c.action, c.subject) for c in plan.changes] == planned


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": 0},
        {"interval": 3601},
        {"protocol": 4},
        {"protocol": 256},
        {"writable_paths": ["etc/cni"]},
        {"writable_paths": ["/"]},
        {"writable_paths": ["/etc/cni/../shadow"]},
        {"writable_paths": ["/etc/cni /etc"]},
        {"writable_paths": ["/etc/%i"]},
        {"writable_paths": ["/etc/cni\nExecStartPre=/bin/sh"]},
        {"textfile_dir": "metrics"},
        {"textfile_dir": "/srv/my metrics"},
        {"textfile_dir": "/srv/metrics\nUser=nobody"},
    ],
)
def test_bad_options_are_refused_by_name(wrong):
    with pytest.raises(KindnetError) as e:
        validate(dict(DEFAULTS, **wrong))
    assert e.value.field == next(iter(wrong))


@pytest.mark.parametrize("rendered", [None, {}, {"kindnet-reconcile": "x"}, dict(RENDERED, more="x"), dict(RENDERED, **{"kindnet-reconcile": 1})])
def test_what_the_action_plugin_did_not_make_is_refused(rendered):
    with pytest.raises(KindnetError) as e:
        Installation(SOURCES, rendered).resolve(dict(DEFAULTS, state="present"), None)
    assert e.value.field == "rendered"


def test_options_reach_the_files():
    rendered = render(dict(DEFAULTS, interval=7, protocol=42, writable_paths=["/srv/cni"]))
    assert "\nOnUnitActiveSec=7s\n" in rendered["kindnet-reconcile.timer"]
    assert rendered["kindnet-rt-protos.conf"].splitlines()[-1] == "42 kindnet"
    assert "\nReadWritePaths=-/srv/cni\n" in rendered["kindnet-reconcile.service"] and "/opt/cni" not in rendered["kindnet-reconcile.service"]
    assert "\nd /srv/cni " in rendered["kindnet-tmpfiles.conf"]
    assert "\nConditionPathExists=|!/srv/cni\n" in rendered["kindnet-writable-paths.service"]
    assert set(rendered) == set(FILES)


def test_a_folder_for_metrics_is_in_the_files_only_if_there_is_one():
    changed = {"kindnet-reconcile.service", "kindnet-tmpfiles.conf", "kindnet-writable-paths.service"}
    rendered = render(dict(DEFAULTS, textfile_dir="/srv/metrics"))
    assert {name for name in FILES if rendered[name] != RENDERED[name]} == changed
    for name in changed:
        gained = set(rendered[name].splitlines()) - set(RENDERED[name].splitlines())
        assert gained and not set(RENDERED[name].splitlines()) - set(rendered[name].splitlines())
        assert "/srv/metrics" in "".join(gained)
    assert "KINDNET_TEXTFILE_DIR" not in RENDERED["kindnet-reconcile.service"]


def test_the_digest_tells_names_from_contents():
    digests = {_code_folder.digest_of(s) for s in ({"a": b"bc"}, {"ab": b"c"}, {"a": b"b", "c": b""}, {"a": b"b\0"}, {"a": b""})}
    assert len(digests) == 5


def imports_of(name, seen):
    """The files of module_utils that one of them brings along, found in its text."""
    if name in seen:
        return
    seen.add(name)
    for node in ast.walk(ast.parse(Path("plugins/module_utils/%s.py" % name).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for needed in [node.module] if node.module else [alias.name for alias in node.names]:
                imports_of(needed, seen)


def test_all_that_a_pass_imports_is_installed_and_nothing_else_unchanged():
    needed: set[str] = set()
    for name in ["_reconcile", "_reconcile_cli", "_watch", *_concerns.MODULES.values()]:
        imports_of(name, needed)
    sources = kindnet_reconcile.sources()
    assert set(sources) == {name + ".py" for name in needed}
    for name, content in sources.items():
        assert content == (Path("plugins/module_utils") / name).read_bytes()


def test_every_concern_has_what_a_pass_calls():
    for section in _concerns.MODULES:
        concern = _concerns.load(section)
        assert section == concern.SECTION
        assert all(callable(getattr(concern, function)) for function in ("resolve", "read", "plan", "apply"))


def test_the_command_is_a_program_of_an_old_python_too():
    ast.parse(RENDERED["kindnet-reconcile"], feature_version=(3, 9))
    assert RENDERED["kindnet-reconcile"].startswith("#!%s -IBS\n" % _code_folder.PYTHON)
    assert os.path.basename(FILES["kindnet-reconcile"][0]) == "kindnet-reconcile"
