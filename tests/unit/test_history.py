# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of what passes repaired: what is recorded, what a reader makes of a damaged one, and that it stays small."""

from __future__ import annotations

import json
import os
import re

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _history
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._plan import Change

AT = "2026-11-27T02:22:30Z"


def repair(subject="route 10.244.1.0/24", section="routes", action="add", before="", after="via 172.18.0.3 proto 107", reason="missing"):
    return section, Change(subject, action, before, after, reason, object())


def entry(number):
    return dict(zip(_history.FIELDS, (AT, "routes", "route %d" % number, "add", "", "via", "missing")))


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = str(tmp_path / "folder/repairs.jsonl")
    monkeypatch.setattr(_history, "FILE", path)
    return path


def test_what_is_recorded_is_the_change_and_when(path):
    _history.append([repair(), repair("sysctl net.ipv4.ip_forward", "sysctl", "replace", "0", "1", "needed")])
    with open(path, encoding="ascii") as f:
        first, second = map(json.loads, f)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["at"]) and list(first) == list(_history.FIELDS)
    assert list(first.values())[1:] == ["routes", "route 10.244.1.0/24", "add", "", "via 172.18.0.3 proto 107", "missing"]
    assert list(second.values())[1:] == ["sysctl", "sysctl net.ipv4.ip_forward", "replace", "0", "1", "needed"]
    assert _history.load() == [first, second]
    assert os.stat(path).st_mode & 0o777 == 0o644 and os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o755


def test_without_a_file_nothing_was_repaired(path):
    assert _history.load() == []


@pytest.mark.parametrize("text", ["x" * 100_000, "a\nb\x1b[31m", "é\ud800", ""])
def test_any_value_is_one_line_of_bounded_length(text):
    (made,) = _history.entries_of([repair(before=text, after=text, reason=text, subject=text)], AT)
    line = _history.lines_of([made])
    assert line.count(b"\n") == 1 and len(line) < 20_000
    assert _history.parse(line) == [made] and made["before"][: _history.LONGEST] == text[: _history.LONGEST]


def test_of_many_alike_the_first_are_listed_and_the_others_counted():
    repairs = [repair("route %d" % n) for n in range(1000)] + [repair("old %d" % n, action="remove") for n in range(_history.MOST)] + [repair(section="masq")]
    made = _history.entries_of(repairs, AT)
    assert len(made) == 2 * _history.MOST + 2
    assert made[0]["subject"] == "route 0" and made[_history.MOST - 1]["subject"] == "route %d" % (_history.MOST - 1)
    (more,) = [e for e in made if e["subject"] == "%d more" % (1000 - _history.MOST)]
    assert (more["section"], more["action"]) == ("routes", "add") and set(more) == set(_history.FIELDS)


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"null", b"[]", b"3", b"\xff\xfe", b"\0\0\0\0", b'{"at": "x"}', b"[" * 100_000, b"9" * 10_000,
        json.dumps(dict(entry(1), before=None)).encode(), json.dumps(entry(1)).encode()[:-1],
    ],
)
def test_a_damaged_line_costs_that_line(line):
    around = [_history.lines_of([entry(n)]) for n in (1, 2)]
    assert _history.parse(around[0] + line + b"\n" + around[1]) == [entry(1), entry(2)]


def test_cut_off_anywhere_the_next_pass_goes_on(path):
    os.mkdir(os.path.dirname(path))
    whole = _history.lines_of([entry(1), entry(2)])
    first = whole.index(b"\n")
    for size in range(len(whole) + 1):
        with open(path, "wb") as f:
            f.write(whole[:size])
        left = _history.load()
        # the newline alone may be missing of a line
        assert left == [entry(1), entry(2)][: (size >= first) + (size >= len(whole) - 1)]
        _history.append([repair("new")])
        again = _history.load()
        assert again[:-1] == left and again[-1]["subject"] == "new"


def test_it_stays_small_and_the_newest_stay(path):
    for n in range(4000):
        _history.append([repair("route %d" % n)])
        assert os.path.getsize(path) <= _history.BOUND
    subjects = [e["subject"] for e in _history.load()]
    assert subjects == ["route %d" % n for n in range(4000 - len(subjects), 4000)]
    assert len(subjects) > 500 and os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_what_one_pass_repaired_may_be_more_than_fits(path):
    _history.append([repair("route %d" % n, str(n), before="x" * 600, after="y" * 600) for n in range(1000)])
    assert os.path.getsize(path) <= _history.KEPT and _history.load()[-1]["subject"] == "route 999"


def test_a_file_that_somebody_made_long_is_read_to_the_bound_and_small_again(path):
    os.mkdir(os.path.dirname(path))
    with open(path, "wb") as f:
        f.write(b"x" * 10 * _history.BOUND + b"\n" + _history.lines_of([entry(1)]))
    assert _history.load() == [entry(1)]
    _history.append([repair("new")])
    assert [e["subject"] for e in _history.load()] == ["route 1", "new"] and os.path.getsize(path) < 1000


def folder(path):
    os.mkdir(path)


def link(path):
    with open(path + ".else", "w") as f:
        f.write("theirs")
    os.symlink(path + ".else", path)


@pytest.mark.parametrize("make", [folder, link, os.mkfifo])
def test_what_is_no_file_is_named_and_neither_waited_for_nor_followed(path, make):
    os.mkdir(os.path.dirname(path))
    make(path)
    for call in (lambda: _history.append([repair()]), lambda: _history.load()):
        with pytest.raises(KindnetError) as e:
            call()
        assert e.value.field == path
    if make is link:
        with open(path + ".else") as f:
            assert f.read() == "theirs"
