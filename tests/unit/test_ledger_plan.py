# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger gives, keeps and refuses, case by case."""

from __future__ import annotations

import time

import pytest
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import parse_cidr
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Host, Ledger, plan_free, plan_ledger, refuse_fresh

V4 = "10.244.0.0/16"
V6 = "fd00:10:244::/48"


def ledger(held, freed=(), cluster_name="kindnet"):
    return Ledger(
        cluster_name,
        {name: tuple(parse_cidr("test", c) for c in cidrs) for name, cidrs in held.items()},
        tuple(parse_cidr("test", c) for c in freed),
    )


def plain(given):
    """A ledger as text, to be compared with text."""
    return {n: [b.text for b in blocks] for n, blocks in given.pod_cidrs.items()}, [b.text for b in given.freed]


def hosts(*names):
    return [Host(n) for n in names]


def test_the_first_host_gets_the_first_block_as_in_kind():
    planned = plan_ledger(None, hosts("a", "b", "c"), [V4])
    assert planned.pod_cidrs == {"a": ("10.244.0.0/24",), "b": ("10.244.1.0/24",), "c": ("10.244.2.0/24",)}
    assert [(c.subject, c.action, c.before, c.after) for c in planned.plan.changes][0] == ("pod CIDRs of a in the ledger", "add", "", "10.244.0.0/24")


def test_reordering_and_leaving_move_nobody():
    book = plan_ledger(None, hosts("a", "b", "c"), [V4]).ledger
    planned = plan_ledger(book, hosts("d", "c", "a"), [V4])
    assert planned.pod_cidrs == {"d": ("10.244.3.0/24",), "c": ("10.244.2.0/24",), "a": ("10.244.0.0/24",)}
    assert plain(planned.ledger)[0]["b"] == ["10.244.1.0/24"], "a host that left keeps its block until it is removed"


def test_a_second_plan_changes_nothing():
    book = plan_ledger(None, hosts("a", "b"), [V4, V6]).ledger
    again = plan_ledger(book, hosts("b", "a"), [V4, V6])
    assert again.plan.changes == ()
    assert again.given == {}
    assert again.ledger == book


def test_dual_stack_gives_one_block_of_each_family_in_the_order_of_the_cluster_cidrs():
    assert plan_ledger(None, hosts("a", "b"), [V6, V4]).pod_cidrs == {
        "a": ("fd00:10:244::/64", "10.244.0.0/24"),
        "b": ("fd00:10:244:1::/64", "10.244.1.0/24"),
    }


def test_a_host_is_given_only_families_that_it_has_addresses_of():
    planned = plan_ledger(None, [Host("a", families=(4,)), Host("b", families=(6,)), Host("c")], [V4, V6])
    assert planned.pod_cidrs == {"a": ("10.244.0.0/24",), "b": ("fd00:10:244::/64",), "c": ("10.244.1.0/24", "fd00:10:244:1::/64")}


def test_a_family_that_comes_later_is_added_behind_what_a_host_holds():
    book = plan_ledger(None, hosts("a"), [V4]).ledger
    planned = plan_ledger(book, hosts("a"), [V6, V4])
    assert planned.pod_cidrs == {"a": ("10.244.0.0/24", "fd00:10:244::/64")}
    assert [(c.action, c.before, c.after) for c in planned.plan.changes] == [("replace", "10.244.0.0/24", "10.244.0.0/24, fd00:10:244::/64")]


def test_several_cluster_cidrs_of_one_family_are_filled_in_order():
    planned = plan_ledger(None, hosts("a", "b", "c"), ["10.9.0.0/23", "10.1.0.0/16"])
    assert list(planned.pod_cidrs.values()) == [("10.9.0.0/24",), ("10.9.1.0/24",), ("10.1.0.0/24",)]


def test_cluster_cidrs_that_contain_each_other_give_no_block_twice():
    planned = plan_ledger(None, hosts("a", "b", "c"), ["10.0.1.0/24", "10.0.0.0/22"])
    assert list(planned.pod_cidrs.values()) == [("10.0.1.0/24",), ("10.0.0.0/24",), ("10.0.2.0/24",)]


