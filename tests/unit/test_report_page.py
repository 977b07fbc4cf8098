# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""drift.html as a parser of HTML reads it: what is in it, and that nothing else gets in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from ansible_collections.kindnet.host.plugins.plugin_utils import _report_page
from ansible_collections.kindnet.host.plugins.plugin_utils._canvas import visible
from ansible_collections.kindnet.host.plugins.plugin_utils._reachability import MOST_LOST, reachability_of
from ansible_collections.kindnet.host.plugins.plugin_utils._report_page import page
from ansible_collections.kindnet.host.plugins.plugin_utils._text_diff import MOST_LINES, MOST_WORDS, sides
from reports import CONFLIST, GUIDE, HOSTILE, cross, differs, everywhere, failed, guide, large, lossy, report_of, unreachable


class Read(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.scripts, self.inside = [], [], [], ""
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        (self.scripts if self.inside in ("script", "style") else self.texts).append(data)

    def rows(self):
        return [attrs for tag, attrs in self.elements if tag == "tr" and attrs.get("class") == "row"]


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "drift.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("report", [guide(), large(50), report_of(0)], ids=["guide", "large", "empty"])
def test_the_reports_of_these_tests_are_reports(report):
    jsonschema.validate(report, SCHEMA)


def test_what_an_operator_looks_for():
    read = Read(page(guide()))
    for text in (
        "Cluster kindnet drifted", "drift.yml in check mode", "exit code 2", "3 hosts", "5 differences", "1 between hosts",
        "1500 on 2 of 3 hosts, but 1400 on k8s-guide-worker2 (eth0).", "sysctl net.ipv4.ip_forward", "routing between pods needs it",
        "veth1a2b3c21", "1 of 2 routes right", "missing 10.244.2.0/24 missing, wanted via 172.18.0.4", "kernel 6.18.5", "3 of 3 lost", "flowchart LR",
    ):  # fmt: skip
        assert text in read.text
    assert [row["data-host"] for row in read.rows()] == [GUIDE[0], GUIDE[0], GUIDE[1], GUIDE[1], GUIDE[2]]
    assert {row["data-concern"] for row in read.rows()} == {"conflist", "masq", "routes", "sysctl"}


def test_why_a_host_failed_or_was_not_reached():
    read = Read(page(report_of(3, [unreachable(1, "No route to host"), failed(2, "the lock is held")])))
    assert "No route to host" in read.text and "the lock is held" in read.text
    assert read.text.count("not looked at") >= 1


def test_a_problem_is_no_change_that_a_run_would_make():
    def problem(report):
        report["hosts"][0]["problems"].append({"concern": "routes", "subject": "route 10.244.9.0/24", "message": "is in the way"})

    read = Read(page(report_of(3, [problem])))
    assert len(read.rows()) == 1
    assert "problem route 10.244.9.0/24 is in the way" in read.text


def test_what_could_not_be_looked_at_and_what_was_left_out():
    report = report_of(3, [failed(1, "iptables hangs")])
    report["hosts"][0]["differences_left_out"] = 7
    report["limit"] = "rack_a"
    read = Read(page(report))
    assert "masq not looked at iptables hangs" in read.text
    assert "7 more are not on this page." in read.text
    assert "limited to rack_a" in read.text


def test_what_passes_did():
    report = report_of(3)
    report["hosts"][0]["info"]["timer"].update(paused_seconds=90, problems=[{"subject": "route 10.244.9.0/24", "message": "is in the way"}])
    entry = {"at": "2026-11-27T01:02:03Z", "section": "routes", "subject": "route 10.244.1.0/24", "action": "add", "reason": "missing"}
    report["hosts"][0]["info"]["history"] = [{**entry, "before": "", "after": "via 172.18.0.3 proto 107"}]
    read = Read(page(report))
    assert "timer active, paused for 90 s more, last pass ok at 2026-11-27T02:22:30Z route 10.244.9.0/24: is in the way" in read.text
    assert "Repaired 2026-11-27T01:02:03Z add route 10.244.1.0/24, missing" in read.text


def test_a_node_that_the_run_was_not_about_is_named():
    report = report_of(3)
    del report["hosts"][1]
    assert "k8s-guide-worker not in this run" in Read(page(report)).text


@pytest.mark.parametrize("make", [guide, lambda: large(60)], ids=["few", "many"])
def test_hostile_texts_are_texts(make):
    clean, poisoned = Read(page(make())), Read(page(everywhere(make(), HOSTILE)))
    # What runs once more for a longer text is known already: no element is new, and no attribute.
    assert {tag for tag, _attrs in poisoned.elements} == {tag for tag, _attrs in clean.elements}
    assert {a for _tag, attrs in poisoned.elements for a in attrs} == {a for _tag, attrs in clean.elements for a in attrs}
    assert poisoned.scripts == clean.scripts, "and what runs is the same to the letter"
    shown = " ".join(visible(HOSTILE).split())
    assert poisoned.text.count(shown) > 10
    for _tag, attrs in poisoned.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        assert re.match(r"#|data:", attrs.get("href", "#"))
        assert "src" not in attrs


def test_hostile_texts_do_not_break_the_file():
    text = page(everywhere(guide(), HOSTILE))
    text.encode("utf-8")
    assert not set(text) & {"\x00", "\x1b", "\u202e"}


def test_the_policy_allows_what_is_in_the_page_and_nothing_else():
    text = page(guide())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1).replace("&#39;", "'")
    allowed = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    digests = {}
    for tag in ("style", "script"):
        (content,) = re.findall("<%s>(.*?)</%s>" % (tag, tag), text, re.DOTALL)
        digests[tag] = "'sha256-%s'" % base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert allowed == {
        "default-src": "'none'", "style-src": digests["style"], "script-src": digests["script"],
        "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z]", re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL))


