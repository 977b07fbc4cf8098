# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern ``masq``: pods reach the world with the node's address, and each other with their own."""

from __future__ import annotations

__metaclass__ = type

import re
from collections import namedtuple

from ._errors import KindnetError
from ._firewall import BACKENDS, default_flavour
from ._plan import Plan, Problem
from ._plan_chain import FAMILIES, FLAVOURS, Place, chain_subject, command, family_of, is_ours, leads_to, plan_chain, plan_removal, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

    from ._converge import Section
    from ._plan import Change
    from ._plan_chain import Found

    class Actual(NamedTuple):
        """What the nat tables hold of ours, or why one could not be read."""

        wanted: Tuple[Tuple[Place, Union[Found, KindnetError]], ...]  # one per family in use
        leftovers: Tuple[Tuple[Place, str, Union[Found, KindnetError]], ...]  # places where a chain of ours may still be, and must not
else:
    Actual = namedtuple("Actual", "wanted leftovers")

SECTION = "masq"
KNOWN_BY_RECORD = True  # a chain of this name may be kindnetd's

LONGEST_LOCK_WAIT = 60
LONGEST_CHAIN = 28  # XT_EXTENSION_MAXNAMELEN of the kernel, less its NUL
CHAIN = re.compile(r"[A-Za-z0-9_.:+][A-Za-z0-9_.:+-]*")

# Names that a rule takes for something else than a chain: built-in chains, verdicts and targets. A target's extension would win over a
# chain of its name, so a jump to that chain would not even be one.
RESERVED = frozenset((
    "INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING", "BROUTING", "ACCEPT", "DROP", "QUEUE", "RETURN", "CONTINUE", "ERROR",
    "standard", "AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNMARK", "CONNSECMARK", "CT", "DNAT", "DNPT", "DSCP", "ECN", "HL",
    "HMARK", "IDLETIMER", "LED", "LOG", "MARK", "MASQUERADE", "MIRROR", "NETMAP", "NFLOG", "NFQUEUE", "NOTRACK", "RATEEST", "REDIRECT",
    "REJECT", "SAME", "SECMARK", "SET", "SNAT", "SNPT", "SYNPROXY", "TARPIT", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TPROXY", "TRACE",
    "TTL", "ULOG",
))


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """The section: ``cluster_cidrs`` in the order given, ``chain``, ``flavour`` (decided), ``lock_wait``, and ``former``, the flavours and names
    under which our chain is to be found no more, if there are any. A pass clears those too, so a converge that
    was killed between recording a new name and dropping the old chain leaves nothing behind.
    """
    chain = _chain_name(params["chain"])
    lock_wait = params["lock_wait"]
    if not 1 <= lock_wait <= LONGEST_LOCK_WAIT:
        raise KindnetError(
            "lock_wait", lock_wait, "is not between 1 and %d seconds" % LONGEST_LOCK_WAIT, "A pass every 10 s tries again anyway; write 5."
        )
    former = [tuple(place) for place in (recorded or {}).get("former", ())]
    if recorded:
        former.append((recorded["flavour"], recorded["chain"]))
    if params["state"] == "absent":
        flavours = FLAVOURS if params["flavour"] == "auto" else (params["flavour"],)
        former += [(flavour, chain) for flavour in flavours]
        return {"state": "absent", "former": _distinct(former), "lock_wait": lock_wait}
    cidrs = networks(params["cluster_cidrs"] or [])
    families = sorted({family_of(cidr) for cidr in cidrs})
    holders = [flavour for flavour in FLAVOURS if any(BACKENDS[flavour].has_chain(family, chain, lock_wait) for family in FAMILIES)]
    if not recorded or recorded["chain"] != chain:
        for holder in holders:
            _refuse_chain_of_others(holder, chain, lock_wait)
    flavour = params["flavour"]
    if flavour == "auto":
        if recorded and recorded["flavour"] in holders:
            flavour = recorded["flavour"]
        elif len(holders) == 1:
            flavour = holders[0]
        else:
            flavour = flavour_today(chain)[0]
    if not params["tools_predicted"]:
        for family in families:
            BACKENDS[flavour].require(family)
    former += [(holder, chain) for holder in holders]
    section = {"cluster_cidrs": cidrs, "chain": chain, "flavour": flavour, "lock_wait": lock_wait}
    left = [place for place in _distinct(former) if place != [flavour, chain]]
    if left:
        section["former"] = left
    return section


