# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who holds which pod CIDR, and who is given which: the planner of the ledger. Pure, controller only.

A pod CIDR, once given, stays. The ledger is therefore the only memory: what a host holds is never computed again from its place
in the inventory. A host is known by its inventory name; another name is another host unless a rename is declared.
"""

from __future__ import annotations

__metaclass__ = type

from bisect import bisect_right
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..module_utils._errors import KindnetError
from ..module_utils._node_table import BITS, LONGEST_PREFIX, Range, as_list, family_of, parse_cidr, shorten
from ..module_utils._plan import Change, Plan

# What kube-controller-manager gives by default.
MASK_SIZES = {4: 24, 6: 64}
MASK_OPTIONS = {4: "kindnet_node_cidr_mask_size", 6: "kindnet_node_cidr_mask_size_ipv6"}

REMOVE = "playbooks/remove_node.yml"


class NodeIps(NamedTuple):
    """What was read once from the interface that kindnet_node_interface names. It stays, whether the host can be asked or not."""

    interface: str
    node_ips: Tuple[str, ...]


class Ledger(NamedTuple):
    """What has been given out. Blocks of different hosts, and freed ones, never overlap."""

    cluster_name: str
    pod_cidrs: Mapping[str, Tuple[Range, ...]]  # by inventory name, hosts that left the inventory included
    freed: Tuple[Range, ...] = ()  # the least recently freed first
    node_ips: Mapping[str, NodeIps] = {}  # of hosts whose address comes from an interface
    removed: Tuple[str, ...] = ()  # hosts that were removed while the inventory had them; only the operator strikes one out, as a run may read a part of it


class Host(NamedTuple):
    """What the inventory says about one host; every value as it was written there."""

    name: str
    pod_cidrs: Any = None  # kindnet_pod_cidrs; None or empty: leave it to the ledger
    renamed_from: Any = None  # kindnet_renamed_from
    renumbered_from: Any = None  # kindnet_renumbered_from
    families: Sequence[int] = (4, 6)  # of its addresses: a block of another family could not be reached


class LedgerPlan(NamedTuple):
    """What every host of the inventory is to have, and the ledger after it."""

    pod_cidrs: Dict[str, Tuple[str, ...]]  # by inventory name, in the order of the hosts
    ledger: Optional[Ledger]  # None: there is none and none is needed, every host says its pod CIDRs itself
    given: Dict[str, Tuple[Range, ...]]  # the blocks that nobody had before this run
    plan: Plan  # a change per host whose entry changes


def plan_node_ips(
    ledger: Optional[Ledger], interfaces: Mapping[str, str], renamed_from: Mapping[str, Any], found: Mapping[str, Sequence[str]]
) -> Dict[str, NodeIps]:
    """The addresses of the hosts of ``interfaces``, as far as they are known: what the ledger has, else what was found now.

    :param interfaces: kindnet_node_interface by host.
    :param found: addresses that a host's interface has, the best one first, of the hosts that were asked. An address that the ledger has stays for
        as long as it is among them.
    """
    kept = ledger.node_ips if ledger else {}
    known: Dict[str, NodeIps] = {}
    for name, interface in interfaces.items():
        recorded = kept.get(name) or kept.get(str(renamed_from.get(name)))
        has = recorded.node_ips if recorded and recorded.interface == interface else ()
        if name in found:
            chosen: Dict[int, str] = {}
            for ip in [ip for ip in has if ip in found[name]] + list(found[name]):
                chosen.setdefault(family_of(ip), ip)
            has = tuple(chosen[family] for family in sorted(chosen))
        if has:
            known[name] = NodeIps(interface, has)
    return known


def plan_ledger(
    ledger: Optional[Ledger],
    hosts: Sequence[Host],
    cluster_cidrs: Sequence[str],
    mask_sizes: Optional[Mapping[int, Any]] = None,
    cluster_name: str = "kindnet",
    node_ips: Optional[Mapping[str, NodeIps]] = None,
) -> LedgerPlan:
    """Every host's pod CIDRs: those it holds, those it says itself, else the first free block of each family.

    :param ledger: None when there is none yet.
    :param hosts: those of the inventory group, in its order, which only decides who is served first.
    :param cluster_cidrs: where blocks are given from, filled in this order.
    :param mask_sizes: prefix length of a block, by family; what is not in it is as in kube-controller-manager.
    :param node_ips: of hosts whose address comes from an interface.

    Errors: one :class:`KindnetError` for the first thing that is wrong; nothing is given then. Costs O(n log n) in hosts and blocks, however
    many blocks the cluster CIDRs have room for.
    """
    clusters = [parse_cidr("kindnet_cluster_cidrs", c) for c in cluster_cidrs]
    explicit = {h.name: _explicit(h) for h in hosts}
    if len(explicit) != len(hosts):
        raise KindnetError("kindnet_nodes", shorten([h.name for h in hosts]), "lists a host twice", "Give each host once.")
    if ledger is None and all(explicit.values()) and not node_ips:
        return LedgerPlan({name: _texts(blocks) for name, blocks in explicit.items()}, None, {}, Plan())
    before = ledger or Ledger(cluster_name, {})
    refuse_other_cluster(before, cluster_name)
    _refuse_removed(before, explicit)

    reasons: Dict[str, List[str]] = {h.name: [] for h in hosts}
    held = dict(before.pod_cidrs)
    sources = _rename(hosts, explicit, held, reasons)
    dropped = _adopt_explicit(hosts, explicit, held, reasons)
    _disjoint(held, explicit)
    _inside_clusters(held, explicit, clusters)
    freed = _minus(before.freed + dropped, [b for blocks in held.values() for b in blocks])

    given, freed = _give(hosts, explicit, held, freed, clusters, {**MASK_SIZES, **(mask_sizes or {})})
    for name, blocks in given.items():
        held[name] = held.get(name, ()) + blocks
        reasons[name].append("given by the ledger")

    changes = []
    for host in hosts:
        source = sources.get(host.name, host.name)
        was = before.pod_cidrs.get(source, ())
        if source != host.name or was != held[host.name]:
            shown = ", ".join(_texts(was))
            changes.append(
                Change(
                    "pod CIDRs of %s in the ledger" % host.name,
                    "replace" if was else "add",
                    "%s: %s" % (source, shown) if source != host.name else shown,
                    ", ".join(_texts(held[host.name])),
                    "; ".join(reasons[host.name]),
                )
            )
    addresses = {n: a for n, a in before.node_ips.items() if n not in reasons and n not in sources.values()}
    addresses.update(node_ips or {})
    changes += _changed_addresses(before.node_ips, addresses, sources)
    after = Ledger(cluster_name, held, freed, addresses, before.removed)
    return LedgerPlan({h.name: _texts(held[h.name]) for h in hosts}, after, given, Plan(tuple(changes)))


def plan_free(ledger: Optional[Ledger], name: str, listed: bool = False) -> LedgerPlan:
    """The ledger without ``name``, whose blocks are then the last to be given again. A host that is not in it is no change.

    :param listed: the inventory still has the host. That is remembered, so that the next run does not take it for a new one.
    """
    if ledger is None:
        return LedgerPlan({}, None, {}, Plan())
    blocks = ledger.pod_cidrs.get(name, ())
    reason = "the node is removed"
    changes = []
    if name in ledger.pod_cidrs:
        changes.append(Change("pod CIDRs of %s in the ledger" % name, "remove", ", ".join(_texts(blocks)), "", reason))
    if name in ledger.node_ips:
        changes.append(Change("node IPs of %s in the ledger" % name, "remove", ", ".join(ledger.node_ips[name].node_ips), "", reason))
    removed = ledger.removed
    if listed and name not in removed:
        removed += (name,)
        changes.append(Change("removed hosts in the ledger", "add", "", name, "the inventory still has it"))
    after = ledger._replace(
        pod_cidrs={n: b for n, b in ledger.pod_cidrs.items() if n != name},
        freed=ledger.freed + blocks,
        node_ips={n: a for n, a in ledger.node_ips.items() if n != name},
        removed=removed,
    )
    return LedgerPlan({}, after, {}, Plan(tuple(changes)))


def refuse_fresh(
    planned: LedgerPlan,
    held: Mapping[str, Sequence[str]],
    path: str,
    before: Optional[Ledger] = None,
    own: Optional[Mapping[str, Sequence[str]]] = None,
) -> None:
    """Raise if what is about to be given is new to the ledger alone: nodes already hold blocks that it does not know.

    So a ledger that is missing, misplaced or older than the nodes never leads to a second allocation.

    :param held: pod CIDRs by host, as recorded on nodes: each one's own, or the whole table that any one of them has.
    :param before: the ledger as it was. A node that has not heard yet that a block was freed, or that its holder has another name, is no news.
    :param own: pod CIDRs that hosts have recorded under their own name. Who is given a block may have none, whoever the ledger says has it, unless
        it was freed.
    """
    freed = {b for ledger in (before, planned.ledger) if ledger for b in ledger.freed}
    known = set(freed)
    known.update(b for blocks in (before.pod_cidrs.values() if before else ()) for b in blocks)
    known.update(b for name, blocks in (planned.ledger.pod_cidrs.items() if planned.ledger else ()) for b in blocks if b not in planned.given.get(name, ()))
    given = {f: _Taken([b for blocks in planned.given.values() for b in blocks if b.family == f]) for f in BITS}
    lost = []
    for name, cidrs in held.items():
        recorded = [parse_cidr("recorded pod CIDR of %s" % name, c) for c in cidrs]
        news = [r for r in recorded if r not in known]
        mine = [parse_cidr("recorded pod CIDR of %s" % name, c) for c in (own or {}).get(name, ())]
        families = {r.family for r in (*news, *(r for r in mine if r not in freed))}  # a second family is no news of the first one
        if any(b.family in families for b in planned.given.get(name, ())) or any(given[r.family].over(r.first, r.last) for r in news):
            lost.append(name)
    if lost:
        names = ["%s (%s)" % (n, ", ".join(held[n])) for n in sorted(lost)]
        raise KindnetError(
            "kindnet_ledger",
            path,
            "does not know what nodes already hold: %s. It is missing, in another place, or older than they are" % shorten(names),
            "Bring back the ledger as it was last committed. If it is lost, write what each node holds as its kindnet_pod_cidrs and"
            " converge once: the ledger takes that over, and the lines can go again. If a node had another name, say kindnet_renamed_from."
            " If it was removed without being cleaned, and another one has its pod CIDRs by now, run playbooks/teardown.yml with --limit to it first.",
        )


def refuse_other_cluster(ledger: Ledger, cluster_name: str) -> None:
    """Raise if the ledger is that of another cluster."""
    if ledger.cluster_name != cluster_name:
        raise KindnetError(
            "kindnet_cluster_name",
            cluster_name,
            "the ledger is that of cluster %s" % ledger.cluster_name,
            "Correct kindnet_cluster_name, or give this cluster a ledger of its own with kindnet_ledger.",
        )


def first_overlap(owned: Iterable[Tuple[Range, str]]) -> Optional[Tuple[Tuple[Range, str], Tuple[Range, str]]]:
    """Two blocks that overlap, with their owners; None when all are disjoint."""
    blocks = sorted(owned)
    for one, other in zip(blocks, blocks[1:]):
        if one[0].family == other[0].family and other[0].first <= one[0].last:
            return one, other
    return None


def _refuse_removed(ledger: Ledger, names: Iterable[str]) -> None:
    listed = [n for n in names if n in ledger.removed]
    if listed:
        raise KindnetError(
            "kindnet_nodes",
            shorten(listed),
            "was taken out of the cluster with %s, and is in the inventory" % REMOVE,
            "Take it out of the inventory. If it shall join again, take its name out of removed_hosts in the ledger.",
        )


def _changed_addresses(before: Mapping[str, NodeIps], after: Mapping[str, NodeIps], sources: Mapping[str, str]) -> List[Change]:
    changes = []
    for name in sorted(set(before) | set(after)):
        was, now = before.get(sources.get(name, name)), after.get(name)
        if was != now and name not in sources.values():
            shown = ["%s: %s" % (entry.interface, ", ".join(entry.node_ips)) if entry else "" for entry in (was, now)]
            action = "replace" if was and now else "add" if now else "remove"
            reason = "read from the interface" if now else "kindnet_node_interface is not what says them any more"
            changes.append(Change("node IPs of %s in the ledger" % name, action, shown[0], shown[1], reason))
    return changes


def _explicit(host: Host) -> Tuple[Range, ...]:
    field = "kindnet_pod_cidrs of %s" % host.name
    return tuple(parse_cidr(field, c) for c in as_list(field, host.pod_cidrs))


def _rename(
    hosts: Sequence[Host], explicit: Mapping[str, Tuple[Range, ...]], held: Dict[str, Tuple[Range, ...]], reasons: Dict[str, List[str]]
) -> Dict[str, str]:
    """Move the entries of hosts that got another name. Returns the old name by the new one."""
    names = set(reasons)
    sources: Dict[str, str] = {}
    takers: Dict[str, str] = {}
    for host in hosts:
        old = host.renamed_from
        if not old:
            continue
        field = "kindnet_renamed_from of %s" % host.name
        if not isinstance(old, str):
            raise KindnetError(field, old, "is not a name", "Write the name that this host had in the inventory.")
        if host.name in held:
            if old in held and old not in names:
                has = ", ".join(_texts(held[host.name]))
                raise KindnetError(
                    field,
                    old,
                    "the ledger has both: %s holds %s, %s holds %s" % (host.name, has, old, ", ".join(_texts(held[old]))),
                    "If %s is still the host that holds %s, drop kindnet_renamed_from. If it is %s, and the other one left the inventory by its line alone,"
                    " call it %s again, free the block of the other with %s -e node=%s, and then rename it. Of several renames in a chain, converge one"
                    " after the other." % (host.name, has, old, old, REMOVE, host.name),
                )
            continue  # declared in an earlier run and left standing
        if old not in held:
            if explicit[host.name]:
                continue  # nothing is left to the ledger, nothing can go astray
            raise KindnetError(
                field, old, "the ledger has no host of this name", "Correct the name, or drop kindnet_renamed_from if this is a new host."
            )
        if old in names:
            raise KindnetError(
                field,
                old,
                "is still a host of the inventory, and holds %s" % ", ".join(_texts(held[old])),
                "Drop kindnet_renamed_from, or take the old name out of the inventory; of several renames in a chain, converge one after the other.",
            )
        if old in takers:
            raise KindnetError(
                field, old, "%s is declared as renamed from the same host" % takers[old], "Keep kindnet_renamed_from at the host that it really was."
            )
        takers[old] = host.name
        sources[host.name] = old
        reasons[host.name].append("renamed from %s" % old)
    for name, old in sources.items():
        held[name] = held.pop(old)
    return sources


def _adopt_explicit(
    hosts: Sequence[Host], explicit: Mapping[str, Tuple[Range, ...]], held: Dict[str, Tuple[Range, ...]], reasons: Dict[str, List[str]]
) -> Tuple[Range, ...]:
    """Enter what hosts say themselves. Returns the blocks that declared renumberings give up."""
    dropped: List[Range] = []
    for host in hosts:
        wanted, has = explicit[host.name], held.get(host.name, ())
        if not wanted or wanted == has:
            continue
        lost = [b for b in has if b not in wanted]
        field = "kindnet_renumbered_from of %s" % host.name
        declared = {parse_cidr(field, c) for c in as_list(field, host.renumbered_from)}
        if not declared.issuperset(lost):
            raise KindnetError(
                "kindnet_pod_cidrs of %s" % host.name,
                ", ".join(_texts(wanted)),
                "the host holds %s in the ledger, and its pods live there" % ", ".join(_texts(lost)),
                "Drop kindnet_pod_cidrs to keep it. To move the host on purpose, also set its kindnet_renumbered_from to what it holds.",
            )
        dropped.extend(lost)
        held[host.name] = wanted
        reasons[host.name].append("renumbered from %s" % ", ".join(_texts(lost)) if lost else "kindnet_pod_cidrs of this host")
    return tuple(dropped)


def _disjoint(held: Mapping[str, Tuple[Range, ...]], explicit: Mapping[str, Tuple[Range, ...]]) -> None:
    overlap = first_overlap((block, name) for name, blocks in held.items() for block in blocks)
    if not overlap:
        return
    # The ledger alone never overlaps, so at least one of the two is explicit.
    (block, name), (other, owner) = overlap if explicit.get(overlap[0][1]) else (overlap[1], overlap[0])
    if explicit.get(owner):
        problem = "overlaps %s, kindnet_pod_cidrs of %s" % (other.text, owner)
        remedy = "Give every host blocks of its own: correct one of the two."
    elif owner in explicit:
        problem = "overlaps %s, which the ledger gave to %s" % (other.text, owner)
        remedy = "Write another block for %s: %s keeps what it holds." % (name, owner)
    else:
        problem = "overlaps %s, which %s still holds in the ledger though it left the inventory" % (other.text, owner)
        remedy = "If %s is gone for good, %s -e node=%s frees it; else write another block for %s." % (owner, REMOVE, owner, name)
    raise KindnetError("kindnet_pod_cidrs of %s" % name, block.text, problem, remedy)


def _inside_clusters(held: Mapping[str, Tuple[Range, ...]], hosts: Iterable[str], clusters: Sequence[Range]) -> None:
    """Hosts that left the inventory are not looked at: their blocks are in nobody's way."""
    if not clusters:
        return
    outside = [
        "%s (%s)" % (block.text, name)
        for name in hosts
        for block in held.get(name, ())
        if not any(c.family == block.family and c.first <= block.first and block.last <= c.last for c in clusters)
    ]
    if outside:
        raise KindnetError(
            "kindnet_cluster_cidrs",
            ", ".join(c.text for c in clusters),
            "does not contain what hosts already have: %s" % shorten(outside),
            "Add the range to kindnet_cluster_cidrs: a cluster grows by further CIDRs, beside those in use.",
        )


