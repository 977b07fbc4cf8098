# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: what results of tasks make of a host, how differences are counted, and what the files say of it."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils import _report, _report_files
from ansible_collections.kindnet.host.plugins.plugin_utils._report import NOT_COMPARED, Found, Looked, Run, host_of, lines_of, report_of
from ansible_collections.kindnet.host.plugins.plugin_utils._report_junit import junit

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/drift.schema.json").read_text())
EXPECTED = ("masq", "routes")
DESIRED = "/etc/kindnet/desired.json"
CODE = "/usr/local/lib/kindnet"

GOOD = {"changed": False, "changes": [], "problems": [], "notes": []}
RIGHT = [Found("masq", GOOD), Found("routes", GOOD)]


def change(subject: str, action: str = "replace", before: str = "a", after: str = "b", reason: str = "so") -> dict[str, str]:
    return {"subject": subject, "action": action, "before": before, "after": after, "reason": reason}


def changing(*subjects: str, **more: Any) -> dict[str, Any]:
    return {"changed": True, "changes": [change(s) for s in subjects], "problems": [], "notes": [], **more}


def with_problem(subject: str, **more: Any) -> dict[str, Any]:
    return {"failed": True, "changed": False, "changes": [], "problems": [{"subject": subject, "message": "is in the way"}], "msg": "node: x", **more}


def host(*found: Found, check_mode: bool = True, expected: Any = EXPECTED) -> dict[str, Any]:
    return host_of(Looked("node", found, expected, check_mode=check_mode))


def report(*looked: Looked, **values: Any) -> dict[str, Any]:
    made = report_of(Run("drift.yml", "kindnet", "2026-11-27T02:22:30Z", **values), looked)
    jsonschema.validate(json.loads(json.dumps(made)), SCHEMA)
    return made


UNREACHABLE = {"unreachable": True, "changed": False, "msg": "No route to host"}
FAILED = {"failed": True, "changed": False, "msg": "node: chain: X: is bad. Mend it.", "host": "node", "field": "chain"}

STATUSES = {
    "as wanted": (RIGHT, "in_sync", ""),
    "differs": ([*RIGHT, Found("masq", changing("jump"))], "drifted", ""),
    "has a problem": ([Found("masq", GOOD), Found("routes", with_problem("route 10.1.0.0/24"))], "drifted", ""),
    "a module failed": ([Found("masq", FAILED), Found("routes", GOOD)], "failed", "masq: chain: X: is bad. Mend it."),
    "two modules failed": ([Found("masq", FAILED), Found("routes", FAILED)], "failed", "masq: chain: X: is bad. Mend it.\nroutes: chain: X: is bad. Mend it."),
    "a module failed, and another concern had no task": ([Found("masq", FAILED)], "failed", "masq: chain: X: is bad. Mend it."),
    "a module failed without a word": ([Found("masq", {"failed": True}), *RIGHT[1:]], "failed", "masq: failed without a word"),
    "a concern had no task": (RIGHT[:1], "failed", "routes: was not looked at"),
    "a concern was skipped": ([*RIGHT[:1], Found("routes", {"skipped": True, "changed": False})], "failed", "routes: was not looked at"),
    "nothing ran": ([], "failed", "masq: was not looked at\nroutes: was not looked at"),
    "not reached": ([Found("host", UNREACHABLE)], "unreachable", "No route to host"),
    "lost on the way": ([Found("masq", changing("jump")), Found("routes", UNREACHABLE)], "unreachable", "No route to host"),
    "failed, then lost": ([Found("masq", FAILED), Found("routes", UNREACHABLE)], "unreachable", "No route to host"),
    "lost, then rescued": ([Found("masq", UNREACHABLE), Found("masq", {"msg": ""}), Found("routes", GOOD)], "unreachable", "No route to host"),
    "failed and differs": ([Found("masq", FAILED), Found("routes", changing("route"))], "failed", "masq: chain: X: is bad. Mend it."),
    "a loop, one item failed": ([Found("masq", {"failed": True, "results": [GOOD, FAILED]}), *RIGHT[1:]], "failed", "masq: chain: X: is bad. Mend it."),
}


