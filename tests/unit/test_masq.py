# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern ``masq``: what a module's parameters become, which backend is chosen, what is read, and in which order it is changed."""

from __future__ import annotations

import json

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _firewall, _masq, _masq_backend, _nftables
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._plan_chain import Edit, Found, Masquerading, Place, leads_to, wanted_jump, wanted_rules

V4, V6 = "10.244.0.0/16", "fd00:10:244::/56"
CHAIN = "KIND-MASQ-AGENT"


class Backend:
    """One flavour of a host, in memory. A write that no test allowed is an error."""

    def __init__(self, flavour, log):
        self.flavour, self.log = flavour, log
        self.tables = {"ipv4": {}, "ipv6": {}}  # family -> chain -> Found
        self.others = 0
        self.tools = True
        self.broken = {}  # family -> KindnetError of every look at it
        self.refuses = {}  # family -> KindnetError of every commit
        self.writable = False

    def require(self, family):
        if not self.tools:
            raise KindnetError("iptables", self.flavour, "is not installed", "Install it.")

    def installed(self, family):
        return self.tools

    def has_chain(self, family, chain, lock_wait):
        return chain in self.tables[family]

    def read(self, family, chain, lock_wait):
        if family in self.broken:
            raise self.broken[family]
        return self.tables[family].get(chain, Found(None))

    read_for_removal = read

    def read_nat(self, family, lock_wait):
        return {}

    def count_others(self, chains):
        return self.others

    def commit(self, family, edits, lock_wait):
        assert self.writable, "a write where there must be none: %s" % (edits,)
        self.log.append((self.flavour, family, [edit.verb for edit in edits]))
        if family in self.refuses:
            raise self.refuses[family]


@pytest.fixture
def host(monkeypatch):
    log = []
    backends = {flavour: Backend(flavour, log) for flavour in ("nft", "legacy")}
    for module in (_masq, _masq_backend):
        monkeypatch.setattr(module, "BACKENDS", backends)
    monkeypatch.setattr(_masq_backend, "default_flavour", lambda: "nft")
    monkeypatch.setattr(_masq, "nft_has", lambda *unused: False)
    monkeypatch.setattr(_nftables, "has_table", lambda: False)
    monkeypatch.setattr(_nftables, "find", lambda name: None)
    monkeypatch.setattr(_nftables, "count_others", lambda: 0)
    backends["log"] = log
    return backends


def params(**other):
    values = {
        "cluster_cidrs": [V4], "chain": CHAIN, "backend": "auto", "lock_wait": 5, "tools_predicted": False, "state": "present",
        "non_masquerade_cidrs": [], "masquerade_cidrs": [], "source_cidrs": [], "masquerade_link_local": True,
        "masquerade_link_local_ipv6": True, "random_fully": False, "jump_position": "last",
    }
    values.update(other)
    return values


RIGHT = Found(wanted_rules(Masquerading((V4,))), (wanted_jump(CHAIN),))


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        ([V4], [V4]),
        ([V6, V4], [V6, V4]),
        (["FD00:0010:0244:0::/56"], [V6]),
        (["::ffff:10.0.0.0/104"], ["::ffff:10.0.0.0/104"]),
        (["10.0.0.1/32", "::1/128"], ["10.0.0.1/32", "::1/128"]),
        ([V4, "10.244.1.0/24"], [V4, "10.244.1.0/24"]),
    ],
)
def test_cluster_cidrs_are_recorded_canonical_and_in_order(host, given, recorded):
    section = _masq.resolve(params(cluster_cidrs=given), None)
    assert section == {"cluster_cidrs": recorded, "chain": CHAIN, "backend": "iptables-nft", "auto": True, "lock_wait": 5}
    assert json.loads(json.dumps(section)) == section