def test_blocks_of_other_sizes_are_stepped_over():
    book = ledger({"a": ["10.244.0.128/25"], "b": ["10.244.2.0/23"], "c": ["10.244.5.64/26", "10.244.5.128/26"]})
    planned = plan_ledger(book, hosts("a", "b", "c", "d", "e", "f"), [V4])
    assert list(planned.pod_cidrs.values())[3:] == [("10.244.1.0/24",), ("10.244.4.0/24",), ("10.244.6.0/24",)]


def test_another_mask_size_is_for_new_hosts_alone():
    book = plan_ledger(None, hosts("a"), [V4]).ledger
    assert plan_ledger(book, hosts("a", "b"), [V4], {4: 26}).pod_cidrs == {"a": ("10.244.0.0/24",), "b": ("10.244.1.0/26",)}
    assert plan_ledger(book, hosts("a", "b"), [V4], {4: "23"}).pod_cidrs == {"a": ("10.244.0.0/24",), "b": ("10.244.2.0/23",)}


def test_freed_blocks_are_given_last_and_the_least_recently_freed_first():
    book = ledger({"a": ["10.0.0.0/24"]}, freed=["10.0.3.0/24", "10.0.1.0/24"])
    planned = plan_ledger(book, hosts("a", "b", "c", "d"), ["10.0.0.0/22"])
    assert list(planned.pod_cidrs.values()) == [("10.0.0.0/24",), ("10.0.2.0/24",), ("10.0.3.0/24",), ("10.0.1.0/24",)]
    assert plain(planned.ledger)[1] == []


def test_a_block_over_several_freed_ones_is_as_young_as_the_youngest():
    book = ledger({}, freed=["10.0.0.0/25", "10.0.1.0/24", "10.0.0.128/25"])
    planned = plan_ledger(book, hosts("a"), ["10.0.0.0/23"])
    assert planned.pod_cidrs == {"a": ("10.0.1.0/24",)}
    assert plain(planned.ledger)[1] == ["10.0.0.0/25", "10.0.0.128/25"]
    assert plan_ledger(planned.ledger, hosts("a", "b"), ["10.0.0.0/23"]).pod_cidrs["b"] == ("10.0.0.0/24",)


def test_a_part_of_a_freed_block_leaves_the_rest_freed():
    book = ledger({}, freed=["10.0.0.0/22"])
    planned = plan_ledger(book, hosts("a"), ["10.0.0.0/22"])
    assert planned.pod_cidrs == {"a": ("10.0.0.0/24",)}
    assert plain(planned.ledger)[1] == ["10.0.1.0/24", "10.0.2.0/23"]


def test_removal_frees_and_is_repeatable():
    book = plan_ledger(None, hosts("a", "b"), [V4]).ledger
    planned = plan_free(book, "a")
    assert plain(planned.ledger) == ({"b": ["10.244.1.0/24"]}, ["10.244.0.0/24"])
    assert [(c.action, c.before) for c in planned.plan.changes] == [("remove", "10.244.0.0/24")]
    assert plan_free(planned.ledger, "a").plan.changes == ()
    assert plan_free(None, "a").plan.changes == ()


def test_a_removed_host_stays_removed_whoever_lists_it_no_more():
    """A run that reads one of two inventory sources does not see it either."""
    book = plan_free(plan_ledger(None, hosts("a", "b"), [V4]).ledger, "a", listed=True).ledger
    planned = plan_ledger(book, hosts("b"), [V4])
    assert planned.plan.changes == () and planned.ledger.removed == ("a",)
    with pytest.raises(KindnetError, match="kindnet_nodes: a: was taken out .* removed_hosts"):
        plan_ledger(planned.ledger, hosts("a", "b"), [V4])
    assert plan_free(planned.ledger, "a", listed=True).plan.changes == (), "removed again"


