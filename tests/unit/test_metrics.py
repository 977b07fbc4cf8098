# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass adds to the metrics and to status.json, as tables."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _metrics, _status_file
from ansible_collections.kindnet.host.plugins.module_utils._plan import Change, Plan
from ansible_collections.kindnet.host.plugins.module_utils._plan_routes import Verdict
from ansible_collections.kindnet.host.plugins.module_utils._reconcile import Pass

BUILD = {"version": "1.2.3", "digest": "0123456789abcdef"}
NOW = 1795747718.25
SECTION = {"peers": [["a", "10.1.0.0/24", "192.0.2.1"], ["a", "fd00:1::/64", "2001:db8::1"], ["b", "10.2.0.0/24", "192.0.2.2"]]}


def a_pass(problems=0, repairs=(), routes=None, is_paused=False):
    this = Pass()
    this.problems = {"thing %d" % n: ("routes", "is wrong") for n in range(problems)}
    this.repairs = [(section, Change("x", "add", "", "y", "missing")) for section in repairs]
    this.routes, this.is_paused = routes, is_paused
    return this


def plan(*verdicts, unchanged=0):
    return Plan(details={"unchanged": unchanged, "routes": tuple(Verdict(subject, "", "", "", action, "") for subject, action in verdicts)})


def samples(text):
    """As Prometheus reads them, each once."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert len(found) == len(lines)
    return found


def of(old, *passes):
    for this in passes:
        old = _metrics.rendered(_metrics.parse(old), BUILD, this, 0.0371, NOW)
    return samples(old)


def test_the_first_pass_has_every_counter_so_that_its_first_increase_is_seen():
    assert of("", a_pass(routes=(SECTION, plan(unchanged=3), set()))) == {
        "kindnet_passes_total": 1,
        "kindnet_failures_total": 0,
        **{'kindnet_repairs_total{kind="%s"}' % kind: 0 for kind in ("sysctl", "routes", "masq", "neighbours", "conflist", "cni_plugins")},
        "kindnet_last_pass_timestamp_seconds": NOW,
        "kindnet_last_success_timestamp_seconds": NOW,
        "kindnet_pass_duration_seconds": 0.037,
        "kindnet_problems": 0,
        "kindnet_peers_wanted": 3,
        "kindnet_peers_present": 3,
        "kindnet_paused": 0,
        'kindnet_build_info{version="1.2.3",digest="0123456789abcdef"}': 1,
    }


def test_counters_go_on_from_file_to_file():
    found = of("", a_pass(), a_pass(repairs=["routes", "routes", "masq"]), a_pass(problems=2, repairs=["routes"]), a_pass(is_paused=True))
    assert (found["kindnet_passes_total"], found["kindnet_failures_total"]) == (4, 1)
    assert (found['kindnet_repairs_total{kind="routes"}'], found['kindnet_repairs_total{kind="masq"}']) == (3, 1)


def test_a_pass_that_failed_or_was_paused_is_no_success():
    old = _metrics.rendered({}, BUILD, a_pass(), 0, NOW - 100)
    for this in (a_pass(problems=1), a_pass(is_paused=True)):
        found = of(old, this)
        assert found["kindnet_last_success_timestamp_seconds"] == NOW - 100 and found["kindnet_last_pass_timestamp_seconds"] == NOW
    assert of("", a_pass(problems=1))["kindnet_last_success_timestamp_seconds"] == 0


def test_what_was_not_looked_at_is_not_told():
    found = of("", a_pass(routes=(SECTION, plan(unchanged=3), set())), a_pass(is_paused=True))
    assert found["kindnet_paused"] == 1
    assert not [name for name in found if "peers" in name or name in ("kindnet_problems", "kindnet_pass_duration_seconds")]
    assert "kindnet_problems" in of("", a_pass()) and "kindnet_peers_wanted" not in of("", a_pass())


def test_each_family_is_declared_once_before_its_samples_and_by_the_name_of_its_type():
    text = _metrics.rendered({}, BUILD, a_pass(routes=(SECTION, plan(unchanged=3), set())), 0, NOW)
    declared = [line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert declared == [[name, kind] for name, kind, _help in _metrics.FAMILIES] and text.endswith("\n")
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in declared)


@pytest.mark.parametrize(
    "damaged",
    ["", "\0\0\0", "kindnet_passes_total", "kindnet_passes_total x", "kindnet_passes_total nan", "kindnet_passes_total inf", "kindnet_passes_total -3",
     "kindnet_passes_total 7\nkindnet_passes_tot", "other_total 3", "# kindnet_passes_total 9"],
)
def test_a_damaged_file_costs_the_counters_that_are_damaged(damaged):
    found = of(damaged, a_pass())
    assert found["kindnet_passes_total"] == (8 if damaged.startswith("kindnet_passes_total 7") else 1)
    assert "other_total" not in found


@pytest.mark.parametrize(
    ("routes", "failed", "count"),
    [
        (plan(unchanged=3), set(), (3, 3)),
        (plan(unchanged=0), set(), (0, 0)),
        (plan(("route 10.1.0.0/24", "add"), unchanged=2), set(), (3, 3)),
        (plan(("route 10.1.0.0/24", "add"), unchanged=2), {"route 10.1.0.0/24"}, (3, 2)),
        (plan(("route 10.1.0.0/24", "conflict"), ("route fd00:1::/64", "fail"), unchanged=1), set(), (3, 1)),
        (plan(("route 10.1.0.0/24", "foreign"), ("route fd00:1::/64", "skip"), unchanged=1), set(), (2, 2)),
        # what else is done counts for nobody
        (plan(("route 10.9.0.0/24", "remove"), ("route 10.1.0.0/24 via 192.0.2.9", "remove"), unchanged=3), {"route 10.9.0.0/24"}, (3, 3)),
    ],
)
def test_peers(routes, failed, count):
    assert _metrics.peers(SECTION, routes, failed) == count


def memory(**problems):
    return {subject: {"section": "routes", "message": message, "said": 1.0} for subject, message in problems.items()}


EMPTY = {
    "schema": 1, "since": "", "at": "", "version": "", "digest": "", "repairs": {}, "failures": 0, "last_repair": None, "problems": [], "history_error": "",
}


def told(*passes):
    status = EMPTY
    for number, (repairs, problems, error) in enumerate(passes):
        changes = [(section, Change("x%d" % number, "add", "", "y", "missing")) for section in repairs]
        status = _status_file.updated(status, "at %d" % number, BUILD, changes, problems, error)
    return status


def test_status_counts_from_its_first_writing():
    status = told((["routes", "masq"], None, ""), (["routes"], None, ""))
    assert status == dict(EMPTY, since="at 0", at="at 1", repairs={"routes": 2, "masq": 1}, last_repair=status["last_repair"], **BUILD)
    assert status["last_repair"] == {"at": "at 1", "section": "routes", "subject": "x1", "action": "add", "before": "", "after": "y", "reason": "missing"}


@pytest.mark.parametrize(
    ("passes", "failures", "problems"),
    [
        ([memory(a="x")], 1, [("a", "x", "at 0")]),
        ([memory(a="x"), memory(a="x")], 1, [("a", "x", "at 0")]),
        ([memory(a="x"), memory(a="y")], 2, [("a", "y", "at 0")]),
        ([memory(a="x"), memory(a="x", b="z")], 2, [("a", "x", "at 0"), ("b", "z", "at 1")]),
        ([memory(a="x", b="z"), memory(b="z")], 1, [("b", "z", "at 0")]),
        ([memory(a="x"), {}], 1, []),
        ([memory(a="x"), {}, memory(a="x")], 2, [("a", "x", "at 2")]),
        # of a pass by hand nothing is known about problems
        ([memory(a="x"), None], 1, [("a", "x", "at 0")]),
    ],
)
def test_status_counts_a_failure_when_there_is_a_new_problem(passes, failures, problems):
    status = told(*(([], p, "") for p in passes))
    assert status["failures"] == failures
    assert [(p["subject"], p["message"], p["since"]) for p in status["problems"]] == problems


def test_why_a_repair_is_not_in_the_history_is_told_until_one_is():
    full = (["routes"], None, "no space")
    assert told(full)["history_error"] == "no space"
    assert told(full, ([], memory(a="x"), ""))["history_error"] == "no space"
    assert told(full, (["routes"], None, ""))["history_error"] == ""


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"schema": 2}', "\xff", str(dict(EMPTY, schema=2)).replace("'", '"'),
     str(dict(EMPTY, last_repair=0, repairs={"a": "b"})).replace("'", '"'), str(dict(EMPTY, last_repair=0, problems=[1])).replace("'", '"')],
)
def test_a_damaged_status_is_begun_anew(monkeypatch, tmp_path, content):
    monkeypatch.setattr(_status_file, "FILE", str(tmp_path / "status.json"))
    assert _status_file.load() == EMPTY
    (tmp_path / "status.json").write_text(content)
    assert _status_file.load() == EMPTY