def _refuse_chain_of_others(flavour: str, chain: str, lock_wait: int) -> None:
    """Raise if a chain that nobody recorded is not ours, nor kindnetd's."""
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


def flavour_today(chain: str) -> Tuple[str, str]:
    """What ``flavour: auto`` would choose now if there was no chain of ours yet, and why.

    The flavour with more rules and chains of others; if neither has more, what plain ``iptables`` is. A pass never asks.
    """
    counts = {flavour: BACKENDS[flavour].count_others(chain) for flavour in FLAVOURS}
    why = ", ".join("%d rules and chains of others in iptables-%s" % (counts[flavour], flavour) for flavour in FLAVOURS)
    if counts["nft"] != counts["legacy"]:
        return max(FLAVOURS, key=lambda flavour: counts[flavour]), why
    default = default_flavour()
    return default or "nft", why + ("; plain iptables is iptables-%s" % default if default else "; iptables is not installed")


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """Two processes per family in use, where there is anything to read at all.

    A family that cannot be read does not keep the other one from being repaired. If none can, that is the failure.
    """
    lock_wait = section["lock_wait"]
    wanted: List[Tuple[Place, Union[Found, KindnetError]]] = []
    for family in _families(section):
        place = Place(section["flavour"], family)
        try:
            wanted.append((place, BACKENDS[place.flavour].read(family, section["chain"], lock_wait)))
        except KindnetError as e:
            wanted.append((place, e))
    leftovers: List[Tuple[Place, str, Union[Found, KindnetError]]] = []
    for place, chain in _places_to_clear(section):
        try:
            leftovers.append((place, chain, BACKENDS[place.flavour].read_for_removal(place.family, chain, lock_wait)))
        except KindnetError as e:
            leftovers.append((place, chain, e))
    errors = [found for _unused, found in wanted if isinstance(found, KindnetError)]
    if not wanted:  # state: absent
        errors = [found for _unused, _unused2, found in leftovers if isinstance(found, KindnetError)]
    if errors and len(errors) >= len(wanted):
        raise errors[0]
    return Actual(tuple(wanted), tuple(leftovers))


def plan(section: Section, actual: Actual) -> Plan:
    absent = section.get("state") == "absent"
    changes: List[Change] = []
    problems: List[Problem] = []
    notes: List[str] = []
    details: Dict[str, Dict[str, Any]] = {}
    for place, found in actual.wanted:
        if isinstance(found, KindnetError):
            problems.append(Problem("%s nat" % command(place), str(found)))
            continue
        part = plan_chain(place, section["chain"], _cidrs_of(section, place.family), found)
        changes += part.changes
        details[place.family] = _detail(place, section["chain"], found, part)
    for place, chain, found in actual.leftovers:
        if isinstance(found, KindnetError):
            problems.append(Problem(chain_subject(place, chain), str(found)))
            continue
        if not is_ours(chain, found):
            notes.append("%s is somebody else's by now, and stays" % chain_subject(place, chain))
            continue
        if absent:
            reason = "state is absent"
        elif chain == section["chain"] and place.flavour == section["flavour"]:
            reason = "no cluster CIDR is %s" % {"ipv4": "IPv4", "ipv6": "IPv6"}[place.family]
        else:
            reason = "the chain is now nat/%s in flavour %s" % (section["chain"], section["flavour"])
        part = plan_removal(place, chain, found, reason)
        changes += part.changes
        problems += part.problems
    return Plan(tuple(changes), tuple(problems), tuple(notes), details)


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """One transaction per nat table, what is wanted before what is to go; a family whose new chain failed keeps its old one."""
    by_place: Dict[Place, List[Change]] = {}
    for change in plan.changes:
        by_place.setdefault(change.op.place, []).append(change)
    wanted = _wanted_places(section)
    failed = {place.family for place in wanted if place.family not in plan.details}
    problems = []
    for place, changes in by_place.items():
        if place.family in failed and place not in wanted:
            message = "left as it is, since what replaces it is not in place"
            problems += [Problem(change.subject, message) for change in changes]
            continue
        try:
            edits = [edit for change in changes for edit in change.op.edits]
            BACKENDS[place.flavour].commit(place.family, edits, section["lock_wait"])
        except KindnetError as e:
            failed.add(place.family)
            problems.append(Problem(changes[0].subject, str(e)))
            problems += [Problem(change.subject, "not changed either, it was the same transaction") for change in changes[1:]]
    return tuple(problems)


