# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks whom, and the matrix that the answers make."""

from __future__ import annotations

__metaclass__ = type

import json
import os

import jsonschema
import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils import _report_files
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_reachability import (
    NODE_TO_NODE,
    NODE_TO_POD,
    POD_TO_POD,
    Host,
    Pod,
    entry,
    is_bad,
    parse_sample,
    plan,
    pod_of,
    sources_of,
    who_asks_whom,
)
from ansible_collections.kindnet.host.plugins.plugin_utils._reachability_text import cell, screen
from ansible_collections.kindnet.host.plugins.plugin_utils._report import GENERATOR, Run, report_of
from hypothesis import given
from hypothesis import strategies as st

names = st.integers(2, 40).map(lambda count: ["n%02d" % i for i in range(count)])


def host(name, number, pod=True, why_not="", six=False, netns="/run/netns/x"):
    ips = ("172.18.0.%d" % number,) + (("fd00:18::%d" % number,) if six else ())
    pod_ips = ("10.244.%d.2" % number,) + (("fd00:10:244:%d::2" % number,) if six else ())
    return Host(name, ips, why_not, not why_not.startswith("unreachable"), Pod("%s/default/web" % name, netns, pod_ips) if pod and not why_not else None)


def answered(flows, lost=(), partly=()):
    """What kindnet_ping tells of flows, of which some addresses do not answer."""
    told = []
    for flow in flows:
        pair = (flow.source, flow.address)
        received = 0 if pair in lost else 2 if pair in partly else 3
        rtt = 0.1 if received else None
        told.append({
            "source": flow.source, "target": flow.address, "sent": 3, "received": received, "loss": round(100 * (3 - received) / 3, 1),
            "rtt_min_ms": rtt, "rtt_avg_ms": rtt, "rtt_max_ms": rtt, "error": "" if received == 3 else "somebody says: no",
        })  # fmt: skip
    return told


def report(hosts, lost=(), partly=(), sample=0, failures=()):
    made = plan(hosts, sample, 0)
    answers = {name: answered(flows, lost, partly) for name, flows in made.flows.items() if name not in dict(failures)}
    return entry(made, answers, dict(failures), "2026-11-27T02:22:30Z")


# --- who asks whom


@given(names, st.data())
def test_with_a_sample_every_host_is_asked_by_as_many_others_as_each_asks(names, data):
    sample = data.draw(st.integers(1, len(names) - 1))
    whom = who_asks_whom(names, names, sample, data.draw(st.integers(0, 99)))
    assert sorted(whom) == names
    for name, targets in whom.items():
        assert len(targets) == len(set(targets)) == sample and name not in targets
    for name in names:
        assert sum(name in targets for targets in whom.values()) == sample


@given(names, st.data())
def test_so_it_is_when_some_cannot_ask_as_far_as_there_are_askers(names, data):
    asking = data.draw(st.lists(st.sampled_from(names), unique=True))
    sample = data.draw(st.integers(0, len(names) - 1))
    whom = who_asks_whom(names, asking, sample, data.draw(st.integers(0, 99)))
    assert sorted(whom) == sorted(asking)
    for name in names:
        others = len(set(asking) - {name})
        assert sum(name in targets for targets in whom.values()) == (min(sample, others) if sample else others)
        assert name not in whom.get(name, ())


@given(names, st.integers(0, 99))
def test_all_are_linked_by_some_chain_of_questions(names, seed):
    whom = who_asks_whom(names, names, 1, seed)
    reached, at = set(), names[0]
    while at not in reached:
        reached.add(at)
        (at,) = whom[at]
    assert reached == set(names)


@given(names)
def test_at_no_moment_do_all_ask_the_same_one(names):
    whom = who_asks_whom(names, names, 0, 0)
    for turn in range(len(names) - 1):
        assert len({targets[turn] for targets in whom.values()}) == len(names)


@pytest.mark.parametrize("asking", [1, 20_000])
def test_a_sample_of_many_does_not_cost_all_of_their_pairs(asking):
    names = ["n%05d" % i for i in range(20_000)]
    whom = who_asks_whom(names, names[:asking], 10, 0)  # of every pair it would be minutes
    assert sum(map(len, whom.values())) == (20_000 * 10 if asking > 1 else 19_999)


