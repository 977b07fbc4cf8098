# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pass over fakes of the concerns: order, exit codes, what is said, and what is remembered."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import types

import pytest
import yaml
from ansible_collections.kindnet.host.plugins.module_utils import (
    _concerns,
    _desired,
    _firewall,
    _history,
    _pause,
    _problem_memory,
    _reconcile,
    _reconcile_cli,
    _status_file,
)
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._plan import Change, Plan, Problem


def fake(plan=None, failures=(), read_error=None, apply_error=None):
    """A concern that plans what the test says, and remembers what was applied."""
    concern = types.SimpleNamespace(applied=[])

    def read(section, recorded):
        if read_error:
            raise read_error

    def apply(section, plan):
        concern.applied.append(plan)
        if apply_error:
            raise apply_error
        return failures

    concern.read, concern.plan, concern.apply = read, lambda section, actual: plan or Plan(), apply
    return concern


def change(subject, action="add", before="", after="new"):
    return Change(subject, action, before, after, "missing")


@pytest.fixture
def node(monkeypatch, tmp_path):
    """A node with concerns a and b, whose sections are both recorded."""
    state = types.SimpleNamespace(concerns={"a": fake(), "b": fake()}, desired=_desired.Desired("kindnet", {"a": {}, "b": {}}), now=1000.0)
    monkeypatch.setattr(_concerns, "MODULES", {"a": "_a", "b": "_b"})
    monkeypatch.setattr(_concerns, "load", lambda name: state.concerns[name])
    monkeypatch.setattr(_desired, "lock", lambda *unused: contextlib.nullcontext())

    def load():
        if isinstance(state.desired, Exception):
            raise state.desired
        return state.desired

    monkeypatch.setattr(_desired, "load", load)
    monkeypatch.setattr(_problem_memory, "FILE", str(tmp_path / "problems.json"))
    monkeypatch.setattr(_pause, "FILE", str(tmp_path / "pause"))
    monkeypatch.setattr(_history, "FILE", str(tmp_path / "repairs.jsonl"))
    monkeypatch.setattr(_status_file, "FILE", str(tmp_path / "status.json"))
    monkeypatch.delenv(_reconcile.TEXTFILE_DIR, raising=False)
    monkeypatch.setattr("time.clock_gettime", lambda clock: state.now)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    # what a pass does to its process, which ends with it
    monkeypatch.setattr(_firewall, "PATIENCE", _firewall.Patience())
    handler = signal.getsignal(signal.SIGTERM)
    yield state
    signal.signal(signal.SIGTERM, handler)


