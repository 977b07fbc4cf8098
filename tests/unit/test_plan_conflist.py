# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of the CNI configuration: live state in, changes out."""

from __future__ import annotations

import json

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._files import Found
from ansible_collections.kindnet.host.plugins.module_utils._plan import diff_of, line_of
from ansible_collections.kindnet.host.plugins.module_utils._plan_conflist import Actual, is_others, plan_conflist

FOLDER = "/etc/cni/net.d"
PATH = FOLDER + "/10-kindnet.conflist"
TEMPORARY = FOLDER + "/.10-kindnet.conflist.kindnet-tmp"
OLD = FOLDER + "/05-old.conflist"
CONFLIST = {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp", "ipMasq": False, "mtu": 1500}]}
OTHER = {"cniVersion": "0.3.1", "name": "other", "plugins": [{"type": "bridge"}]}


def section(**more):
    return dict({"path": PATH, "conflist": CONFLIST, "former_paths": [], "made_folders": []}, **more)


def absent(*files, made=()):
    return {"state": "absent", "files": [list(f) for f in files] or [[PATH, "kindnet", True]], "made_folders": list(made)}


def found(data=None, kind="file", mode=0o644, uid=0, gid=0):
    content = data if isinstance(data, bytes) else json.dumps(CONFLIST if data is None else data).encode()
    return Found(kind, content, mode, uid, gid)


def actual(files=None, folders=None):
    files = files or {}
    names = tuple(p.rsplit("/", 1)[1] for p in files)
    return Actual(files, dict({FOLDER: names}, **(folders or {})))


def short(plan):
    return [(c.action, c.subject.rsplit("/", 1)[-1], c.reason) for c in plan.changes]


NAME, TEMPORARY_NAME = PATH.rsplit("/", 1)[-1], TEMPORARY.rsplit("/", 1)[-1]
ZERO = dict(CONFLIST, plugins=[{"type": "ptp", "ipMasq": 0, "mtu": 1500}])

PRESENT = [
    ("nothing there", {}, [("add", NAME, "there is none")]),
    ("as it should be, though in one line", {PATH: found()}, []),
    ("keys in another order", {PATH: found({k: CONFLIST[k] for k in reversed(CONFLIST)})}, []),
    ("another value", {PATH: found(dict(CONFLIST, cniVersion="0.4.0"))}, [("replace", NAME, "it says something else")]),
    ("zero where false should be", {PATH: found(ZERO)}, [("replace", NAME, "it says something else")]),
    ("an extra plugin", {PATH: found(dict(CONFLIST, plugins=CONFLIST["plugins"] * 2))}, [("replace", NAME, "it says something else")]),
    ("truncated", {PATH: found(json.dumps(CONFLIST).encode()[:20])}, [("replace", NAME, "it is damaged")]),
    ("empty", {PATH: found(b"")}, [("replace", NAME, "it is damaged")]),
    ("binary", {PATH: found(b"\xff\x00\n")}, [("replace", NAME, "it is damaged")]),
    ("other mode", {PATH: found(mode=0o600)}, [("replace", NAME, "it has another owner or mode")]),
    ("other owner", {PATH: found(uid=1000)}, [("replace", NAME, "it has another owner or mode")]),
    ("other group", {PATH: found(gid=1000)}, [("replace", NAME, "it has another owner or mode")]),
    ("symlinked", {PATH: found(kind="a symbolic link to /x")}, [("replace", NAME, "it is a symbolic link to /x, not a regular file")]),
    ("leftover of a killed run", {PATH: found(), TEMPORARY: found(b"{")}, [("remove", TEMPORARY_NAME, "left behind by a run that was killed")]),
    ("leftover alone", {TEMPORARY: found(b"{")}, [("remove", TEMPORARY_NAME, "left behind by a run that was killed"), ("add", NAME, "there is none")]),
    ("others beside it", {PATH: found(), OLD: found(OTHER)}, []),
]


@pytest.mark.parametrize(("files", "expected"), [c[1:] for c in PRESENT], ids=[c[0] for c in PRESENT])
def test_present(files, expected):
    assert short(plan_conflist(section(), actual(files))) == expected


def test_what_is_written_is_what_is_wanted():
    (change,) = plan_conflist(section(), actual()).changes
    what, path, text = change.op
    assert (what, path, json.loads(text)) == ("write", PATH, CONFLIST)
    assert text.endswith("}\n") and text.count("\n") > 5


def test_diff_is_indented_json_on_both_sides():
    diff = diff_of(plan_conflist(section(), actual({PATH: found(OTHER)})))
    assert '\n  "name": "other",\n' in diff["before"]
    assert '\n  "name": "kindnet",\n' in diff["after"]


def test_a_damaged_file_forges_no_line():
    plan = plan_conflist(section(), actual({PATH: found(b'{"\nNov 22 kindnet: all is well\x1b[2J')}))
    assert "\\nNov 22" in diff_of(plan)["before"] and "\x1b" not in diff_of(plan)["before"]
    assert "\n" not in line_of(plan.changes[0])


def test_the_journal_has_one_line_per_change():
    (change,) = plan_conflist(section(), actual({PATH: found(OTHER)})).changes
    assert "\n" not in line_of(change)
    assert '"name": "other"' in line_of(change) and '"name": "kindnet"' in line_of(change)


def test_a_folder_at_the_path_is_a_problem_and_nothing_is_changed():
    plan = plan_conflist(section(), actual({PATH: found(b"", kind="folder")}))
    assert not plan.changes
    assert plan.problems[0].subject == "file " + PATH


def test_a_folder_where_the_file_is_first_written_is_a_problem_if_there_is_something_to_write():
    in_the_way = {TEMPORARY: found(b"", kind="folder")}
    plan = plan_conflist(section(), actual(dict(in_the_way, **{PATH: found(b"")})))
    assert plan.changes == () and [p.subject for p in plan.problems] == ["file " + TEMPORARY] and "Move it away" in plan.problems[0].message
    assert plan_conflist(section(), actual(dict(in_the_way, **{PATH: found()})))[:2] == ((), ())


def test_missing_folders_are_made_outermost_first():
    plan = plan_conflist(section(made_folders=["/etc/cni", FOLDER]), actual(folders={"/etc/cni": None, FOLDER: None}))
    assert [c.subject for c in plan.changes] == ["folder /etc/cni", "folder " + FOLDER, "file " + PATH]


@pytest.mark.parametrize(
    ("former", "expected"),
    [
        (found(dict(CONFLIST, name="before")), [("remove", "05-old.conflist", "the configuration is at %s now" % PATH)]),
        (found(b"{"), [("remove", "05-old.conflist", "the configuration is at %s now" % PATH)]),
        (found(OTHER), []),
    ],
)
def test_a_former_place_is_emptied_if_what_is_there_is_ours(former, expected):
    plan = plan_conflist(section(former_paths=[[OLD, "before"]]), actual({PATH: found(), OLD: former}))
    assert short(plan) == expected


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((NAME, "11-later.conflist"), ""),
        ((NAME, "05-first.conflist"), "05-first.conflist"),
        ((NAME, "00-a.conf", "01-b.json", "02-c.txt", TEMPORARY_NAME), "00-a.conf, 01-b.json"),
    ],
)
def test_a_configuration_that_a_runtime_would_take_instead(names, told):
    plan = plan_conflist(section(), actual({"%s/%s" % (FOLDER, n): found() for n in names}))
    assert not [c for c in plan.changes if TEMPORARY not in c.subject]
    assert [told + " sorts before" in n for n in plan.notes] == ([True] if told else [])
    assert not any("02-c" in n or "tmp" in n for n in plan.notes)