@pytest.mark.parametrize("case", STATUSES)
def test_status(case: str) -> None:
    found, status, message = STATUSES[case]
    entry = host(*found)
    assert (entry["status"], entry["message"]) == (status, message)


def test_a_host_of_which_nothing_is_known_is_not_in_sync_whatever_is_expected() -> None:
    assert host(expected=())["status"] == "failed"


def test_what_was_not_looked_at_because_of_something_else_is_named() -> None:
    assert host(Found("masq", FAILED))["failures"][1:] == [{"concern": "routes", "message": "was not looked at"}]


def test_what_kindnet_info_could_not_look_at_is_a_failure_and_its_other_notes_are_none() -> None:
    told = {"changed": False, "notes": ["routes: cannot be told (OSError: x)", "nft: did not end"], "unseen": ["routes", "pause"]}
    found = host(*RIGHT, Found("host", told))
    assert found["status"] == "failed" and "host" not in found["looked_at"]
    assert [f["message"] for f in found["failures"]] == ["routes: cannot be told (OSError: x)", "pause: was not looked at"]
    assert host(*RIGHT, Found("host", {**told, "unseen": []}))["status"] == "in_sync"


def test_a_failing_concern_is_not_one_that_was_looked_at() -> None:
    entry = host(Found("masq", GOOD), Found("masq", FAILED), Found("routes", GOOD))
    assert (entry["looked_at"], [f["concern"] for f in entry["failures"]]) == (["routes"], ["masq"])


HALF_DONE = {**with_problem("route 2"), "changed": True, "changes": [change("route 1"), change("route 2")]}
REAL = {
    "nothing to do": (RIGHT, "in_sync", 0),
    "something done": ([*RIGHT, Found("masq", changing("jump"))], "changed", 1),
    # A change that could not be made is its problem, and no change.
    "not all of it could be done": ([Found("masq", GOOD), Found("routes", HALF_DONE)], "failed", 1),
}


@pytest.mark.parametrize("case", REAL)
def test_status_of_a_real_run(case: str) -> None:
    found, status, differences = REAL[case]
    entry = host(*found, check_mode=False)
    assert (entry["status"], len(entry["differences"])) == (status, differences)


RECORD = change(DESIRED, "replace", "recorded", "recorded: peers", "desired state of this host")
COUNTS: dict[str, tuple[list[Found], list[str]]] = {
    "one of each": ([Found("masq", changing("jump", "chain")), Found("routes", changing("route"))], ["jump", "chain", "route"]),
    "the same again, as a task that ran twice tells it": ([Found("masq", changing("jump")), Found("masq", changing("jump"))], ["jump"]),
    "one subject, two concerns": ([Found("masq", changing("x")), Found("routes", changing("x"))], ["x", "x"]),
    "one subject, two actions": ([Found("routes", {"changes": [change("route", "add"), change("route", "remove")]})], ["route", "route"]),
    "an older record": ([Found("masq", {"changes": [RECORD]}), Found("routes", {"changes": [RECORD]})], [DESIRED]),
    "an older record and a fault": ([Found("routes", {"changes": [change("route"), RECORD]})], ["route", DESIRED]),
    "another version": (
        [Found("reconcile", {"changes": [change(f"{CODE}/aa", "add"), change(f"{CODE}/current"), change(f"{CODE}/bb", "remove"), change("unit")]})],
        [f"{CODE}/current", "unit"],
    ),
    "another version, and its folder damaged": ([Found("reconcile", changing(f"{CODE}/aa", f"{CODE}/current"))], [f"{CODE}/aa", f"{CODE}/current"]),
    "code that somebody changed": ([Found("reconcile", changing(f"{CODE}/aa"))], [f"{CODE}/aa"]),
    "packages": (
        [Found("host", {"missing_packages": ["iptables", "iproute2"]}), Found("packages", {"changed": True, "msg": "Would install"})],
        ["package iptables", "package iproute2"],
    ),
    "packages that are missing, and are not to be installed": ([Found("host", {"missing_packages": ["iptables"]})], []),
    "pyroute2": ([Found("pyroute2", {"changed": True, "msg": "Would unpack"})], [f"{CODE}/pyroute2"]),
    "hidden": ([Found("masq", {"changed": True, "censored": "the output has been hidden"})], ["masq"]),
    "a loop": ([Found("masq", {"changed": True, "results": [changing("a"), changing("b")]})], ["a", "b"]),
}