def test_a_seed_decides_and_the_order_of_the_inventory_does_not():
    names = ["n%02d" % i for i in range(30)]
    assert who_asks_whom(names, names, 3, 7) == who_asks_whom(names[::-1], names[::-1], 3, 7) != who_asks_whom(names, names, 3, 8)


@pytest.mark.parametrize(
    ("value", "hosts", "expected"),
    [("auto", 50, 0), ("auto", 51, 10), (None, 1000, 10), ("", 3, 0), (0, 1000, 0), ("5", 20, 5), (5, 6, 0), (5, 7, 5)],
)
def test_how_many_others_a_host_asks(value, hosts, expected):
    assert parse_sample(value, hosts) == expected


@pytest.mark.parametrize("value", ["-1", "many", 1.5, True])
def test_a_sample_that_is_no_number(value):
    with pytest.raises(KindnetError, match="is not a number of hosts"):
        parse_sample(value, 10)


# --- the plan


def test_pods_ask_pods_and_nodes_ask_both():
    made = plan([host("b", 2), host("a", 1)], 0, 0)
    assert [f[:4] + f[5:] for f in made.flows["a"]] == [
        (POD_TO_POD, "a", "a/default/web", "/run/netns/x", "b", "b/default/web", "10.244.2.2"),
        (NODE_TO_POD, "a", "a", "", "a", "a/default/web", "10.244.1.2"),
        (NODE_TO_POD, "a", "a", "", "b", "b/default/web", "10.244.2.2"),
        (NODE_TO_NODE, "a", "a", "", "b", "b", "172.18.0.2"),
    ]
    assert sources_of(made.flows["a"]) == [
        {"name": "a/default/web", "netns": "/run/netns/x", "source_ips": ["10.244.1.2"], "targets": ["10.244.2.2"]},
        {"name": "a", "netns": "", "source_ips": [], "targets": ["10.244.1.2", "10.244.2.2", "172.18.0.2"]},
    ]
    assert made.not_tried == ()


def test_each_family_that_both_have():
    made = plan([host("a", 1, six=True), host("b", 2, six=True), host("c", 3)], 0, 0)
    assert [f.address for f in made.flows["a"] if f.target_host == "b"] == [
        "10.244.2.2", "fd00:10:244:2::2", "10.244.2.2", "fd00:10:244:2::2", "172.18.0.2", "fd00:18::2",
    ]  # fmt: skip
    assert {":" in f.address for f in made.flows["c"]} == {False}


def test_what_cannot_be_tried_is_said():
    hosts = [host("a", 1), host("b", 2, pod=False), host("c", 3, netns=""), host("d", 4, why_not="unreachable: no route")]
    made = plan(hosts, 0, 0)
    assert sorted(made.flows) == ["a", "b", "c"]
    assert {f.kind for f in made.flows["b"]} == {f.kind for f in made.flows["c"]} == {NODE_TO_POD, NODE_TO_NODE}
    # Also who cannot ask is asked, as far as is known what.
    assert {(f.kind, f.target) for f in made.flows["a"] if f.target_host == "d"} == {(NODE_TO_NODE, "d")}
    assert [line.partition(":")[0] for line in made.not_tried] == ["no pod runs on b", "the network namespace is not known of c/default/web", "pods of d"]


PODS = [
    {"ips": ["10.244.1.9"], "name": "b", "namespace": "x", "container": "c1", "netns": "/run/netns/1"},
    {"ips": ["10.244.1.8"], "name": "a", "namespace": "x", "container": "c2", "netns": ""},
    {"ips": ["10.244.1.7"], "name": "", "namespace": "", "container": "0123456789abcdef", "netns": "/run/netns/3"},
    {"ips": ["192.0.2.1"], "name": "a", "namespace": "a", "container": "c4", "netns": "/run/netns/4"},
]