PLUGIN = {"cniVersion": "0.3.1", "name": "one", "type": "bridge"}
IN_THE_WAY = [
    ("a list", "05-a.conflist", found(OTHER), "rival"),
    ("one plugin", "05-a.conf", found(PLUGIN), "rival"),
    ("one plugin, .json", "05-a.json", found(PLUGIN), "rival"),
    ("hidden", ".a.conf", found(PLUGIN), "rival"),
    ("only an extension", ".conflist", found(OTHER), "rival"),
    ("a link", "05-a.conflist", found(OTHER, kind="a symbolic link to /x"), "rival"),
    ("a capital letter, behind all digits", "B.conflist", found(OTHER), ""),
    ("after ours", "10-kindneu.conflist", found(OTHER), ""),
    ("a prefix of ours", "10-kindnet.conf", found(PLUGIN), "rival"),
    ("a folder", "05-a.conf", found(b"", kind="folder"), ""),
    ("another extension", "05-a.conf.bak", found(OTHER), ""),
    ("set aside", "05-a.conf.kindnet-set-aside", found(OTHER), ""),
    ("not JSON", "05-a.conf", found(b"{"), "damaged"),
    ("a list in a .conf", "05-a.conf", found(OTHER), "damaged"),
    ("one plugin in a .conflist", "05-a.conflist", found(PLUGIN), "damaged"),
    ("a plugin without a type", "05-a.conflist", found(dict(OTHER, plugins=[{}])), "damaged"),
    ("no plugins", "05-a.conflist", found(dict(OTHER, plugins=[])), "damaged"),
    ("a link that leads nowhere", "05-a.conflist", found(b"", kind="a symbolic link to /x"), "damaged"),
]


@pytest.mark.parametrize(("name", "what", "judged"), [c[1:] for c in IN_THE_WAY], ids=[c[0] for c in IN_THE_WAY])
def test_what_a_runtime_comes_to_first(name, what, judged):
    live = actual({PATH: found(), FOLDER + "/" + name: what})
    for conflicts, told in (("warn", "notes"), ("fail", "problems"), ("set_aside", "problems")):
        plan = plan_conflist(section(conflicts=conflicts), live)  # as in a pass, which moves nothing
        assert not plan.changes
        assert len(plan.notes + plan.problems) == (1 if judged else 0)
        said = str(getattr(plan, told))
        assert ("sorts before" in said) is bool(judged)
        assert ("damaged" in said) is (judged == "damaged")