def _detail(place: Place, chain: str, found: Found, part: Plan) -> Dict[str, Any]:
    reasons = {change.subject: change.reason for change in part.changes}
    return {
        "command": command(place),
        "rules": [shown(rule) for rule in found.rules or ()],
        "chain": reasons.get(chain_subject(place, chain), "right"),
        "jump": next((reason for subject, reason in reasons.items() if subject != chain_subject(place, chain)), "right"),
    }


def _cidrs_of(section: Section, family: str) -> List[str]:
    return [cidr for cidr in section.get("cluster_cidrs", ()) if family_of(cidr) == family]


def _families(section: Section) -> List[str]:
    return [family for family in FAMILIES if _cidrs_of(section, family)]


def _wanted_places(section: Section) -> List[Place]:
    return [Place(section["flavour"], family) for family in _families(section)]


def _places_to_clear(section: Section) -> List[Tuple[Place, str]]:
    """Where a chain of ours may be and must not: former names and flavours, and a family without a cluster CIDR."""
    places = []
    if "flavour" in section:
        used = _families(section)
        places += [(Place(section["flavour"], family), section["chain"]) for family in FAMILIES if family not in used]
    for flavour, chain in section.get("former", ()):
        places += [(Place(flavour, family), chain) for family in FAMILIES]
    return places


def _distinct(places: Sequence[Any]) -> List[List[str]]:
    """Each once, as lists, in the form that JSON gives back."""
    return [list(place) for place in dict.fromkeys(tuple(place) for place in places)]


def _chain_name(name: str) -> str:
    if not CHAIN.fullmatch(name):
        problem = "is not the name of a chain: letters, digits and _ . : + - only, and no dash in front"
    elif len(name) > LONGEST_CHAIN:
        problem = "has %d characters, iptables takes at most %d" % (len(name), LONGEST_CHAIN)
    elif name in RESERVED:
        problem = "means something else to iptables: a built-in chain, a verdict or a target"
    else:
        return name
    raise KindnetError("chain", repr(name), problem, "Write a name of its own, such as KIND-MASQ-AGENT.")


def networks(cidrs: Sequence[str]) -> List[str]:
    """The networks in canonical text, in the order given."""
    import ipaddress  # converge only: a pass trusts what is recorded

    if not cidrs:
        raise KindnetError("cluster_cidrs", "[]", "is empty", "Write the cluster's pod range, such as 10.244.0.0/16.")
    canonical: List[str] = []
    for cidr in cidrs:
        try:
            if not re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", cidr):
                raise ValueError("not of the form ADDRESS/PREFIX LENGTH")
            interface = ipaddress.ip_interface(cidr)
        except ValueError as e:
            raise KindnetError("cluster_cidrs", repr(cidr), "is not a network (%s)" % e, "Write it like 10.244.0.0/16 or fd00:10:244::/56.")
        network = interface.network
        if interface.ip != network.network_address:
            raise KindnetError("cluster_cidrs", cidr, "has host bits set", "Write %s." % network)
        if not network.prefixlen:
            raise KindnetError("cluster_cidrs", cidr, "is everything, so nothing would be masqueraded", "Write the range of the cluster's pods.")
        text = _text(network)
        if text in canonical:
            raise KindnetError("cluster_cidrs", cidr, "is there twice", "Write it once.")
        canonical.append(text)
    return canonical


def _text(network: Any) -> str:
    """As iptables prints it: by the C library, whose ::ffff:10.0.0.0 Python writes in another way."""
    import socket

    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    return "%s/%d" % (socket.inet_ntop(family, network.network_address.packed), network.prefixlen)