def test_a_declared_rename_keeps_the_block_and_may_stay_declared():
    book = plan_ledger(None, hosts("a", "b"), [V4]).ledger
    renamed = [Host("new", renamed_from="b"), Host("a")]
    planned = plan_ledger(book, renamed, [V4])
    assert planned.pod_cidrs["new"] == ("10.244.1.0/24",)
    assert plain(planned.ledger) == ({"a": ["10.244.0.0/24"], "new": ["10.244.1.0/24"]}, [])
    assert [(c.before, c.after, c.reason) for c in planned.plan.changes] == [("b: 10.244.1.0/24", "10.244.1.0/24", "renamed from b")]
    assert plan_ledger(planned.ledger, renamed, [V4]).plan.changes == ()


def test_explicit_blocks_win_and_stay_when_the_line_goes():
    planned = plan_ledger(None, [Host("a"), Host("b", ["10.244.0.0/24"])], [V4])
    assert planned.pod_cidrs == {"a": ("10.244.1.0/24",), "b": ("10.244.0.0/24",)}
    assert plan_ledger(planned.ledger, hosts("b", "a"), [V4]).pod_cidrs == {"a": ("10.244.1.0/24",), "b": ("10.244.0.0/24",)}


def test_without_a_ledger_an_explicit_inventory_needs_none():
    planned = plan_ledger(None, [Host("a", "10.244.7.0/24"), Host("b", ["10.244.8.0/24"])], [V4])
    assert planned.pod_cidrs == {"a": ("10.244.7.0/24",), "b": ("10.244.8.0/24",)}
    assert planned.ledger is None
    assert planned.plan.changes == ()


def test_an_explicit_host_is_given_no_other_family():
    assert plan_ledger(None, [Host("a", ["10.244.7.0/24"]), Host("b")], [V4, V6]).pod_cidrs["a"] == ("10.244.7.0/24",)


def test_an_explicit_block_out_of_the_freed_ones_is_no_longer_freed():
    book = ledger({}, freed=["10.244.0.0/23", "10.244.9.0/24"])
    planned = plan_ledger(book, [Host("a", ["10.244.1.0/24"])], [V4])
    assert plain(planned.ledger) == ({"a": ["10.244.1.0/24"]}, ["10.244.0.0/24", "10.244.9.0/24"])


def test_a_declared_renumbering_frees_the_old_block():
    book = ledger({"a": ["10.244.0.0/24", "fd00:10:244::/64"]})
    moved = [Host("a", ["10.244.9.0/24", "fd00:10:244::/64"], renumbered_from="10.244.0.0/24")]
    planned = plan_ledger(book, moved, [V4, V6])
    assert plain(planned.ledger) == ({"a": ["10.244.9.0/24", "fd00:10:244::/64"]}, ["10.244.0.0/24"])
    assert plan_ledger(planned.ledger, moved, [V4, V6]).plan.changes == ()


