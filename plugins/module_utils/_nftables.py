# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our own table of nf_tables: looked at and changed through nft, as data. The only code that does.

nft is told and tells in JSON (libnftables-json(5)), so no text is put together or taken apart. One process reads both families, however many rules others have;
where there is no table of ours it costs a system call.
"""

from __future__ import annotations

__metaclass__ = type

import json

from ._errors import Killed, KindnetError
from ._firewall import FOLDERS, SPARE_TIME, TABLES, find, nft_has, run
from ._plan_chain import NFT_PLACE
from ._plan_chain import NFT_TABLE as TABLE
from ._plan_table import BASE_CHAIN, REMOVABLE, SUBJECT, Table, interval_of, merged, spell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, Optional, Tuple

    from ._firewall import Result
    from ._plan_table import Interval, Op, Rule

FAMILY = NFT_PLACE.family
IPTABLES = ("ip", "ip6")  # families of iptables-nft
TYPES = {"ipv4": "ipv4_addr", "ipv6": "ipv6_addr"}
SPECIAL = {"timeout", "gc-interval", "size", "map", "stmt"}  # what makes a set another one than ours; newer versions of nft may print more
REFUSED = "the transaction was refused, the table is as it was"
INSTALL = "Install the package nftables, or use the role kindnet.host.prerequisites; or take another backend (of the roles: kindnet_masq_backend)."


def require() -> None:
    """Raise unless nft is installed."""
    _path()


def installed() -> bool:
    return bool(find("nft"))


def has_table() -> bool:
    """Whether there is a table of our name. No process."""
    return nft_has(FAMILY, TABLE)


def read(chain: str) -> Optional[Table]:
    """Our table, or None. One process, and none without a table."""
    if not has_table():
        return None
    result = _nft(["--json", "list", "table", FAMILY, TABLE])
    if result.status:
        if not has_table():  # somebody deleted it since
            return None
        _raise(result, "listing it failed")
    try:
        return table_of(json.loads(result.out, strict=False)["nftables"], chain)
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise KindnetError(
            SUBJECT, repr(result.out[:200]), "nft printed something else than this table (%s)" % e, "Run 'nft -j list table inet %s'." % TABLE
        )


def read_counted(chain: str) -> Optional[List[Tuple[str, Rule, int, int]]]:
    """Each rule of our table: the chain it is in, its words, the packets and the bytes that it has counted. None without ``chain`` in it. One process."""
    if not nft_has(FAMILY, TABLE, chain):
        return None
    found = []
    for item in _objects(["list", "table", FAMILY, TABLE]):
        if "rule" in item:
            data = item["rule"]
            # One with a name, which others may use, too, counts elsewhere.
            counter: Dict[str, Any] = next((one["counter"] for one in data["expr"] if isinstance(one, dict) and isinstance(one.get("counter"), dict)), {})
            found.append((data["chain"], rule_of(data), int(counter.get("packets", 0)), int(counter.get("bytes", 0))))
    return found


def commit(op: Op) -> None:
    """Make all of ``op``, or nothing that a packet could notice. One transaction of the kernel, and one before it for sets that no rule asks yet."""
    if op.ahead:
        _fill_ahead(op)
    result = _tell(commands(op))
    if result.status and op.sets:
        result = _tell(commands(op._replace(sets={})))  # somebody has had elements come or go since
    if result.status:
        _raise(result, REFUSED + ("" if _has_taken_back(op) else ", but for the elements of sets that no rule asks"))


def _fill_ahead(op: Op) -> None:
    try:
        result = _tell(sets_ahead(op))
    except Killed as e:
        if not _has_ahead(op):
            raise e
    else:
        if result.status:
            _raise(result, REFUSED)


def _has_ahead(op: Op) -> bool:
    try:
        found = read(op.table.chain) if op.table else None
    except KindnetError:
        return False
    return found is not None and all(found.sets.get(name) == wanted for name, wanted in _ahead(op).items())


def _has_taken_back(op: Op) -> bool:
    """Whether all is as it was before the sets that came ahead. Those that were made are deleted, unless a rule asks one of them by now."""
    new = [name for name in op.ahead if name not in op.sets]
    try:
        return not (new and _tell(without(new, whole=not op.parts)).status) and len(new) == len(op.ahead)
    except KindnetError:
        return False


def _tell(told: Iterable[Dict[str, Any]]) -> Result:
    return _nft(["--json", "--file", "-"], json.dumps({"nftables": list(told)}).encode())


def sets_ahead(op: Op) -> Iterable[Dict[str, Any]]:
    """What nft is told first."""
    yield _command("add", "table", name=TABLE)
    for name, wanted in _ahead(op).items():
        yield from _fill_set(name, wanted)


def _ahead(op: Op) -> Dict[str, Tuple[Interval, ...]]:
    return {name: op.table.sets[name] for name in op.ahead} if op.table else {}


def without(sets: Iterable[str], whole: bool) -> Iterable[Dict[str, Any]]:
    for name in sets:
        yield _command("delete", "set", table=TABLE, name=name)
    if whole:
        yield _command("delete", "table", name=TABLE)


def commands(op: Op) -> Iterable[Dict[str, Any]]:
    """What nft is told. A table is added before it is deleted, so that it does not matter whether it is there."""
    table = op.table
    yield _command("add", "table", name=TABLE)
    if table is None or not op.parts + op.unwanted + op.ahead:
        yield _command("delete", "table", name=TABLE)
    if table is None:
        return
    yield _command("add", "table", name=TABLE)
    yield _command("add", "chain", table=TABLE, name=table.chain)
    if op.rebased:
        yield _command("flush", "chain", table=TABLE, name=BASE_CHAIN)
        yield _command("delete", "chain", table=TABLE, name=BASE_CHAIN)
    kind, hook, priority, policy = table.base.split()
    yield _command("add", "chain", table=TABLE, name=BASE_CHAIN, type=kind, hook=hook, prio=int(priority), policy=policy)
    parts = op.parts + op.unwanted or (*table.sets, table.chain, BASE_CHAIN)
    for name in table.sets:
        if name in parts and name not in op.ahead:
            yield from _fill_set(name, table.sets[name], op.sets.get(name))
    for name, rules in ((table.chain, table.rules or ()), (BASE_CHAIN, table.entry)):
        if name in parts:
            yield from _fill_chain(name, rules)
    yield from _take_out(op.unwanted)


def _take_out(unwanted: Iterable[str]) -> Iterable[Dict[str, Any]]:
    """Rules before what they ask or lead to."""
    things = [tuple(thing.split(" ", 1)) for thing in unwanted]
    for kind, name in things:
        if kind == "chain":
            yield _command("flush", kind, table=TABLE, name=name)
    for kind, name in sorted(things, key=lambda thing: REMOVABLE.index(thing[0])):
        yield _command("delete", kind, table=TABLE, name=name)


def _fill_set(name: str, wanted: Tuple[Interval, ...], found: Optional[Tuple[Interval, ...]] = None) -> Iterable[Dict[str, Any]]:
    """Anew, or of one that is in use, and is known, what differs."""
    if found is None:
        yield _command("add", "set", table=TABLE, name=name, type=TYPES[name[-4:]], flags=["interval"])
        yield _command("flush", "set", table=TABLE, name=name)
    had, wants = set(found or ()), set(wanted)
    for verb, intervals in (("delete", had - wants), ("add", wants - had)):
        if intervals:
            yield _command(verb, "element", table=TABLE, name=name, elem=[element(name, interval) for interval in sorted(intervals)])


def _fill_chain(name: str, rules: Tuple[Rule, ...]) -> Iterable[Dict[str, Any]]:
    yield _command("flush", "chain", table=TABLE, name=name)
    for rule in rules:
        remark = rule[-1][len('comment "') : -1]
        yield _command("add", "rule", table=TABLE, chain=name, expr=[statement(words) for words in rule[:-1]], comment=remark)


def statement(words: str) -> Dict[str, Any]:
    """A statement of a rule of ours, as libnftables-json has it."""
    first, *rest = words.split()
    if first in ("ip", "ip6"):
        return {"match": {"op": "==", "left": {"payload": {"protocol": first, "field": rest[0]}}, "right": rest[1]}}
    if first == "meta":
        return {"match": {"op": "==", "left": {"meta": {"key": rest[0]}}, "right": rest[1]}}
    if first == "fib":
        return {"match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": rest[3]}}
    if first == "jump":
        return {"jump": {"target": rest[0]}}
    return {first: {"flags": rest} if rest else None}


def element(name: str, interval: Interval) -> Any:
    text = spell(name, interval)
    if "-" in text:
        return {"range": text.split("-")}
    address, _unused, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}} if length else address


def table_of(objects: List[Dict[str, Any]], chain: str) -> Table:
    """The table out of what nft prints of it."""
    base, has_chain = "", False
    rules: Dict[str, List[Rule]] = {chain: [], BASE_CHAIN: []}
    sets: Dict[str, Tuple[Interval, ...]] = {}
    strangers: List[str] = []
    if not any(_kind_of(item) == "table" for item in objects):
        raise KeyError("table")
    for item in objects:
        kind = _kind_of(item)
        data = item[kind]
        if kind in ("metainfo", "table"):
            if "flags" in data:
                strangers.append("a flag such as dormant")  # which one is not to be had: nft 1.0 prints memory of somebody else's there
        elif kind == "chain" and data["name"] == BASE_CHAIN and "hook" in data:
            base = "%s %s %s %s" % (data.get("type"), data["hook"], data.get("prio"), data.get("policy"))
        elif kind == "chain" and data["name"] == chain and "hook" not in data:
            has_chain = True
        elif kind == "rule" and data["chain"] in rules:
            rules[data["chain"]].append(rule_of(data))
        elif kind == "set" and _is_like_ours(data):
            sets[data["name"]] = tuple(_interval(one) for one in data.get("elem", ()))
        elif kind != "rule":  # its chain is named already
            strangers.append("%s %s" % (kind, data.get("name", "")))
    merged_sets = {name: merged(intervals) for name, intervals in sets.items()}
    return Table(base, tuple(rules[BASE_CHAIN]), chain, tuple(rules[chain]) if has_chain else None, merged_sets, tuple(strangers), sets)


def rule_of(data: Dict[str, Any]) -> Rule:
    words = tuple(words_of(one) for one in data["expr"])
    return (*words, 'comment "%s"' % data["comment"]) if "comment" in data else words


def words_of(one: Any) -> str:
    """A statement in nft's words where it is one that we know, else as nft gave it."""
    if isinstance(one, str):
        return one  # nft has no JSON for it
    kind = _kind_of(one)
    data = one[kind]
    if kind == "counter" and not isinstance(data, str):  # the name of one that others may use, too
        return "counter"  # whatever it has counted
    if kind == "match" and isinstance(data["right"], str):
        left = data["left"]
        what = _kind_of(left)
        equal = "" if data["op"] == "==" else data["op"] + " "
        if what == "payload" and "field" in left[what]:
            return "%s %s %s%s" % (left[what]["protocol"], left[what]["field"], equal, data["right"])
        if what == "meta":
            return "meta %s %s%s" % (left[what]["key"], equal, data["right"])
        if what == "fib":
            return "fib %s %s %s%s" % (" . ".join(_list(left[what]["flags"])), left[what]["result"], equal, data["right"])
    if kind in ("jump", "goto"):
        return "%s %s" % (kind, data["target"])
    if data is None:
        return kind
    if isinstance(data, dict) and list(data) == ["flags"]:
        return " ".join([kind] + _list(data["flags"]))
    return json.dumps(one, sort_keys=True)