@pytest.mark.parametrize(
    ("cidrs", "problem"),
    [
        ([], "empty"),
        (None, "empty"),
        (["10.244.0.1/16"], "host bits"),
        (["fd00::1/56"], "host bits"),
        (["0.0.0.0/0"], "everything"),
        (["::/0"], "everything"),
        ([V4, V4], "twice"),
        ([V6, "fd00:10:244:0::/56"], "twice"),
        (["10.244.0.0"], "not a network"),
        (["10.244.0.0/255.255.0.0"], "not a network"),
        (["10.244.0.0/33"], "not a network"),
        (["10.244.0/16"], "not a network"),
        (["fe80::%eth0/64"], "not a network"),
        ([V4 + "\n-A POSTROUTING -j ACCEPT"], "not a network"),
        ([V4 + "\n"], "not a network"),
        (["! " + V4], "not a network"),
        (["example.org/16"], "not a network"),
        ([""], "not a network"),
    ],
)
def test_bad_cluster_cidrs_are_refused(host, cidrs, problem):
    with pytest.raises(KindnetError) as error:
        _masq.resolve(params(cluster_cidrs=cidrs), None)
    assert error.value.field == "cluster_cidrs"
    assert problem in error.value.problem


@pytest.mark.parametrize("name", ["KIND-MASQ-AGENT", "x" * 28, "a.b:c+d_e-f", "+a", ":a", ".a"])
def test_names_of_chains(host, name):
    assert _masq.resolve(params(chain=name), None)["chain"] == name


@pytest.mark.parametrize(
    "name",
    [
        "", "x" * 29, "-a", "--flush", "a b", "a\n", "a\nCOMMIT", "a\t", 'a"', "a'", "a\\", "a;b", "!a", "a\0", "café", "$(id)", "#a", "a,b",
        "POSTROUTING", "PREROUTING", "ACCEPT", "DROP", "RETURN", "MASQUERADE", "SNAT", "LOG",
    ],
)  # fmt: skip
def test_names_that_iptables_takes_for_something_else_are_refused(host, name):
    with pytest.raises(KindnetError) as error:
        _masq.resolve(params(chain=name), None)
    assert error.value.field == "chain"
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seconds", [0, -1, 61])
def test_the_wait_for_the_lock_is_bounded(host, seconds):
    with pytest.raises(KindnetError) as error:
        _masq.resolve(params(lock_wait=seconds), None)
    assert error.value.field == "lock_wait"


NFT, LEGACY = "iptables-nft", "iptables-legacy"


@pytest.mark.parametrize(
    ("chain_in", "others", "default", "recorded", "asked", "backend"),
    [
        ([], (0, 0, 0), "nft", None, "auto", NFT),
        ([], (0, 0, 0), "legacy", None, "auto", LEGACY),
        ([], (5, 5, 0), "legacy", None, "auto", LEGACY),
        ([], (0, 0, 0), None, None, "auto", "nftables"),
        ([], (1, 3, 0), "nft", None, "auto", LEGACY),
        ([], (3, 1, 9), "legacy", None, "auto", NFT),
        ([], (0, 0, 2), "nft", None, "auto", "nftables"),
        ([LEGACY], (90, 0, 0), "nft", None, "auto", LEGACY),
        ([NFT], (0, 90, 0), "legacy", None, "auto", NFT),
        ([NFT, LEGACY], (0, 90, 0), "nft", None, "auto", LEGACY),
        ([NFT, LEGACY], (0, 90, 0), "nft", NFT, "auto", NFT),
        ([LEGACY], (90, 0, 0), "nft", NFT, "auto", LEGACY),
        ([], (0, 90, 0), "nft", NFT, "auto", NFT),
        ([LEGACY], (0, 90, 0), "legacy", LEGACY, NFT, NFT),
        ([LEGACY], (0, 90, 0), "legacy", LEGACY, "nftables", "nftables"),
    ],
)
def test_the_backend_is_that_of_our_chain_then_of_the_other_rules_then_of_iptables(
    host, monkeypatch, chain_in, others, default, recorded, asked, backend
):
    for name in chain_in:
        host[name[9:]].tables["ipv6"][CHAIN] = RIGHT
    host["nft"].others, host["legacy"].others, native = others
    monkeypatch.setattr(_masq_backend, "default_flavour", lambda: default)
    monkeypatch.setattr(_nftables, "count_others", lambda: native)
    monkeypatch.setattr(_nftables, "installed", lambda: True)
    monkeypatch.setattr(_nftables, "require", lambda: None)
    before = {"cluster_cidrs": [V4], "chain": CHAIN, "backend": recorded, "lock_wait": 5} if recorded else None
    section = _masq.resolve(params(backend=asked), before)
    assert (section["backend"], section.get("auto", False)) == (backend, asked == "auto")
    elsewhere = {name for name in chain_in + ([recorded] if recorded else []) if name != backend}
    assert sorted(section.get("former", [])) == sorted([name, CHAIN] for name in elsewhere)