@pytest.mark.parametrize("case", COUNTS)
def test_what_is_one_difference(case: str) -> None:
    found, subjects = COUNTS[case]
    assert [d["subject"] for d in host(*found, expected=())["differences"]] == subjects


def test_the_record_names_the_concerns_it_is_older_in() -> None:
    entry = host(Found("masq", {"changes": [{**RECORD, "after": "recorded: chain"}]}), Found("routes", {"changes": [RECORD]}))
    (record,) = entry["differences"]
    assert (record["concern"], record["before"], record["after"]) == ("record", "recorded", "masq: recorded: chain\nroutes: recorded: peers")


def test_what_a_module_leaves_out_is_counted() -> None:
    left_out = {**with_problem("route 1"), "changes": [change("route %d" % i) for i in range(20)], "left_out": {"changes": 30, "routes": 30}}
    made = report(Looked("node", [Found("masq", GOOD), Found("routes", left_out)], EXPECTED))
    assert (made["totals"]["differences"], made["hosts"][0]["line"].partition(":")[0]) == (50, "drifted, 50 differences")


def test_the_worst_of_all_hosts_is_the_verdict() -> None:
    good, drifted = Looked("good", RIGHT, EXPECTED), Looked("drifted", [*RIGHT, Found("masq", changing("jump"))], EXPECTED)
    failed, lost = Looked("failed", [], EXPECTED), Looked("lost", [Found("host", UNREACHABLE)], EXPECTED)
    cases = (([good], "in_sync", 0), ([good, drifted], "drifted", 2), ([drifted, failed], "failed", 2), ([failed, lost, good], "unreachable", 4))
    for looked, verdict, code in cases:
        made = report(*looked)
        assert (made["verdict"], made["exit_code"]) == (verdict, code)
        assert made["totals"]["hosts"] == len(looked) == sum(made["totals"][s] for s in _report.STATUSES)
    assert report(good, drifted, exit_code=0)["exit_code"] == 0


def test_no_host_at_all_makes_a_report() -> None:
    assert report()["totals"]["hosts"] == 0


def test_lines() -> None:
    many = [*RIGHT, Found("masq", changing(*("rule %d" % i for i in range(12))))]
    looked = [
        Looked("a", RIGHT, EXPECTED),
        Looked("b", [*RIGHT, Found("masq", changing("jump")), Found("routes", with_problem("route 1"))], EXPECTED),
        Looked("c", many, EXPECTED),
        Looked("d", [Found("masq", {"failed": True, "msg": "one\n  two"}), Found("routes", changing("route 2"))], EXPECTED),
        Looked("e", [Found("host", UNREACHABLE)], EXPECTED),
    ]
    assert lines_of(report(*looked, limit="a:b")) == [
        "a: in sync",
        "b: drifted, 1 difference: jump; 1 problem: route 1",
        "c: drifted, 12 differences: %s, ..." % ", ".join("rule %d" % i for i in range(10)),
        "d: failed: masq: one two; found all the same: 1 difference: route 2",
        "e: unreachable: No route to host",
        "5 hosts (limited to a:b): 1 in sync, 2 drifted, 1 failed, 1 unreachable; 14 differences, 1 problem;"
        " not compared with each other, since kindnet_info told of none",
    ]
    made = report(Looked("a", [*RIGHT, Found("masq", changing("jump"))], EXPECTED, check_mode=False))
    assert lines_of(made) == ["a: changed, 1 change: jump", "1 host: 1 changed; 1 difference"] and made["verdict"] == "in_sync"