def count_others() -> int:
    """How many rules others have in native nat chains: those of base chains that iptables-nft did not make. Two processes and more."""
    chains = _native_nat_chains()
    return sum("rule" in one for family, table, chain in chains for one in _objects(["list", "chain", family, table, chain]))


def nat_ruleset(with_own: bool = False) -> Dict[str, Any]:
    """What ``nft -j list ruleset`` would tell of tables in which others have native nat chains. Two processes and more."""
    tables = dict.fromkeys((family, table) for family, table, _chain in _native_nat_chains())
    if with_own and installed() and has_table():
        tables[FAMILY, TABLE] = None
    return {"nftables": [one for family, table in tables for one in _table(family, table)]}


def _table(family: str, table: str) -> List[Dict[str, Any]]:
    try:
        return _objects(["list", "table", family, table])
    except ValueError:
        # nft 1.0.6 takes the flags of a table that a process owns from memory it has freed, and may stop there. Asked for chains and sets, it tells none.
        sets = [one for one in _objects(["list", "sets", family]) if one.get("set", {}).get("table") == table]
        chains = [one["chain"]["name"] for one in _objects(["list", "chains", family]) if one.get("chain", {}).get("table") == table]
        return sets + [one for chain in chains for one in _objects(["list", "chain", family, table, chain])]