def test_a_converge_says_why_and_what_it_would_decide_today(host):
    host["nft"].tables["ipv4"][CHAIN] = RIGHT
    section = _masq.resolve(params(), None)

    def said(section):
        plan = _masq.plan(section, _masq.read(section, {}))
        assert list(plan.notes) == _masq.notes_of(section)
        return plan.details["backend_reason"], plan.notes

    assert said(section) == (
        "auto: 0 rules and chains of others in iptables-nft, 0 rules and chains of others in iptables-legacy, 0 rules of others in native nat chains;"
        " plain iptables is iptables-nft",
        (),
    )
    host["legacy"].others = 3
    assert _masq.plan(section, _masq.read(section, None)).notes == ()  # a pass does not look
    why, (note,) = said(section)
    assert why == "auto: the chain has been there"
    for part in ("iptables-nft it stays", "auto would choose iptables-legacy today", "3 rules and chains of others in iptables-legacy"):
        assert part in note
    host["nft"].others = 5
    assert [text[:30] for text in said(section)[1]] == ["the rules of others are split "]
    assert said(_masq.resolve(params(backend="iptables-nft"), None)) == ("it was asked for", ())


def test_missing_tools_are_an_error_that_names_the_package_unless_predicted(host):
    host["nft"].tools = host["legacy"].tools = False
    for backend in ("auto", "iptables-nft", "iptables-legacy", "nftables"):
        with pytest.raises(KindnetError, match="not installed"):
            _masq.resolve(params(backend=backend), None)
        assert _masq.resolve(params(backend=backend, tools_predicted=True), None)["backend"] == backend.replace("auto", "iptables-nft")


def test_former_names_are_kept_until_one_is_current_again(host):
    first = _masq.resolve(params(), None)
    second = _masq.resolve(params(chain="B"), first)
    assert second["former"] == [["iptables-nft", CHAIN]]
    assert _masq.resolve(params(chain="B"), second) == second
    third = _masq.resolve(params(chain="C"), second)
    assert third["former"] == [["iptables-nft", CHAIN], ["iptables-nft", "B"]]
    assert _masq.resolve(params(), third)["former"] == [["iptables-nft", "B"], ["iptables-nft", "C"]]
    assert _masq.resolve(params(state="absent"), third)["former"] == [
        ["iptables-nft", CHAIN], ["iptables-nft", "B"], ["iptables-nft", "C"], ["iptables-legacy", CHAIN], ["nftables", CHAIN],
    ]  # fmt: skip


def run(host, section, writable=True):
    host["nft"].writable = host["legacy"].writable = writable
    plan = _masq.plan(section, _masq.read(section, None))
    return plan, _masq.apply(section, plan)


def test_a_clean_pass_writes_nothing(host):
    host["nft"].tables["ipv4"][CHAIN] = RIGHT
    plan, problems = run(host, _masq.resolve(params(), None), writable=False)
    assert (plan.changes, plan.problems, problems) == ((), (), ())
    assert plan.details["ipv4"]["chain"] == plan.details["ipv4"]["jump"] == "right"