@pytest.mark.parametrize("odd", ["x\nb: in sync", "x\rb: in sync", "x\x1b[2K\x1b[1Gb: in sync", "x\x9b2Kb: in sync", "x\u2028b: in sync", "x\u202eb"])
def test_what_hosts_tell_is_on_their_line(odd: str) -> None:
    drifted = Looked("a", [*RIGHT, Found("masq", changing(odd))], EXPECTED)
    lines = lines_of(report(drifted, Looked("c", [Found("masq", {"failed": True, "msg": odd})], EXPECTED)))
    assert len(lines) == 3 and all(line.isprintable() for line in lines), lines
    assert lines[0].startswith("a: drifted, ") and lines[1].startswith("c: failed: ")


class TestTogether:
    """What hosts are not right in together, with a check that finds what it is told to."""

    @pytest.fixture
    def finds(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def use(*findings: dict[str, Any]) -> None:
            monkeypatch.setattr(_report, "cross_checks", lambda nodes, hosts, code: list(findings))

        return use

    def test_a_host_that_is_right_alone_and_not_with_others_has_drifted(self, finds: Any) -> None:
        finds({"check": "mtu", "hosts": ["a", "b"], "subject": "MTU", "message": "differs"})
        made = report(*(Looked(name, RIGHT, EXPECTED) for name in "abc"))
        assert [h["status"] for h in made["hosts"]] == ["drifted", "drifted", "in_sync"]
        assert (made["verdict"], made["exit_code"], made["totals"]["cross_host"], made["totals"]["differences"]) == ("drifted", 2, 1, 0)
        assert lines_of(made)[:4] == ["a: drifted, 1 cross-host finding: MTU", "b: drifted, 1 cross-host finding: MTU", "c: in sync", "a, b: MTU: differs"]

    def test_hosts_that_a_run_changed_and_that_do_not_fit_together_are_not_in_sync(self, finds: Any) -> None:
        finds({"check": "mtu", "hosts": ["a"], "subject": "MTU", "message": "differs"})
        made = report(Looked("a", [*RIGHT, Found("masq", changing("jump"))], EXPECTED, check_mode=False))
        assert (made["hosts"][0]["status"], made["verdict"], made["exit_code"]) == ("changed", "drifted", 2)

    def test_whether_anything_was_compared_is_told(self) -> None:
        told = Looked("a", RIGHT, EXPECTED, {"managed": False})
        for looked, compared, cases in (([told, Looked("b", RIGHT, EXPECTED)], 1, []), ([Looked("b", RIGHT, EXPECTED)], 0, ["skipped"])):
            made = report(*looked)
            assert made["totals"]["compared"] == compared and (NOT_COMPARED in lines_of(made)[-1]) is not bool(compared)
            assert [e.tag for e in suites(made)["cross_host"]["all checks"]] == cases

    def test_code_is_compared_with_what_would_be_installed(self) -> None:
        looked = Looked("a", RIGHT, EXPECTED, {"managed": True, "versions": {"collection": "0.2.0", "digest": "aa"}})
        assert report(looked, code=("0.2.0", "aa"))["verdict"] == report(looked)["verdict"] == "in_sync"
        assert [c["check"] for c in report(looked, code=("0.2.1", "bb"))["cross_host"]] == ["code"]

    def test_one_that_names_nobody_is_everybodys(self, finds: Any) -> None:
        finds({"check": "x", "hosts": [], "subject": "X", "message": "m"})
        assert report(Looked("a", RIGHT, EXPECTED))["verdict"] == "drifted"

    @pytest.mark.parametrize(
        ("finding", "is_told"),
        [
            ({"check": "timer", "hosts": ["a"], "subject": "timer"}, True),
            ({"check": "timer", "hosts": ["a"], "subject": "tim"}, False),
            ({"check": "timer", "hosts": ["a"], "subject": "boot"}, True),
            ({"check": "timer", "hosts": ["b"], "subject": "timer"}, False),
            ({"check": "code", "hosts": ["a", "b"], "subject": "0.2.0 (aa)"}, True),
            ({"check": "code", "hosts": ["a", "c"], "subject": "0.2.0 (aa)"}, False),
        ],
    )
    def test_what_differences_say_is_not_told_again(self, finds: Any, finding: dict[str, Any], is_told: bool) -> None:
        finds({**finding, "message": "m"})
        made = report(
            Looked("a", [*RIGHT, Found("reconcile", changing("timer", "boot timer", "boot at boot", f"{CODE}/current"))], EXPECTED),
            Looked("b", [*RIGHT, Found("reconcile", changing(f"{CODE}/current"))], EXPECTED),
            Looked("c", RIGHT, EXPECTED),
        )
        assert (made["cross_host"] == []) is is_told


def suites(made: dict[str, Any]) -> dict[str, dict[str, list[ElementTree.Element]]]:
    """Suite to case to what is in the case, of a document of the usual form."""
    root = ElementTree.fromstring(junit(made).encode())
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite" and {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"} <= set(suite.attrib)
        cases = suite.findall("testcase")
        assert len(cases) == len(suite) == int(suite.get("tests", "")) and all({"name", "classname", "time"} <= set(c.attrib) for c in cases)
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert len(suite.findall("testcase/" + tag)) == int(suite.get(attribute, ""))
        assert {e.tag for c in cases for e in c} <= {"failure", "error", "skipped"} and all(len(c) <= 1 for c in cases)
        assert len({c.get("name") for c in cases}) == len(cases)
    for attribute in ("tests", "failures", "errors"):
        assert int(root.get(attribute, "")) == sum(int(s.get(attribute, "")) for s in root)
    return {str(s.get("name")): {str(c.get("name")): list(c) for c in s} for s in root}