def test_what_is_in_the_way_is_set_aside_after_ours_is_written():
    plan = plan_conflist(section(conflicts="set_aside"), actual({OLD: found(OTHER)})._replace(aside={}))
    assert [c.op[0] for c in plan.changes] == ["write", "remember", "rename"]
    assert plan.changes[-1].op == ("rename", OLD, OLD + ".kindnet-set-aside")
    assert not plan.problems + plan.notes


def test_it_is_remembered_once():
    plan = plan_conflist(section(conflicts="set_aside"), actual({PATH: found(), OLD: found(OTHER)})._replace(aside={OLD: OLD + ".kindnet-set-aside"}))
    assert [c.op[0] for c in plan.changes] == ["rename"]


def test_nothing_is_overwritten_when_it_is_there_again():
    files = {PATH: found(), OLD: found(OTHER), OLD + ".kindnet-set-aside": found(OTHER)}
    plan = plan_conflist(section(conflicts="set_aside"), actual(files)._replace(aside={OLD: OLD + ".kindnet-set-aside"}))
    assert not plan.changes and [p.subject for p in plan.problems] == ["file " + OLD]
    gone = plan_conflist(absent(), actual(files)._replace(aside={OLD: OLD + ".kindnet-set-aside"}))
    assert [c.op[0] for c in gone.changes] == ["remove", "forget"] and OLD + " is there again" in gone.notes[0]


def test_what_was_set_aside_comes_back_before_ours_goes_and_keeps_its_folder():
    aside = OLD + ".kindnet-set-aside"
    plan = plan_conflist(absent(made=[FOLDER]), actual({PATH: found(), aside: found(OTHER)})._replace(aside={OLD: aside}))
    assert [c.op[:2] for c in plan.changes] == [("rename", aside), ("remove", PATH), ("forget", "set aside")]


def test_a_file_of_ours_that_goes_is_not_in_the_way():
    plan = plan_conflist(section(former_paths=[[OLD, "before"]]), actual({PATH: found(), OLD: found(dict(CONFLIST, name="before"))}))
    assert [c.op[0] for c in plan.changes] == ["remove"] and not plan.notes


ABSENT = [
    ("ours", absent(), {PATH: found()}, ["file " + PATH]),
    ("recorded, now damaged", absent(), {PATH: found(b"{")}, ["file " + PATH]),
    ("recorded, now somebody else's", absent(), {PATH: found(OTHER)}, []),
    ("not recorded, of our name", absent((PATH, "kindnet", False)), {PATH: found()}, []),
    ("not recorded, damaged", absent((PATH, "kindnet", False)), {PATH: found(b"{")}, []),
    ("not recorded, of another name", absent((PATH, "kindnet", False)), {PATH: found(OTHER)}, []),
    ("a leftover", absent(), {TEMPORARY: found(b"")}, ["file " + TEMPORARY]),
    ("nothing", absent(), {}, []),
    ("two places", absent((PATH, "kindnet", True), (OLD, "other", True)), {PATH: found(), OLD: found(OTHER)}, ["file " + PATH, "file " + OLD]),
    ("a folder", absent(), {PATH: found(b"", kind="folder")}, []),
]


@pytest.mark.parametrize(("wanted", "files", "expected"), [c[1:] for c in ABSENT], ids=[c[0] for c in ABSENT])
def test_absent(wanted, files, expected):
    plan = plan_conflist(wanted, actual(files))
    assert [c.subject for c in plan.changes] == expected
    assert {c.action for c in plan.changes} <= {"remove"}


@pytest.mark.parametrize(
    ("made", "names", "expected"),
    [
        (["/etc/cni", FOLDER], {"/etc/cni": ("net.d",), FOLDER: (NAME,)}, [FOLDER, "/etc/cni"]),
        (["/etc/cni", FOLDER], {"/etc/cni": ("net.d", "other"), FOLDER: (NAME,)}, [FOLDER]),
        (["/etc/cni", FOLDER], {"/etc/cni": ("net.d",), FOLDER: (NAME, "99-loopback.conf")}, []),
        ([FOLDER], {"/etc/cni": ("net.d",), FOLDER: (NAME,)}, [FOLDER]),
        ([], {FOLDER: (NAME,)}, []),
        ([FOLDER], {FOLDER: None}, []),
    ],
)
def test_folders_that_we_made_go_when_they_are_empty(made, names, expected):
    plan = plan_conflist(absent(made=made), Actual({PATH: found()}, names))
    assert [c.op[1] for c in plan.changes if c.subject.startswith("folder")] == expected


@pytest.mark.parametrize(
    ("what", "expected"),
    [(None, False), (found(), False), (found(OTHER), True), (found(b"{"), False), (found(b""), False), (found({"plugins": []}), True)],
)
def test_whose_an_unrecorded_file_is(what, expected):
    assert is_others(what, "kindnet") is expected