def test_the_same_report_makes_the_same_page():
    assert page(guide()) == page(json.loads(json.dumps(guide())))


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*path, 0))


@pytest.mark.parametrize("gone", ["null", "absent"])
def test_what_is_not_there_is_not_shown(gone):
    """A report of another version, or of a host that could say little, is better shown in part than not at all."""
    for path in leaves(guide()):
        report = guide()
        place = report
        for key in path[:-1]:
            place = place[key]
        if gone == "absent":
            del place[path[-1]]
        else:
            place[path[-1]] = None
        assert "</html>" in page(report), path


def test_a_thousand_hosts_at_their_worst_are_still_a_page():
    """Every host differs in ten files of 10,000 characters."""
    faults = [differs(i, "files", "file %d" % k, "replace", "a %d\n" % k * 1500, "b %d\n" % k * 1500, "x") for i in range(1000) for k in range(10)]
    report = report_of(1000, faults)
    text = page(report)
    assert len(text) < 16_000_000
    read = Read(text)
    assert len(read.rows()) == _report_page.MOST_ROWS
    assert "5000 more are not on this page" in read.text
    assert "Shortened; drift.json has all of it." in read.text


# Two texts, and the parts of either that are said to differ.
DIFFERING = [
    ("0", "1", ["0"], ["1"]),
    ("via 172.18.0.9 proto kindnet", "via 172.18.0.2 proto kindnet", ["172.18.0.9"], ["172.18.0.2"]),
    ("", "via 172.18.0.2", [], []),
    ("via 172.18.0.2", "", [], []),
    ("same", "same", [], []),
    ("a\nb\nc", "a\nc", ["b\n"], []),
    ("a " * MOST_WORDS + "\nb", "a " * MOST_WORDS + "\nc", ["b"], ["c"]),
    ("a\n" * 9 * MOST_LINES, "b", ["a\n" * 9 * MOST_LINES], ["b"]),
]


@pytest.mark.parametrize("before, after, left, right", DIFFERING, ids=range(len(DIFFERING)))
def test_what_differs_is_marked(before, after, left, right):
    found = sides(before, after)
    assert [p.text for p in found[0] if p.differs] == left
    assert [p.text for p in found[1] if p.differs] == right
    for parts, text in zip(found, (before, after)):
        lines = sum(p.text.count("\n") + p.left_out for p in parts)
        assert lines == text.count("\n")