class TestJunit:
    def test_each_concern_is_a_case(self) -> None:
        found = suites(report(Looked("a", [Found("masq", changing("jump")), Found("routes", GOOD)], EXPECTED)))
        assert list(found) == ["a", "cross_host"] and list(found["a"]) == ["masq", "routes"]
        (failure,) = found["a"]["masq"]
        assert (failure.tag, failure.get("message"), failure.text) == ("failure", "jump", "replace jump: a -> b (so)")
        assert found["a"]["routes"] == []

    def test_what_was_not_looked_at_passes_nothing(self) -> None:
        found = suites(report(Looked("a", [Found("host", UNREACHABLE)], EXPECTED), Looked("b", RIGHT[:1], EXPECTED), Looked("c")))
        assert {name: [e.tag for e in case] for name, case in found["a"].items()} == {"reach the host": ["error"]}
        assert {name: [e.tag for e in case] for name, case in found["b"].items()} == {"masq": [], "routes": ["error"]}
        assert all(case and case[0].tag == "error" for case in found["c"].values()) and found["c"]

    def test_a_failure_of_a_concern_is_an_error_with_what_was_found(self) -> None:
        found = suites(report(Looked("a", [Found("masq", changing("jump")), Found("masq", FAILED), Found("routes", GOOD)], EXPECTED)))
        (error,) = found["a"]["masq"]
        assert error.tag == "error" and "is bad" in str(error.text) and "jump" in str(error.text)

    def test_a_change_of_a_real_run_is_no_failure(self) -> None:
        found = suites(report(Looked("a", [Found("masq", changing("jump")), Found("routes", with_problem("route 1"))], EXPECTED, check_mode=False)))
        assert {name: [e.tag for e in case] for name, case in found["a"].items()} == {"masq": [], "routes": ["failure"]}

    def test_any_text_makes_a_document(self) -> None:
        odd = "".join(map(chr, range(0x20))) + "\x7f\ud800\ufffe<&>\"'\U0001f600]]>"
        made = {"changes": [change(odd, before=odd, after=odd, reason=odd)]}
        found = suites(report_of(Run("drift.yml", odd, "2026-11-27T02:22:30Z"), [Looked(odd, [*RIGHT, Found("masq", made)], EXPECTED)]))
        assert len(found) == 2