def test_a_renamed_chain_goes_in_the_same_transaction_and_another_flavours_after_the_new_one_is_in_place(host):
    host["nft"].tables["ipv4"]["OLD"] = Found(wanted_rules(Masquerading((V4,))), (wanted_jump("OLD"),))
    host["legacy"].tables["ipv4"]["OLDER"] = Found((), ())
    section = dict(_masq.resolve(params(backend="iptables-nft"), None), former=[["iptables-legacy", "OLDER"], ["iptables-nft", "OLD"]])
    _plan, problems = run(host, section)
    assert problems == ()
    assert host["log"] == [("nft", "ipv4", ["lay", "append", "delete", "drop"]), ("legacy", "ipv4", ["drop"])]


def test_a_family_without_a_cidr_is_cleared(host):
    host["nft"].tables["ipv4"][CHAIN] = RIGHT
    host["nft"].tables["ipv6"][CHAIN] = Found(wanted_rules(Masquerading((V6,))), (wanted_jump(CHAIN),))
    plan, _unused = run(host, _masq.resolve(params(), None))
    assert host["log"] == [("nft", "ipv6", ["delete", "drop"])]
    assert {change.reason for change in plan.changes} == {"no cluster CIDR is IPv6"}


def test_one_family_that_cannot_be_read_does_not_cost_the_other_one(host):
    host["nft"].broken["ipv6"] = KindnetError("ip6tables-nft", "x", "is incompatible", "Look.")
    host["legacy"].tables["ipv6"][CHAIN] = RIGHT
    section = dict(_masq.resolve(params(cluster_cidrs=[V4, V6], backend="iptables-nft"), None))
    plan, problems = run(host, section)
    assert [problem.subject for problem in plan.problems] == ["ip6tables-nft nat"]
    assert host["log"] == [("nft", "ipv4", ["lay", "append"])]  # and the old chain of that family stays
    assert {problem.subject for problem in problems} == {
        "ip6tables-legacy chain nat/KIND-MASQ-AGENT", "ip6tables-legacy jump nat/POSTROUTING to KIND-MASQ-AGENT",
    }  # fmt: skip
    host["nft"].broken["ipv4"] = host["nft"].broken["ipv6"]
    with pytest.raises(KindnetError, match="is incompatible"):
        _masq.read(section, None)


def test_one_family_whose_transaction_is_refused_does_not_cost_the_other_one(host):
    host["nft"].refuses["ipv4"] = KindnetError("iptables-nft", "x", "refused", "Look.")
    _plan, problems = run(host, _masq.resolve(params(cluster_cidrs=[V4, V6]), None))
    assert [entry[1] for entry in host["log"]] == ["ipv4", "ipv6"]
    assert [problem.subject for problem in problems] == [
        "iptables-nft chain nat/KIND-MASQ-AGENT", "iptables-nft jump nat/POSTROUTING to KIND-MASQ-AGENT",
    ]  # fmt: skip


def test_absent_with_foreign_references_is_a_problem_of_that_chain_alone(host):
    host["nft"].tables["ipv4"][CHAIN] = RIGHT._replace(references=("-A OUTPUT -j KIND-MASQ-AGENT",))
    host["nft"].tables["ipv6"][CHAIN] = RIGHT
    section = _masq.resolve(params(state="absent"), None)
    plan = _masq.plan(section, _masq.read(section, None))
    (problem,) = plan.problems
    assert problem.subject == "iptables-nft chain nat/KIND-MASQ-AGENT" and "'-A OUTPUT -j KIND-MASQ-AGENT'" in problem.message
    assert {change.op.place for change in plan.changes} == {Place("nft", "ipv6")}