def _give(
    hosts: Sequence[Host],
    explicit: Mapping[str, Tuple[Range, ...]],
    held: Mapping[str, Tuple[Range, ...]],
    freed: Tuple[Range, ...],
    clusters: Sequence[Range],
    mask_sizes: Mapping[int, Any],
) -> Tuple[Dict[str, Tuple[Range, ...]], Tuple[Range, ...]]:
    """A block of each family that a host can use and has none of. Returns the blocks by host, and what is then left of the freed ones."""
    families = list(dict.fromkeys(c.family for c in clusters))
    given: Dict[str, Tuple[Range, ...]] = {}
    without: Dict[str, None] = {}
    full = []
    for family in families:
        needy = [
            h.name for h in hosts if not explicit[h.name] and family in h.families and not any(b.family == family for b in held.get(h.name, ()))
        ]
        if not needy:
            continue
        prefix = _mask_size(family, mask_sizes, clusters)
        busy = [b for blocks in held.values() for b in blocks if b.family == family]
        blocks = _free_blocks([c for c in clusters if c.family == family], family, prefix, busy, [f for f in freed if f.family == family])
        for name in needy:
            block = next(blocks, None)
            if block is None:
                without[name] = None
                full.append(family)
            else:
                given[name] = given.get(name, ()) + (block,)
    if without:
        departed = sorted(set(held) - set(explicit))
        raise KindnetError(
            "kindnet_cluster_cidrs",
            ", ".join(c.text for c in clusters if c.family in full),
            "is full: %d %s without a pod CIDR: %s" % (len(without), "host is" if len(without) == 1 else "hosts are", shorten(list(without))),
            "Add a further CIDR to kindnet_cluster_cidrs%s."
            % ("; or free, with %s, blocks of hosts that are gone for good: %s" % (REMOVE, shorten(departed)) if departed else ""),
        )
    for host in hosts:
        if host.name not in given and not held.get(host.name):
            has = " and ".join("IPv%d" % f for f in sorted(host.families)) or "no"
            raise KindnetError(
                "kindnet_pod_cidrs of %s" % host.name,
                "none",
                "there is nothing to give one from: the host has %s addresses, kindnet_cluster_cidrs is %s"
                % (has, ", ".join(c.text for c in clusters) or "empty"),
                "Set kindnet_cluster_cidrs, such as ['10.244.0.0/16'], or kindnet_pod_cidrs of this host.",
            )
    return given, _minus(freed, [b for blocks in given.values() for b in blocks])


