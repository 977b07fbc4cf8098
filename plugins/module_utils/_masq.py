# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern ``masq``: pods reach the world with the node's address, and each other with their own."""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from ._errors import Killed, KindnetError
from ._firewall import BACKENDS, nft_has
from ._plan import Plan, Problem
from ._plan_chain import (
    FAMILIES,
    FLAVOURS,
    LAST,
    NFT_PLACE,
    NFT_TABLE,
    Masquerading,
    Place,
    chain_subject,
    command,
    family_of,
    is_ours,
    leads_to,
    plan_chain,
    plan_removal,
    shown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

    from ._converge import Section
    from ._plan import Change
    from ._plan_chain import Found
    from ._plan_table import Table

    Look = Union[Found, Optional[Table], KindnetError]

    class Actual(NamedTuple):
        """What the nat tables hold of ours, or why one could not be read."""

        wanted: Tuple[Tuple[Place, Look], ...]  # one per family in use; of nftables, one for both
        leftovers: Tuple[Tuple[Place, str, Look], ...]  # places where a chain of ours may still be, and must not
        survey: Optional[Survey] = None  # of a converge

    class Survey(NamedTuple):
        """The rules of others."""

        why: str  # this backend
        shadows: List[str]  # rules in the way of ours
        notes: List[str]
else:
    Actual = namedtuple("Actual", "wanted leftovers survey", defaults=(None,))
    Survey = namedtuple("Survey", "why shadows notes")

SECTION = "masq"
KNOWN_BY_RECORD = True  # a chain of this name may be kindnetd's

NFTABLES = "nftables"
NAMES = tuple("iptables-%s" % flavour for flavour in FLAVOURS) + (NFTABLES,)  # of the backends
LINK_LOCAL = {"ipv4": ("masquerade_link_local", "169.254.0.0/16"), "ipv6": ("masquerade_link_local_ipv6", "fe80::/10")}


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """The section: ``cluster_cidrs`` in the order given, ``chain``, ``backend`` (decided), ``auto`` if it was not given, ``lock_wait``, of the
    other options those that are not as kindnetd has it, and ``former``, the backends and names under which our chain is to be found
    no more, if there are any. A pass clears those too, so a converge that was killed between recording a new name
    and dropping the old chain leaves nothing behind.
    """
    from . import _masq_options

    lock_wait = _masq_options.lock_wait(params["lock_wait"])
    former = [tuple(place) for place in (recorded or {}).get("former", ())]
    if recorded:
        former.append((recorded["backend"], recorded["chain"]))
    asked = params["backend"]
    if params["state"] == "absent":
        chain = _masq_options.chain_name(params["chain"])
        former += [(backend, chain) for backend in (NAMES if asked == "auto" else (asked,))]
        return {"state": "absent", "former": _distinct(former), "lock_wait": lock_wait}
    section = _masq_options.canonical(params)
    chain = section["chain"]
    holders = [backend for backend in NAMES if _holds(backend, chain, lock_wait)]
    if asked == "auto":
        section["auto"] = True
        section["backend"] = _backend_of_auto(chain, holders, recorded, bool(params["tools_predicted"]))
    else:
        section["backend"] = asked
    known = recorded["backend"] if recorded and recorded["chain"] == chain else None
    for holder in holders:
        if holder != NFTABLES and (known is None or known != holder == section["backend"]):
            _refuse_chain_of_others(holder, chain, lock_wait)
    if section["backend"] == NFTABLES:
        _masq_options.refuse_for_nftables(section)
        if NFTABLES not in holders:
            _refuse_table_of_others(chain)
    if not params["tools_predicted"]:
        _require(section)
    former += [(holder, chain) for holder in holders]
    left = [place for place in _distinct(former) if place != [section["backend"], chain]]
    if left:
        section["former"] = left
    return section


def _backend_of_auto(chain: str, holders: Sequence[str], recorded: Optional[Section], tools_predicted: bool) -> str:
    """Where the chain is, or was by the record, so that a host does not go back and forth with the rules of others, which after a boot may
    come later than we do; else where those are."""
    if recorded:
        backend: str = recorded["backend"]
        if backend in holders or (not holders and (_is_installed(backend) or (tools_predicted and backend != NFTABLES))):
            return backend
    if len(holders) == 1:
        return holders[0]
    from ._masq_backend import backend_today

    return backend_today([chain], tools_predicted).backend


def _is_installed(backend: str) -> bool:
    if backend != NFTABLES:
        return all(BACKENDS[_flavour(backend)].installed(family) for family in FAMILIES)
    from . import _nftables

    return _nftables.installed()


def _holds(backend: str, chain: str, lock_wait: int) -> bool:
    """Whether our chain is in a backend. Any iptables chain of the name counts; a table of nftables only if it is ours."""
    if backend != NFTABLES:
        return any(BACKENDS[_flavour(backend)].has_chain(family, chain, lock_wait) for family in FAMILIES)
    from . import _nftables, _plan_table

    return _nftables.has_table() and _nftables.installed() and _plan_table.is_ours(_nftables.read(chain))


def _require(section: Section) -> None:
    if section["backend"] == NFTABLES:
        from . import _nftables

        _nftables.require()
        return
    for family in _families(section):
        BACKENDS[_flavour(section["backend"])].require(family)


def _flavour(backend: str) -> str:
    return backend[len("iptables-"):]


def _refuse_table_of_others(chain: str) -> None:
    from . import _nftables, _plan_table

    if not (_nftables.installed() and _nftables.has_table()):
        return
    found = _nftables.read(chain)
    if found is not None and not _plan_table.is_ours(found):
        raise KindnetError(
            "backend",
            NFTABLES,
            "needs a table inet %s of its own, and there is one of somebody else's: %s; nothing was changed"
            % (NFT_TABLE, _plan_table.described(found)),
            "See 'nft list table inet %s'; delete it if it is a leftover, or take another backend." % NFT_TABLE,
        )


def _refuse_chain_of_others(backend: str, chain: str, lock_wait: int) -> None:
    """Raise if a chain that nobody recorded is not ours, nor kindnetd's."""
    flavour = _flavour(backend)
    for family in FAMILIES:
        found = BACKENDS[flavour].read_for_removal(family, chain, lock_wait)
        if is_ours(chain, found):
            continue
        jumps = ["-A POSTROUTING %s" % rule for rule in found.postrouting if leads_to(rule, chain)]
        rules = ["-A %s %s" % (chain, rule) for rule in found.rules or ()] + list(found.references) + jumps
        raise KindnetError(
            "chain",
            repr(chain),
            "is a chain of somebody else's: %s -t nat %s; nothing was changed" % (command(Place(flavour, family)), shown(rules[0])),
            "Write a name that nobody has, such as KIND-MASQ-AGENT; if the chain is a leftover, delete its rules first.",
        )


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """Two processes per family in use, of nftables one for both, where there is anything to read at all.

    What cannot be read does not keep the rest from being repaired or taken out. If nothing can, that is the failure.
    """
    wanted = [(place, _look(place, section["chain"], section["lock_wait"], False)) for place in _wanted_places(section)]
    leftovers = [(place, chain, _look(place, chain, section["lock_wait"], True)) for place, chain in _places_to_clear(section)]
    looks = [found for _unused, found in wanted] or [found for _unused, _unused2, found in leftovers]  # none is wanted of state "absent"
    errors = [found for found in looks if isinstance(found, KindnetError)]
    if errors and len(errors) == len(looks):
        raise errors[0]
    return Actual(tuple(wanted), tuple(leftovers), None if recorded is None or not _wanted_places(section) else _survey(section))


def _look(place: Place, chain: str, lock_wait: int, for_removal: bool) -> Look:
    try:
        if place != NFT_PLACE:
            backend = BACKENDS[place.flavour]
            return (backend.read_for_removal if for_removal else backend.read)(place.family, chain, lock_wait)
        if not nft_has(NFT_PLACE.family, NFT_TABLE):
            return None
        from . import _nftables

        return _nftables.read(chain)
    except KindnetError as e:
        return e


def _survey(section: Section) -> Survey:
    """What a converge tells of the rules of others; none of it is a reason to fail."""
    from . import _masq_backend, _masq_shadow

    why = ""
    notes: List[str] = []
    shadows: List[str] = []
    try:
        why, notes = _masq_backend.reason(section)
        shadows = _masq_shadow.shadowed_by(section, {family: masquerading(section, family) for family in _families(section)})
    except KindnetError as e:
        notes.append("the rules of others cannot be read: %s" % e)
    notes += ["shadowed by %s" % line for line in shadows]
    return Survey(why, shadows, notes)


def notes_of(section: Section) -> List[str]:
    """What somebody who asks about a converged host should know beside what a pass sees."""
    return _survey(section).notes


def plan(section: Section, actual: Actual) -> Plan:
    changes: List[Change] = []
    problems: List[Problem] = []
    notes: List[str] = list(actual.survey.notes) if actual.survey else []
    details: Dict[str, Any] = {"backend_reason": actual.survey.why, "shadowed_by": actual.survey.shadows} if actual.survey else {}
    for place, found in actual.wanted:
        if isinstance(found, KindnetError):
            problems.append(Problem("%s nat" % command(place), str(found)))
            continue
        part = _plan_wanted(section, place, found)
        changes += part.changes
        details[place.family] = _detail(place, section["chain"], found, part)
    for place, chain, found in actual.leftovers:
        if isinstance(found, KindnetError):
            problems.append(Problem(_subject(place, chain), str(found)))
            continue
        if not _is_ours(place, chain, found):
            notes.append("%s is somebody else's by now, and stays" % _subject(place, chain))
            continue
        part = _plan_leftover(section, place, chain, found)
        changes += part.changes
        problems += part.problems
    return Plan(tuple(changes), tuple(problems), tuple(notes), details)


def _plan_wanted(section: Section, place: Place, found: Any) -> Plan:
    position = section.get("jump_position", LAST)
    if place != NFT_PLACE:
        return plan_chain(place, section["chain"], masquerading(section, place.family), found, position)
    from ._plan_table import plan_table, wanted_table

    return plan_table(wanted_table(section["chain"], {family: masquerading(section, family) for family in _families(section)}, position), found)


def _plan_leftover(section: Section, place: Place, chain: str, found: Any) -> Plan:
    if section.get("state") == "absent":
        reason = "state is absent"
    elif [_backend_of(place), chain] == [section["backend"], section["chain"]]:
        reason = "no cluster CIDR is %s" % {"ipv4": "IPv4", "ipv6": "IPv6"}[place.family]
    else:
        reason = "the chain is now %s by %s" % (section["chain"], section["backend"])
    if place != NFT_PLACE:
        return plan_removal(place, chain, found, reason)
    from ._plan_table import plan_table_removal

    return plan_table_removal(found, reason)


def _is_ours(place: Place, chain: str, found: Any) -> bool:
    if place != NFT_PLACE:
        return is_ours(chain, found)
    if found is None:
        return True
    from . import _plan_table

    return _plan_table.is_ours(found)


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """One transaction per nat table (two where a set of nftables is new), what is wanted before what is to go.

    A family whose new chain failed keeps its old one.
    """
    by_place: Dict[Place, List[Change]] = {}
    for change in plan.changes:
        by_place.setdefault(change.op.place, []).append(change)
    wanted = _wanted_places(section)
    failed = {family for place in wanted if place.family not in plan.details for family in _families_of(place)}
    problems = []
    for place, changes in by_place.items():
        if place not in wanted and failed.intersection(_families_of(place)):
            message = "left as it is, since what replaces it is not in place"
            problems += [Problem(change.subject, message) for change in changes]
            continue
        try:
            _commit(place, changes, section["lock_wait"])
        except KindnetError as e:
            if isinstance(e, Killed) and _is_done(section, place):
                continue
            failed.update(_families_of(place))
            problems.append(Problem(changes[0].subject, str(e)))
            problems += [Problem(change.subject, "failed with it, it was the same transaction") for change in changes[1:]]
    return tuple(problems)


def _is_done(section: Section, place: Place) -> bool:
    """Whether nothing is left to do there, as far as can be seen."""
    wait = section["lock_wait"]
    wanted = tuple((place, _look(place, section["chain"], wait, False)) for one in _wanted_places(section) if one == place)
    leftovers = tuple((place, chain, _look(place, chain, wait, True)) for one, chain in _places_to_clear(section) if one == place)
    left = plan(section, Actual(wanted, leftovers, None))
    return not left.problems + left.changes


def _commit(place: Place, changes: Sequence[Change], lock_wait: int) -> None:
    if place != NFT_PLACE:
        edits = [edit for change in changes for edit in change.op.edits]
        BACKENDS[place.flavour].commit(place.family, edits, lock_wait)
        return
    from . import _nftables

    for change in changes:  # of a table there is one
        _nftables.commit(change.op)


def masquerading(section: Section, family: str) -> Masquerading:
    """What the section says of one family."""

    def of_family(field: str) -> Tuple[str, ...]:
        return tuple(cidr for cidr in section.get(field, ()) if family_of(cidr) == family)

    option, link_local = LINK_LOCAL[family]
    spared = of_family("cluster_cidrs") + of_family("non_masquerade_cidrs")
    if not section.get(option, True):
        spared += (link_local,)
    return Masquerading(
        tuple(dict.fromkeys(spared)), of_family("masquerade_cidrs"), of_family("source_cidrs"), bool(section.get("random_fully"))
    )


def _detail(place: Place, chain: str, found: Any, part: Plan) -> Dict[str, Any]:
    if place == NFT_PLACE:
        from . import _plan_table

        rules = [] if found is None else [_plan_table.shown(rule) for rule in found.entry + (found.rules or ())]
        sets = {} if found is None else {name: [_plan_table.spell(name, one) for one in found.sets[name]] for name in found.sets}
        return {"command": command(place), "rules": rules, "sets": sets, "table": part.changes[0].reason if part.changes else "right"}
    reasons = {change.subject: change.reason for change in part.changes}
    return {
        "command": command(place),
        "rules": [shown(rule) for rule in found.rules or ()],
        "chain": reasons.get(chain_subject(place, chain), "right"),
        "jump": next((reason for subject, reason in reasons.items() if subject != chain_subject(place, chain)), "right"),
    }


def _subject(place: Place, chain: str) -> str:
    return "nft table inet %s" % NFT_TABLE if place == NFT_PLACE else chain_subject(place, chain)


def _families(section: Section) -> List[str]:
    return [family for family in FAMILIES if any(family_of(cidr) == family for cidr in section.get("cluster_cidrs", ()))]


def _families_of(place: Place) -> Sequence[str]:
    return FAMILIES if place == NFT_PLACE else (place.family,)


def _backend_of(place: Place) -> str:
    return NFTABLES if place == NFT_PLACE else "iptables-%s" % place.flavour


def _places_of(backend: str, families: Sequence[str]) -> List[Place]:
    return [NFT_PLACE] if backend == NFTABLES else [Place(_flavour(backend), family) for family in families]


def _wanted_places(section: Section) -> List[Place]:
    return _places_of(section["backend"], _families(section)) if "backend" in section else []


def _places_to_clear(section: Section) -> List[Tuple[Place, str]]:
    """Where a chain of ours may be and must not: former names and backends, and a family without a cluster CIDR."""
    places = []
    if section.get("backend", NFTABLES) != NFTABLES:
        used = _families(section)
        places += [(place, section["chain"]) for place in _places_of(section["backend"], [f for f in FAMILIES if f not in used])]
    for backend, chain in section.get("former", ()):
        if backend != NFTABLES or section.get("backend") != NFTABLES:  # our table of another chain is the wanted one, laid anew
            places += [(place, chain) for place in _places_of(backend, FAMILIES)]
    return places


def _distinct(places: Sequence[Any]) -> List[List[str]]:
    """Each once, as lists, in the form that JSON gives back."""
    return [list(place) for place in dict.fromkeys(tuple(place) for place in places)]