def test_two_declared_renumberings_can_swap():
    book = ledger({"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]})
    planned = plan_ledger(
        book,
        [Host("a", ["10.244.1.0/24"], renumbered_from=["10.244.0.0/24"]), Host("b", ["10.244.0.0/24"], renumbered_from=["10.244.1.0/24"])],
        [V4],
    )
    assert plain(planned.ledger) == ({"a": ["10.244.1.0/24"], "b": ["10.244.0.0/24"]}, [])


def test_a_further_explicit_block_beside_the_held_one_moves_nothing():
    book = ledger({"a": ["10.244.0.0/24"]})
    assert plain(plan_ledger(book, [Host("a", ["10.244.0.0/24", "fd00:10:244::/64"])], [V4, V6]).ledger) == (
        {"a": ["10.244.0.0/24", "fd00:10:244::/64"]},
        [],
    )


REFUSED = {
    "explicit block of another host": (
        {"a": ["10.244.0.0/24"]}, [Host("a"), Host("b", ["10.244.0.0/25"])], [V4],
        "kindnet_pod_cidrs of b: 10.244.0.0/25: overlaps 10.244.0.0/24, which the ledger gave to a.",
    ),
    "explicit block of a host that left": (
        {"gone": ["10.244.0.0/24"]}, [Host("b", ["10.244.0.0/24"])], [V4],
        "which gone still holds in the ledger though it left the inventory. If gone is gone for good, playbooks/remove_node.yml -e node=gone",
    ),
    "two explicit blocks overlap": (
        {}, [Host("a", ["10.244.0.0/23"]), Host("b", ["10.244.1.0/24"])], [V4],
        "overlaps 10.244.1.0/24, kindnet_pod_cidrs of b",
    ),
    "explicit block moves a host": (
        {"a": ["10.244.0.0/24"]}, [Host("a", ["10.244.1.0/24"])], [V4],
        "kindnet_pod_cidrs of a: 10.244.1.0/24: the host holds 10.244.0.0/24 in the ledger",
    ),
    "explicit block drops a family": (
        {"a": ["10.244.0.0/24", "fd00:10:244::/64"]}, [Host("a", ["10.244.0.0/24"])], [V4, V6],
        "the host holds fd00:10:244::/64 in the ledger",
    ),
    "renumbered from something else": (
        {"a": ["10.244.0.0/24"]}, [Host("a", ["10.244.1.0/24"], renumbered_from="10.244.7.0/24")], [V4],
        "the host holds 10.244.0.0/24 in the ledger",
    ),
    "explicit block with host bits": ({}, [Host("a", ["10.244.0.1/24"])], [V4], "has host bits set. Write 10.244.0.0/24."),
    "explicit block outside": ({"b": ["10.244.0.0/24"]}, [Host("b"), Host("a", ["10.9.0.0/24"])], [V4], "10.9.0.0/24 (a)"),
    "held block outside": (
        {"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}, hosts("a", "b"), ["10.244.0.0/24"],
        "kindnet_cluster_cidrs: 10.244.0.0/24: does not contain what hosts already have: 10.244.1.0/24 (b).",
    ),
    "rename of an unknown host": ({}, [Host("b", renamed_from="a")], [V4], "the ledger has no host of this name"),
    "rename of a host that is still there": (
        {"a": ["10.244.0.0/24"]}, [Host("a"), Host("b", renamed_from="a")], [V4],
        "kindnet_renamed_from of b: a: is still a host of the inventory, and holds 10.244.0.0/24",
    ),
    "rename onto a name that a host which left still holds a block under": (
        {"x": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}, [Host("x", renamed_from="b")], [V4],
        "kindnet_renamed_from of x: b: the ledger has both: x holds 10.244.0.0/24, b holds 10.244.1.0/24",
    ),
    "two renames from one host": (
        {"a": ["10.244.0.0/24"]}, [Host("b", renamed_from="a"), Host("c", renamed_from="a")], [V4],
        "kindnet_renamed_from of c: a: b is declared as renamed from the same host",
    ),
    "no cluster CIDR": ({}, hosts("a"), [], "there is nothing to give one from: the host has IPv4 and IPv6 addresses, kindnet_cluster_cidrs is empty"),
    "no cluster CIDR of the family": ({}, [Host("a", families=(6,))], [V4], "the host has IPv6 addresses, kindnet_cluster_cidrs is 10.244.0.0/16"),
    "full": (
        {"gone": ["10.0.0.0/24"]}, hosts("a", "b", "c", "d"), ["10.0.0.0/23"],
        "kindnet_cluster_cidrs: 10.0.0.0/23: is full: 3 hosts are without a pod CIDR: b, c, d."
        " Add a further CIDR to kindnet_cluster_cidrs; or free, with playbooks/remove_node.yml, blocks of hosts that are gone for good: gone.",
    ),
    "full of one family": ({}, hosts("a", "b"), [V4, "fd00::/64"], "kindnet_cluster_cidrs: fd00::/64: is full: 1 host is without a pod CIDR: b."),
    "a host twice": ({}, hosts("a", "a"), [V4], "lists a host twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    held, members, clusters, message = REFUSED[case]
    with pytest.raises(KindnetError) as error:
        plan_ledger(ledger(held), members, clusters)
    assert message in str(error.value)


@pytest.mark.parametrize("size", [0, 31, 32, -1, "x", "", None, True, 24.0, "9" * 5000])
def test_mask_sizes_refused(size):
    with pytest.raises(KindnetError, match="kindnet_node_cidr_mask_size"):
        plan_ledger(None, hosts("a"), [V4], {4: size, 6: 64})


def test_a_block_larger_than_the_cluster_is_refused():
    with pytest.raises(KindnetError, match="kindnet_node_cidr_mask_size: /24: is more than a whole cluster CIDR: 10.0.0.0/25"):
        plan_ledger(None, hosts("a"), ["10.0.0.0/25"])


def test_another_clusters_ledger_is_refused():
    with pytest.raises(KindnetError, match="the ledger is that of cluster blue"):
        plan_ledger(ledger({}, cluster_name="blue"), hosts("a"), [V4])


def test_a_block_is_found_at_once_in_a_range_of_2_to_the_64_blocks_with_large_holes_taken():
    taken = ["8000::/3", "a000::/3", "2000::/3"]
    planned = plan_ledger(ledger({"x%d" % i: [c] for i, c in enumerate(taken)}, freed=["4000::/3"]), hosts("a", "b"), ["2000::/3", "4000::/3", "6000::/64"])
    assert planned.pod_cidrs == {"a": ("6000::/64",), "b": ("4000::/64",)}
    assert sum(1 << (64 - int(b.text.split("/")[1])) for b in planned.ledger.freed) == (1 << 61) - 1, "all of the freed range but one block"


def test_thousands_of_hosts_and_of_freed_blocks():
    names = ["n%d" % i for i in range(5000)]
    start = time.process_time()
    planned = plan_ledger(None, hosts(*names), ["10.0.0.0/8", V6])
    book = planned.ledger
    for name in names[:2000]:
        book = book._replace(freed=book.freed + book.pod_cidrs[name])
    book = book._replace(pod_cidrs={n: b for n, b in book.pod_cidrs.items() if n not in set(names[:2000])})
    again = plan_ledger(book, hosts(*names[2000:], *("m%d" % i for i in range(2000))), ["10.0.0.0/8", V6])
    # No limit on time: a quadratic step would take minutes here and be noticed.
    print("%.2f s" % (time.process_time() - start))
    assert len({c for cidrs in again.pod_cidrs.values() for c in cidrs}) == 10000


FRESH = {
    "nothing recorded": ({}, {}, None),
    "the ledger is gone, the node holds its block": ({}, {"a": ["10.244.0.0/24"]}, "a (10.244.0.0/24)"),
    "the ledger is older than a node": ({"a": ["10.244.0.0/24"]}, {"b": ["10.244.5.0/24"]}, "b (10.244.5.0/24)"),
    "a node that is not in the inventory holds the next block": ({}, {"z": ["10.244.0.0/23"]}, "z (10.244.0.0/23)"),
    "ranges inside each other": ({}, {"y": ["10.244.0.128/25"], "z": ["10.244.0.0/23"]}, "y (10.244.0.128/25), z (10.244.0.0/23)"),
    "all is known": ({"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}, {"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}, None),
    "a second family is no fresh start": ({"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}, {"a": ["10.244.0.0/24"]}, None),
}


@pytest.mark.parametrize("case", FRESH)
def test_a_fresh_allocation_over_nodes_that_hold_blocks_is_refused(case):
    book, recorded, named = FRESH[case]
    clusters = [V4, V6] if "second" in case else [V4]
    planned = plan_ledger(ledger(book) if book else None, hosts("a", "b"), clusters)
    if named is None:
        refuse_fresh(planned, recorded, "inventory/kindnet-ledger.yml")
        return
    with pytest.raises(KindnetError) as error:
        refuse_fresh(planned, recorded, "inventory/kindnet-ledger.yml")
    assert "kindnet_ledger: inventory/kindnet-ledger.yml: does not know what nodes already hold: %s." % named in str(error.value)


def test_a_removed_node_may_come_again_though_it_still_records_its_old_block():
    book = plan_free(plan_ledger(None, hosts("a", "b"), [V4]).ledger, "a").ledger
    planned = plan_ledger(book, hosts("a", "b"), [V4])
    assert planned.pod_cidrs["a"] == ("10.244.2.0/24",)
    refuse_fresh(planned, {"a": ["10.244.0.0/24"], "b": ["10.244.1.0/24"]}, "ledger")