def _mask_size(family: int, mask_sizes: Mapping[int, Any], clusters: Sequence[Range]) -> int:
    option, value = MASK_OPTIONS[family], mask_sizes[family]
    text = str(value).strip()  # an INI inventory has strings
    prefix = int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else 0
    if not 1 <= prefix <= LONGEST_PREFIX[family]:
        remedy = "Write a number from 1 to %d, such as %d." % (LONGEST_PREFIX[family], MASK_SIZES[family])
        raise KindnetError(option, value, "is not the prefix length of a node's block", remedy)
    size = 1 << (BITS[family] - prefix)
    cidrs = [c for c in clusters if c.family == family]
    if all(c.last - c.first + 1 < size for c in cidrs):
        raise KindnetError(
            option,
            "/%d" % prefix,
            "is more than a whole cluster CIDR: %s" % ", ".join(c.text for c in cidrs),
            "Write a longer prefix length, or a larger kindnet_cluster_cidrs.",
        )
    return prefix


class _Taken:
    """Disjoint ranges of one family in which nothing may be given."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        pairs = sorted((r.first, r.last) for r in ranges)
        self._firsts = [first for first, _last in pairs]
        self._lasts = [last for _first, last in pairs]

    def over(self, first: int, last: int) -> Optional[Tuple[int, int]]:
        """A range that overlaps ``first`` to ``last``."""
        at = bisect_right(self._firsts, last) - 1
        if at < 0 or self._lasts[at] < first:
            return None
        return self._firsts[at], self._lasts[at]

    def add(self, first: int, last: int) -> None:
        at = bisect_right(self._firsts, first)
        self._firsts.insert(at, first)
        self._lasts.insert(at, last)

    def drop(self, first: int) -> None:
        at = bisect_right(self._firsts, first) - 1
        del self._firsts[at], self._lasts[at]


def _free_blocks(clusters: Sequence[Range], family: int, prefix: int, busy: Iterable[Range], freed: Sequence[Range]) -> Iterator[Range]:
    """Blocks that nobody holds: first those that nobody ever had, then freed ones, the least recently freed first.

    Steps from one taken range to the next, so a range that is nearly empty costs nothing.
    """
    size = 1 << (BITS[family] - prefix)
    taken = _Taken([*busy, *freed])

    def sweep(first: int, last: int) -> Iterator[Range]:
        at = -(-first // size) * size
        while at + size - 1 <= last:
            hit = taken.over(at, at + size - 1)
            if hit:
                # The highest one that overlaps: whatever lies below it within this block does not matter any more.
                at = (hit[1] // size + 1) * size
            else:
                taken.add(at, at + size - 1)
                yield _block(family, at, prefix)
                at += size

    for cluster in clusters:
        yield from sweep(cluster.first, cluster.last)
    for old in freed:
        # Until its turn has come a freed range is taken. A block over several of them is therefore as young as the youngest.
        taken.drop(old.first)
        first, last = old.first // size * size, old.last // size * size + size - 1
        for cluster in clusters:
            yield from sweep(max(first, cluster.first), min(last, cluster.last))


def _minus(ranges: Sequence[Range], others: Iterable[Range]) -> Tuple[Range, ...]:
    """``ranges`` without what ``others`` (disjoint) cover, as CIDRs, in the same order."""
    by_family: Dict[int, List[Range]] = {f: [] for f in BITS}
    for other in others:
        by_family[other.family].append(other)
    taken = {f: _Taken(rs) for f, rs in by_family.items()}

    def rest(part: Range) -> Iterator[Range]:
        hit = taken[part.family].over(part.first, part.last)
        if not hit:
            yield part
        elif not (hit[0] <= part.first and part.last <= hit[1]):
            middle = (part.first + part.last + 1) // 2
            prefix = BITS[part.family] - (part.last - part.first + 1).bit_length() + 2
            yield from rest(_block(part.family, part.first, prefix))
            yield from rest(_block(part.family, middle, prefix))

    return tuple(piece for r in ranges for piece in rest(r))


def _block(family: int, first: int, prefix: int) -> Range:
    address = IPv6Address(first) if family == 6 else IPv4Address(first)
    return parse_cidr("pod CIDR", "%s/%d" % (address, prefix))


def _texts(blocks: Iterable[Range]) -> Tuple[str, ...]:
    return tuple(b.text for b in blocks)