def run(capsys):
    """A pass that the timer started, so far as it matters: what goes to stderr goes to the journal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reconcile, "_to_journal", lambda stream: stream is sys.stderr)
        code = _reconcile.run_pass()
    out, err = capsys.readouterr()
    return code, out.splitlines(), [line.removeprefix("<3>") for line in err.splitlines()]


def test_a_clean_pass_says_and_writes_nothing(node, capsys, tmp_path):
    assert run(capsys) == (0, [], [])
    assert not os.listdir(tmp_path)
    assert not node.concerns["a"].applied and not node.concerns["b"].applied


def test_one_line_per_change_in_order_of_the_registry(node, capsys):
    node.desired = _desired.Desired("kindnet", {"b": {}, "a": {}})
    node.concerns = {"a": fake(Plan((change("route 1"), change("route 2", "replace", "old")))), "b": fake(Plan((change("chain"),)))}
    assert run(capsys) == (
        0,
        ["add route 1: absent -> new (missing)", "replace route 2: old -> new (missing)", "add chain: absent -> new (missing)"],
        [],
    )


def test_a_section_that_is_absent_is_not_looked_at(node, capsys):
    node.desired = _desired.Desired("kindnet", {"b": {}})
    node.concerns["a"] = fake(read_error=AssertionError("looked at"))
    assert run(capsys)[0] == 0


@pytest.mark.parametrize(
    "broken",
    [
        fake(read_error=KindnetError("iptables", "nft", "is missing", "Install it.")),
        fake(read_error=RuntimeError("nobody thought of this")),
        fake(Plan((change("x"),)), apply_error=KindnetError("iptables", "nft", "is missing", "Install it.")),
        fake(Plan((change("x"),)), apply_error=KeyError("x")),
    ],
)
def test_one_concern_that_fails_does_not_stop_the_others(node, capsys, broken):
    node.concerns = {"a": broken, "b": fake(Plan((change("chain"),)))}
    code, out, err = run(capsys)
    assert (code, out) == (1, ["add chain: absent -> new (missing)"])
    assert len(err) == 1 and err[0].startswith("problem: ")


def test_what_could_not_be_changed_is_a_problem_and_no_change(node, capsys):
    plan = Plan((change("route 1"), change("route 2")), (Problem("route 3", "is in the way"),))
    node.concerns["a"] = fake(plan, failures=(Problem("route 1", "unreachable"),))
    assert run(capsys) == (
        1,
        ["add route 2: absent -> new (missing)"],
        ["problem: route 3: is in the way", "problem: route 1: unreachable"],
    )


def test_a_section_that_this_code_does_not_know_fails_by_name_and_the_others_are_kept(node, capsys):
    node.desired = _desired.Desired("kindnet", {"a": {}, "nftables": {}})
    node.concerns["a"] = fake(Plan((change("route 1"),)))
    code, out, err = run(capsys)
    assert (code, out) == (1, ["add route 1: absent -> new (missing)"])
    assert len(err) == 1 and "section nftables" in err[0]


@pytest.mark.parametrize("step", ["read", "apply"])
def test_a_pass_that_is_ended_says_what_it_found_and_where_it_was(node, capsys, step):
    """Also by a concern that takes every error for its own."""
    ended = fake(Plan((change("x"),)))

    def wait(*unused):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pytest.fail("taken for its own")

    setattr(ended, step, wait)
    node.concerns = {"a": fake(Plan((), (Problem("route 1", "is in the way"),))), "b": ended}
    code, out, err = run(capsys)
    assert (code, out) == (1, [])
    assert len(err) == 2 and err[0] == "problem: route 1: is in the way" and err[1].startswith("problem: section b: the pass was ended")
    node.concerns = {"a": fake(), "b": fake()}
    assert run(capsys) == (0, ["resolved: route 1", "resolved: section b"], [])


def test_what_a_pass_that_was_ended_did_not_come_to_is_not_called_resolved(node, capsys):
    node.concerns["b"] = fake(Plan((), (Problem("chain", "is in the way"),)))
    run(capsys)
    node.concerns["a"].read = lambda *unused: os.kill(os.getpid(), signal.SIGTERM)
    code, out, err = run(capsys)
    assert (code, out, len(err)) == (1, [], 1) and "did not come to b" in err[0]


def test_a_problem_is_said_when_new_then_hourly_and_when_it_is_gone(node, capsys):
    said = []
    with_problem, without = fake(Plan((), (Problem("route 1", "is in the way"),))), fake()
    changed = fake(Plan((), (Problem("route 1", "is unreachable"),)))
    lasting = [(seconds, with_problem) for seconds in (0, 10, 3599, 3600)]
    for seconds, concern in [*lasting, (3610, changed), (3620, without), (3630, without)]:
        node.now, node.concerns["a"] = 1000.0 + seconds, concern
        code, out, err = run(capsys)
        assert code == (0 if concern is without else 1)
        said.append((seconds, out + err))
    assert [entry for entry in said if entry[1]] == [
        (0, ["problem: route 1: is in the way"]),
        (3600, ["problem: still, route 1: is in the way"]),
        (3610, ["problem: route 1: is unreachable"]),
        (3620, ["resolved: route 1"]),
    ]
    assert not os.path.exists(_problem_memory.FILE)


def test_a_person_is_told_all_there_is_every_time_and_the_journal_no_less(node, capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    node.concerns["a"] = fake(Plan(problems=(Problem("route 1", "off-link"),)))
    for _again in range(2):
        assert _reconcile.main() == 1
        assert capsys.readouterr().err == "problem: route 1: off-link\n" and not os.path.exists(_problem_memory.FILE)
    assert run(capsys) == (1, [], ["problem: route 1: off-link"])
    assert run(capsys) == (1, [], [])


def test_a_crash_is_a_problem_in_one_line(node, capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    node.desired = ZeroDivisionError("division by zero")
    assert _reconcile.main() == 1
    err = capsys.readouterr().err
    assert err.startswith("problem: this pass: ZeroDivisionError at ") and err.count("\n") == 1


def test_the_memory_is_written_only_when_it_changes(node, capsys):
    node.concerns["a"] = fake(Plan((), (Problem("route 1", "is in the way"),)))
    run(capsys)
    before = os.stat(_problem_memory.FILE)
    node.now += 10
    run(capsys)
    after = os.stat(_problem_memory.FILE)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("blinded", ["desired", "section"])
def test_what_a_pass_could_not_look_at_is_not_called_resolved(node, capsys, blinded):
    node.concerns["a"] = fake(Plan((), (Problem("route 1", "is in the way"),)))
    run(capsys)
    desired = node.desired
    if blinded == "desired":
        node.desired = KindnetError("desired.json", "3 bytes", "is damaged", "Converge.")
    else:
        node.concerns["a"] = fake(read_error=KindnetError("routes", "EPERM", "cannot be read", "Run as root."))
    code, out, err = run(capsys)
    assert (code, out, len(err)) == (1, [], 1)
    node.desired, node.concerns["a"] = desired, fake()
    code, out, err = run(capsys)
    assert (code, err) == (0, []) and "resolved: route 1" in out and len(out) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', '{"x": {"message": "y"}}'])
def test_a_damaged_memory_costs_one_repetition(node, capsys, content):
    with open(_problem_memory.FILE, "w") as f:
        f.write(content)
    node.concerns["a"] = fake(Plan((), (Problem("route 1", "is in the way"),)))
    assert run(capsys)[2] == ["problem: route 1: is in the way"]
    assert run(capsys)[2] == []


def test_a_paused_pass_changes_nothing_and_is_silent_and_says_when_the_pause_is_over(node, capsys):
    node.concerns["a"] = fake(Plan((change("route 1"),)))
    _pause.start(3600)
    node.now += 3599
    assert run(capsys) == (0, [], []) and not node.concerns["a"].applied
    node.now += 2
    assert run(capsys)[:2] == (0, ["the pause is over", "add route 1: absent -> new (missing)"])
    assert not os.path.exists(_pause.FILE)


def test_a_damaged_pause_changes_nothing_and_is_named(node, capsys):
    node.concerns["a"] = fake(Plan((change("route 1"),)))
    with open(_pause.FILE, "w") as f:
        f.write("tomorrow")
    assert _reconcile.main() == 1
    assert "--resume" in capsys.readouterr().err and not node.concerns["a"].applied


@pytest.mark.parametrize("to_journal", [True, False])
def test_priorities_are_for_the_journal_alone(monkeypatch, tmp_path, to_journal):
    with open(tmp_path / "out", "w") as stream:
        st = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", "%d:%d" % (st.st_dev, st.st_ino + (not to_journal)))
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        _reconcile.say(_reconcile.NOTICE, "one\nline\x1b[31m")
        _reconcile.say(_reconcile.ERROR, "x" * 10000)
    lines = (tmp_path / "out").read_text().splitlines()
    assert len(lines) == 2 and len(lines[1]) < 4100
    assert lines[0] == ("<5>" if to_journal else "") + "one line [31m"
    assert lines[1].startswith("<3>x" if to_journal else "x")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("2d", 172800), ("1h30m", 5400), ("1d1h1m1s", 90061)]
)
def test_durations(text, seconds):
    assert _reconcile_cli.duration(text) == seconds
    assert _reconcile_cli.duration(_reconcile_cli.spell(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "0s", "1h 30m", "30m1h", "-1h", "1.5h", "1w", "١h"])
def test_what_is_no_duration_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as e:
        _reconcile_cli.main(["--pause", text])
    assert e.value.code == 64 and "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--wrong"], ["now"], ["--check", "--status"], ["--json"], ["--pause"], ["--resume", "--json"], ["--che"], ["--"]])
def test_usage_errors(argv, capsys):
    with pytest.raises(SystemExit) as e:
        _reconcile_cli.main(argv)
    out, err = capsys.readouterr()
    assert e.value.code == 64 and "usage:" in err and not out


@pytest.mark.parametrize(
    ("concern", "code", "changes", "problems"),
    [
        (fake(), 0, 0, 0),
        (fake(Plan((change("route 1"),))), 2, 1, 0),
        (fake(Plan((change("route 1"),), (Problem("route 2", "is in the way"),))), 1, 1, 1),
        (fake(read_error=KindnetError("iptables", "nft", "is missing", "Install it.")), 1, 0, 1),
    ],
)
def test_check_tells_drift_and_changes_nothing(node, capsys, monkeypatch, tmp_path, concern, code, changes, problems):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    node.concerns["a"] = concern
    assert _reconcile_cli.main(["--check", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (len(told["changes"]), len(told["problems"])) == (changes, problems)
    assert not concern.applied and not os.listdir(tmp_path)
    assert _reconcile_cli.main(["--check"]) == code
    assert len(capsys.readouterr().out.splitlines()) == changes + problems


def test_check_names_a_pause_and_what_auto_would_decide_today(node, capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(_concerns, "MODULES", {"masq": "_a", "conflist": "_b"})
    node.desired = _desired.Desired("kindnet", {"masq": {"chain": "C", "backend": "iptables-nft", "auto": True}, "conflist": {}})
    node.concerns = {"masq": fake(), "conflist": fake()}
    node.concerns["masq"].notes_of = lambda section: ["backend: legacy today, for %s" % section["chain"]]
    node.concerns["conflist"].mtu_today = lambda section: "mtu auto: 1450 today"
    _pause.start(60)
    assert _reconcile_cli.main(["--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "note: backend: legacy today, for C",
        "note: mtu auto: 1450 today",
        "note: passes are paused for another 1m",
    ]


def test_the_version_is_that_of_the_collection():
    with open("galaxy.yml") as f:
        assert yaml.safe_load(f)["version"] == _reconcile.VERSION