def test_the_pod_that_stands_for_a_node():
    assert pod_of("n", ["10.244.1.0/24"], PODS) == Pod("n/0123456789ab", "/run/netns/3", ("10.244.1.7",))
    assert pod_of("n", ["10.244.1.0/24"], PODS[:2]) == Pod("n/x/b", "/run/netns/1", ("10.244.1.9",))
    both = dict(PODS[1], ips=["10.244.1.8", "fd00:1::8"])
    assert pod_of("n", ["10.244.1.0/24", "fd00:1::/64"], [*PODS, both]) == Pod("n/x/a", "", ("10.244.1.8", "fd00:1::8"))
    assert pod_of("n", ["10.244.1.0/24"], PODS[3:]) is None


# --- what it comes to


def test_a_host_that_was_not_reached_asked_nobody_and_is_not_reachable():
    hosts = [host("a", 1), host("b", 2), host("c", 3, why_not="unreachable: timed out")]
    found = report(hosts, failures={"b": "failed: no python"})
    assert found["not_asked"] == [
        {"host": "b", "reached": True, "message": "failed: no python"},
        {"host": "c", "reached": False, "message": "unreachable: timed out"},
    ]
    assert {r["source_host"] for r in found["results"]} == {"a"}
    assert found["hosts"] == ["a", "b", "c"] and found["mode"] == "full"
    lines = screen(found).splitlines()
    assert [line for line in lines if line.startswith("  3 c")] == ["  3 c  not asked: unreachable: timed out"] * 3


def test_source_and_target_are_one_result_also_with_two_families():
    for six in (True, False):
        found = report([host("a", 1, six=six), host("b", 2, six=six), host("c", 3)])
        pairs = [(r["source"], r["target"]) for r in found["results"]]
        assert len(pairs) == len(set(pairs))
        assert {s for s, _t in pairs} == set(found["sources"]) and {t for _s, t in pairs} == set(found["targets"])
        assert ("a", "b (IPv6)") in pairs if six else not any("(" in t for t in found["targets"])


def test_what_could_not_be_asked_is_no_answer():
    made = plan([host("a", 1), host("b", 2)], 0, 0)
    told = [dict(one, sent=0, received=0, loss=None, rtt_avg_ms=None, error="not asked: /x: gone") for one in answered(made.flows["a"])]
    found = entry(made, {"a": told, "b": answered(made.flows["b"])}, {}, "")
    assert all(is_bad(r) and r["loss"] == 100.0 for r in found["results"] if r["source_host"] == "a")
    assert "a/default/web -> b/default/web (10.244.2.2): not asked: /x: gone" in screen(found)


@pytest.mark.parametrize(
    ("received", "rtt", "expected"),
    [(3, 0.123, "0.12"), (3, 9.99, "9.99"), (3, 9.996, "10"), (3, 1234.5, "1234"), (3, 12345.0, "12s"), (2, 0.1, "33%"), (0, None, "lost")],
)
def test_a_cell_fits_its_column(received, rtt, expected):
    text = cell({"sent": 3, "received": received, "loss": round(100 * (3 - received) / 3, 1), "rtt_ms": rtt})
    assert text == expected and len(text) <= 5


def test_the_matrix_of_three():
    lost = {("a/default/web", "10.244.3.2"), ("a", "10.244.3.2")}
    text = screen(report([host("a", 1), host("b", 2), host("c", 3, pod=True)], lost, partly={("c/default/web", "10.244.1.2")}))
    assert text.splitlines()[:8] == [
        "3 hosts, everybody asks everybody; 18 of 21 pairs answer",
        "",
        "pod to pod, IPv4: 4 of 6 pairs answer; 0.10 ms, the slowest 0.10 ms",
        "          1     2     3",
        "  1 a     .  0.10  lost",
        "  2 b  0.10     .  0.10",
        "  3 c   33%  0.10     .",
        "",
    ]
    assert "  pod to pod: a/default/web -> c/default/web (10.244.3.2): 0 of 3 answered: somebody says: no" in text.splitlines()