def _native_nat_chains() -> List[Tuple[str, str, str]]:
    """Family, table and name of each base chain of type nat that neither we nor iptables-nft made."""
    if not installed():
        return []
    chains = [item["chain"] for item in _objects(["list", "chains"]) if item.get("chain", {}).get("type") == "nat"]
    return [
        (chain["family"], chain["table"], chain["name"])
        for chain in chains
        if (chain["family"], chain["table"]) != (FAMILY, TABLE) and not (chain["family"] in IPTABLES and chain["table"] in TABLES and chain["name"].isupper())
    ]


def _objects(arguments: List[str]) -> List[Dict[str, Any]]:
    result = _nft(["--json", *arguments])
    if result.status:
        _raise(result, "'nft %s' failed" % " ".join(arguments))
    objects: List[Dict[str, Any]] = json.loads(result.out, strict=False)["nftables"]
    return objects


def _is_like_ours(data: Dict[str, Any]) -> bool:
    """Whether a set is of the kind of ours. One with a timeout would forget."""
    return not (SPECIAL & set(data)) and _list(data.get("flags")) == ["interval"] and data["type"] == TYPES.get(data["name"][-4:])


def _interval(one: Any) -> Interval:
    if isinstance(one, str):
        return interval_of(one)
    if "elem" in one:
        return _interval(one["elem"]["val"])
    if "range" in one:
        first, last = one["range"]
        return interval_of(first)[0], interval_of(last)[1]
    return interval_of("%s/%d" % (one["prefix"]["addr"], one["prefix"]["len"]))