class TestFiles:
    def test_they_are_written_for_all_to_read(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        old = os.umask(0o077)
        try:
            paths = _report_files.write(str(folder), report(Looked("node", RIGHT, EXPECTED)))
        finally:
            os.umask(old)
        assert sorted(os.listdir(folder)) == ["drift.html", "drift.json", "drift.xml", "map.mmd"] == sorted(os.path.basename(p) for p in paths)
        assert {stat.S_IMODE(os.stat(p).st_mode) for p in paths} == {0o644} and stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert json.loads((folder / "drift.json").read_text())["hosts"][0]["name"] == "node"
        assert "node" in (folder / "drift.html").read_text()

    def test_two_runs_at_once_leave_whole_files(self, tmp_path: Path) -> None:
        made = [report(Looked("n%d" % i, [*RIGHT, Found("masq", changing("x" * 200_000 * i))], EXPECTED)) for i in (1, 2)]
        for _unused in range(5):
            threads = [threading.Thread(target=_report_files.write, args=(str(tmp_path), m)) for m in made]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert json.loads((tmp_path / "drift.json").read_text()) in made
            ElementTree.parse(tmp_path / "drift.xml")

    @pytest.mark.parametrize("place", ["file", "file/below", "dangling/below"])
    def test_a_place_that_cannot_be_is_one_error(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "dangling").symlink_to(tmp_path / "file" / "gone")
        with pytest.raises(KindnetError) as e:
            _report_files.write(str(tmp_path / place), report())
        assert (e.value.field, e.value.value) == ("kindnet_report_dir", str(tmp_path / place))
        assert "cannot be written" in str(e.value) and "kindnet_report_dir=FOLDER" in e.value.remedy

    def test_texts_that_are_not_of_unicode_are_written(self, tmp_path: Path) -> None:
        _report_files.write(str(tmp_path), report_of(Run("p", "c", "t"), [Looked("a", [Found("masq", changing("\udcff"))])]))
        assert "?" in (tmp_path / "drift.json").read_text()

    @pytest.mark.parametrize(
        ("explicit", "expected"),
        [("", "{here}/inventory/kindnet-report"), ("ci", "{here}/inventory/ci"), ("/srv/ci", "/srv/ci"), ("~/ci", os.path.expanduser("~/ci"))],
    )
    def test_where_they_go(self, tmp_path: Path, explicit: str, expected: str) -> None:
        (tmp_path / "inventory").mkdir()
        (tmp_path / "inventory" / "hosts.yml").write_text("")
        sources = ["a,b", str(tmp_path / "inventory" / "hosts.yml")]
        assert _report_files.folder_of(sources, explicit) == expected.format(here=tmp_path)

    def test_of_a_folder_they_go_beside_it_since_what_is_in_it_would_be_inventory(self, tmp_path: Path) -> None:
        (tmp_path / "inventory").mkdir()
        for source in ("inventory", "inventory/"):
            assert _report_files.folder_of([str(tmp_path / source)]) == str(tmp_path / "kindnet-report")

    def test_without_a_place_beside_the_inventory_they_go_here(self) -> None:
        assert _report_files.folder_of(["a,b"]) == os.path.join(os.getcwd(), "kindnet-report")