def test_twenty_hosts_fit_a_screen_and_of_more_only_what_is_bad_is_told():
    hosts = [host("k8s-guide-worker%02d" % i, i) for i in range(1, 21)]
    lines = screen(report(hosts)).splitlines()
    assert max(map(len, lines)) <= 150 and len(lines) < 80
    lost = {("k8s-guide-worker%02d" % i, "172.18.0.7") for i in range(1, 22)} | {("k8s-guide-worker03", "10.244.9.2")}
    text = screen(report([*hosts, host("k8s-guide-worker21", 21)], lost))
    assert "node to node: nobody reaches k8s-guide-worker07" in text
    assert "node to pod: k8s-guide-worker03 -> k8s-guide-worker09/default/web (10.244.9.2): 0 of 3 answered" in text
    assert "   1 " not in text and len(text.splitlines()) < 40
    many = {(h.name, "172.18.0.%d" % i) for h in hosts for i in range(1, 8)}
    assert "  and 93 more, all of them in the report" in screen(report(hosts, many)).splitlines()


def test_a_large_fleet_is_asked_in_moderation():
    hosts = [host("n%03d" % i, i % 250) for i in range(300)]
    made = plan(hosts, parse_sample("auto", 300), 0)
    assert {len(flows) for flows in made.flows.values()} == {31}
    found = report(hosts, sample=10)
    assert (found["mode"], found["sample"]) == ("sampled", 10)
    assert screen(found).startswith("300 hosts, each is asked by 10 others; 9300 of 9300 pairs answer\n")


# --- its file


def test_the_file_is_beside_the_inventory_and_read_back(tmp_path):
    (tmp_path / "inventory").mkdir()
    folder = _report_files.folder_of([str(tmp_path / "inventory")])
    assert folder == str(tmp_path / "kindnet-report") and _report_files.reachability_in(folder) is None
    found = report([host("a", 1), host("b", 2)])
    path = _report_files.write_reachability(folder, found)
    assert sorted(os.listdir(folder)) == ["reachability.json"]
    with open(path, encoding="utf-8") as f:
        assert json.load(f) == _report_files.reachability_in(folder) == found
    for damaged in ('{"generated": ', "[]", "{}"):
        (tmp_path / "kindnet-report" / "reachability.json").write_text(damaged)
        assert _report_files.reachability_in(folder) is None


def test_the_report_of_drift_has_it_whichever_was_made_first(tmp_path):
    def drift():
        with open(str(tmp_path / "drift.json"), encoding="utf-8") as f:
            return json.load(f)

    run = Run(playbook="drift.yml", cluster_name="kindnet", generated="2026-11-27T02:22:30Z", limit="", nodes=[])
    found = report([host("a", 1), host("b", 2)])
    _report_files.write(str(tmp_path), report_of(run, []))
    without = drift()
    assert without["reachability"] is None
    _report_files.write_reachability(str(tmp_path), found)
    assert drift() == dict(without, reachability=found)
    _report_files.write(str(tmp_path), report_of(run, []))
    assert drift() == dict(without, reachability=found)
    (tmp_path / "drift.json").write_text('{"half": ')
    _report_files.write_reachability(str(tmp_path), found)
    assert (tmp_path / "drift.json").read_text() == '{"half": '
    for other in ({"reachability": None}, {"generator": GENERATOR}, {"generator": "kindnet.host 9.9.9"}, {"generator": GENERATOR, "hosts": 1}):
        (tmp_path / "drift.json").write_text(json.dumps(other))
        _report_files.write_reachability(str(tmp_path), found)
        assert json.loads((tmp_path / "drift.json").read_text()) == other, "of somebody else, or damaged: it is left as it is"


def test_what_is_written_is_of_the_schema_of_the_report():
    with open("docs/drift.schema.json", encoding="utf-8") as f:
        schema = json.load(f)
    lost = {("a", "10.244.2.2")}
    found = report([host("a", 1, six=True), host("b", 2, six=True), host("c", 3, why_not="unreachable: x")], lost)
    jsonschema.validate(found, dict(schema["properties"]["reachability"], **{"$defs": schema["$defs"]}))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KindnetError, match="kindnet_report_dir.*cannot be written"):
        _report_files.write_reachability(str(tmp_path / "file" / "report"), report([host("a", 1), host("b", 2)]))