@pytest.mark.parametrize("character", ["\n", "\r", "\0"])
def test_no_rule_smuggles_a_line_into_a_restore(character):
    with pytest.raises(KindnetError, match="line break"):
        _firewall.restore_script([Edit("delete", "POSTROUTING", ('-m comment --comment "a%sb" -j X' % character,))])


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Another app is currently holding the xtables lock. Stopped waiting after 1s.", "holds the lock"),
        ("iptables: Permission denied (you must be root)", "may not look"),
        ("iptables v1.8.9 (nf_tables): chain `X' in table `nat' is incompatible, use 'nft' tool.", "made by nft itself"),
        ("iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)", "does not offer"),
        ("iptables-nft-restore: line 2 failed", "[-A a b]"),
        ("", "refused"),
    ],
)
def test_what_the_tool_says_becomes_one_error(monkeypatch, said, problem):
    monkeypatch.setattr(_firewall, "find", lambda name: "/sbin/" + name)
    monkeypatch.setattr(_firewall, "run", lambda argv, stdin, timeout: _firewall.Result(1, "", "# Warning: x\n%s\n" % said))
    with pytest.raises(KindnetError) as error:
        _firewall.Iptables("nft").commit("ipv4", [Edit("append", "a", ("b",))], 1)
    assert problem in str(error.value)
    assert "Warning" not in str(error.value)


def test_an_answer_without_its_head_does_not_pass_for_an_empty_chain(monkeypatch):
    monkeypatch.setattr(_firewall, "find", lambda name: "/sbin/" + name)
    monkeypatch.setattr(_firewall, "nft_has", lambda *unused: True)
    monkeypatch.setattr(_firewall, "run", lambda argv, stdin, timeout: _firewall.Result(0, "", ""))
    with pytest.raises(KindnetError, match="something else"):
        _firewall.Iptables("nft").read("ipv4", CHAIN, 1)


def test_a_program_that_hangs_is_killed_and_named():
    with pytest.raises(KindnetError, match="did not end within 0.2 s"):
        _firewall.run(["/bin/sleep", "60"], b"", 0.2)


def bound_to(seconds, monkeypatch):
    monkeypatch.setattr(_firewall, "PATIENCE", _firewall.Patience())
    _firewall.PATIENCE.bound(seconds)


def test_programs_that_hang_leave_some_of_a_pass_to_those_after_them(monkeypatch):
    bound_to(4, monkeypatch)
    monkeypatch.setattr(_firewall, "LEAST_TIME", 0.6)
    for _hang in range(2):
        with pytest.raises(KindnetError, match="did not end in the time that a pass has for it"):
            _firewall.run(["/bin/sleep", "60"], b"", 25)
    with pytest.raises(KindnetError, match="took all the time of this pass"):
        _firewall.run(["/bin/sleep", "60"], b"", 25)


def test_a_pass_waits_for_a_held_lock_only_once(monkeypatch):
    waits = []

    def run(argv, stdin, timeout):
        waits.append((argv[2], timeout))
        return _firewall.Result(4, "", "Another app is currently holding the xtables lock. Stopped waiting.")

    monkeypatch.setattr(_firewall, "find", lambda name: "/sbin/" + name)
    monkeypatch.setattr(_firewall, "run", run)
    for seconds in (float("inf"), 20.0):
        bound_to(seconds, monkeypatch)
        for _wait in range(2):
            with pytest.raises(KindnetError, match="holds the lock"):
                _firewall.Iptables("legacy").commit("ipv4", [Edit("append", "a", ("b",))], 60)
    assert waits == [("60", 80), ("60", 80), ("9", 29), ("1", 21)]


def test_a_program_is_fed_and_heard_beyond_what_a_pipe_holds():
    data = b"0123456789abcde\n" * 50000
    assert _firewall.run(["/bin/cat"], data, 30) == (0, data.decode(), "")
    assert _firewall.run(["/bin/false"], data, 30).status == 1


def test_the_planner_and_the_reader_agree_what_a_jump_is():
    assert leads_to(wanted_jump("a.b:c+d"), "a.b:c+d")