def _kind_of(one: Dict[str, Any]) -> str:
    return next(iter(one))


def _list(flags: Any) -> List[str]:
    """Flags as a list; nft prints a single one as it is, in some versions."""
    return [] if flags is None else [flags] if isinstance(flags, str) else list(flags)


def _command(verb: str, kind: str, **data: Any) -> Dict[str, Any]:
    return {verb: {kind: dict(data, family=FAMILY)}}


def _path() -> str:
    path = find("nft")
    if not path:
        raise KindnetError("nftables", "nft", "is not installed, or not in %s" % ", ".join(FOLDERS), INSTALL)
    return path


def _nft(arguments: List[str], stdin: bytes = b"") -> Result:
    return run([_path(), *arguments], stdin, SPARE_TIME)


def _raise(result: Result, what: str) -> None:
    said = "; ".join(line.strip() for line in result.err.splitlines() if line.strip().strip("^")) or "status %d" % result.status
    if "Operation not permitted" in said or "Permission denied" in said:
        raise KindnetError("nft", said, "may not look at or change %s" % SUBJECT, "Run as root (become: true), with CAP_NET_ADMIN.")
    if "JSON support not compiled-in" in said:
        raise KindnetError("nft", said, "this nft cannot do JSON", "Install one that can (every distribution's does), or take another backend.")
    raise KindnetError(
        SUBJECT, said, what, "Look with 'nft list table inet %s'. Needed of the kernel: inet nat (5.2 or newer), fib, masquerade." % TABLE
    )