def test_what_is_the_same_far_from_a_difference_is_left_out():
    left, right = sides(CONFLIST.replace("1500", "1400"), CONFLIST)
    assert [p.text for p in left if p.differs] == ["1400"] and [p.text for p in right if p.differs] == ["1500"]
    for parts in (left, right):
        assert [(p.left_out, p.text.count("\n")) for p in parts] == [(6, 0), (0, 1), (0, 0), (0, 2), (8, 0)]
    whole = sides("a\n" * 9 + "b", "a\n" * 9 + "c")[0]
    assert [(p.left_out, p.text) for p in whole] == [(7, ""), (0, "a\na\n"), (0, "b")]


@pytest.mark.parametrize("size, form", [(3, "rows"), (8, "rows"), (9, "drawing"), (60, "drawing"), (61, "neither")])
def test_reachability_is_shown_as_fits(size, form):
    report = report_of(size)
    lossy(report, (0, 2), (1, 0))
    found = reachability_of(report)
    assert [m.title.partition(",")[0] for m in found.matrices] == ["pod to pod", "node to pod", "node to node"]
    for matrix in found.matrices:
        assert (bool(matrix.rows), bool(matrix.drawing)) == (form == "rows", form == "drawing")
    a, b, c = (report["hosts"][k]["name"] for k in range(3))
    assert [(p.source, p.target, p.text) for p in found.lost] == [
        (source + s, target + t, "3 of 3 lost")
        for s, t in (("/default/pod", "/default/pod"), ("", "/default/pod"), ("", ""))
        for source, target in ((a, c), (b, a))
    ]


def test_each_family_has_its_matrix():
    report = report_of(3)
    lossy(report)
    found = report["reachability"]
    found["results"] += [{**r, "address": "fd00:18::2", "received": 0, "rtt_ms": None} for r in found["results"] if r["kind"] == "node to node"]
    titles = [m.title for m in reachability_of(report).matrices]
    assert titles[2].startswith("node to node, IPv4: 6 of 6 pairs answer") and titles[3] == "node to node, IPv6: 0 of 6 pairs answer"


def test_of_many_losses_the_worst_are_shown():
    report = report_of(30)
    lossy(report, *[(i, k) for i in range(30) for k in range(30)])
    report["reachability"]["results"][-1].update(received=2, loss=33.3, rtt_ms=0.5)
    found = reachability_of(report)
    assert (len(found.lost), found.left_out) == (MOST_LOST, 3 * 30 * 29 - MOST_LOST)
    assert {p.text for p in found.lost} == {"3 of 3 lost"}


def test_nothing_lost_is_said_only_of_what_was_asked():
    def said(**values):
        report = report_of(3)
        lossy(report)
        report["reachability"].update(values)
        return Read(page(report)).text

    unheard = {"not_asked": [{"host": GUIDE[1], "reached": False, "message": "unreachable: no route"}], "not_tried": ["no pod on " + GUIDE[2]]}
    assert "No packet was lost." in said() and "Not known" not in said()
    known = "Of what was asked, nothing was lost. Not known: k8s-guide-worker was not asked: unreachable: no route"
    assert known + " no pod on k8s-guide-worker2" in said(**unheard)
    assert "Nothing was asked. Not known:" in said(**unheard, results=[])
    ends = {"source": "a", "source_host": "a", "target": "b", "target_host": "b", "address": "192.0.2.1"}
    text = said(results=[{**ends, "kind": "node to node", "sent": 0, "received": 0, "rtt_ms": None}])
    assert "1 pair does not answer a to b: was not sent" in text and "lost" not in text.partition("Reachability")[2].partition("Hosts")[0]


def test_an_unreachable_host_has_a_row():
    read = Read(page(report_of(2, [unreachable(0, "no route"), unreachable(1, "no route")])))
    assert "Differences None." not in read.text
    assert "k8s-guide-worker host not looked at no route" in read.text
    assert "Hosts were not compared with each other" in read.text


def test_cross_checks_are_shown_without_a_difference():
    read = Read(page(report_of(3, [cross("node_ip", GUIDE[:2], "172.18.0.3", "two nodes have it")])))
    assert "172.18.0.3 node_ip two nodes have it k8s-guide-control-plane, k8s-guide-worker" in read.text
    assert "Differences None." in read.text
