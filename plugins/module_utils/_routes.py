# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern ``routes``: one route for each pod CIDR of each peer."""

from __future__ import annotations

__metaclass__ = type

import errno
import os

from . import _netlink, _wanted_routes
from ._converge import is_absent
from ._errors import KindnetError
from ._plan import Problem
from ._plan_routes import Live, plan
from ._route import AF_INET, AF_INET6, BOOT, DEAD, DEFAULT_TABLE, LINKDOWN, LOCAL_TABLE, MAIN_TABLE, PROTOCOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

    from ._converge import Outcome
    from ._node_table import Node
    from ._plan import Change, Plan
    from ._route import Route

    Section = Dict[str, Any]

SECTION = "routes"
FAMILIES = (AF_INET, AF_INET6)
CAP_NET_ADMIN = 12

__all__ = ["SECTION", "apply", "plan", "read", "resolve", "result"]


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """Parameters of ``kindnet_route`` to a section. Refuses to lose many peers at once, and what a real run would fail for."""
    protocol, table = parse_protocol(params["protocol"]), parse_table(params["table"])
    max_removals = parse_max_removals(params["max_removals"])
    _require_permission()
    if params["state"] == "absent":
        if recorded is not None and params["persist"]:
            # What was recorded is what is there, whatever the options say today.
            protocol, table = recorded["protocol"], recorded["table"]
        section: Section = {"state": "absent", "protocol": protocol, "table": table}
    else:
        if recorded is not None and (recorded["protocol"], recorded["table"]) != (protocol, table):
            if params["persist"]:
                raise KindnetError(
                    "table, protocol",
                    "%d, %d" % (table, protocol),
                    "this host's routes are recorded in table %d with protocol %d" % (recorded["table"], recorded["protocol"]),
                    "Give those again; to have others, take these out first (state: absent), then converge anew.",
                )
            recorded = None
        section = _section(params, protocol, table, recorded)
        if not params["force_removals"]:
            _guard(params, section, recorded, max_removals)
    if not params["tools_predicted"]:
        _require_pyroute2(section)
    return section


def read(section: Section, recorded: Optional[Section]) -> Live:
    """The routes of ours, and in a converge, or if they are not as wanted, all that have a part in the plan.

    A pass that finds its routes as wanted reads nothing else, so its cost does not depend on what else the host routes.
    """
    protocol, table = section["protocol"], section["table"]
    own = tuple(r for family in FAMILIES for r in _netlink.dump(family, table, protocol))
    if is_absent(section):
        if not own:
            return Live(own, own)
    elif recorded is None and _wanted_routes.is_as_wanted(section, own, _netlink.link_index):
        boot = (r for family in FAMILIES for r in _netlink.dump(family, table, BOOT)) if section.get("takeover") else ()
        if not _wanted_routes.could_be_taken_over(section, boot):
            return Live(own, None, _netlink.link_names() if any(r.flags & (DEAD | LINKDOWN) for r in own) else {})
    return read_all(section)


def read_all(section: Section) -> Live:
    """With the foreign routes, one of which may be ahead of a route of ours that is as wanted."""
    protocol, table = section["protocol"], section["table"]
    relevant = _wanted_routes.relevance(section)
    everything = _dump_all([table] if is_absent(section) else _asked_tables(table), relevant)
    own = tuple(r for r in everything if r.table == table and r.protocol == protocol)
    kindnetd = ""
    if _wanted_routes.could_be_taken_over(section, (r for r in everything if r.table == table)):
        from ._rivals import kindnetd as running_kindnetd

        kindnetd = running_kindnetd()
    return Live(own, everything, _netlink.link_names(), kindnetd)


def _asked_tables(table: int) -> List[int]:
    """The tables that the kernel asks where a next hop of a route in ``table`` is."""
    return sorted({table, MAIN_TABLE, LOCAL_TABLE, DEFAULT_TABLE})


def _dump_all(tables: Iterable[int], keep: Callable[[Route], bool]) -> Tuple[Route, ...]:
    four, six = ([r for t in tables for r in _netlink.dump(family, t, 0, keep)] for family in FAMILIES)
    # The walk of an IPv6 table starts again where it changes, and may tell a route twice.
    return (*four, *dict.fromkeys(six))


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """Make the changes in their order. One that fails is reported and costs no other peer anything."""
    problems: List[Problem] = []
    failed: Set[str] = set()
    if not plan.changes:
        return ()
    from ._route_writer import Writer

    with Writer() as writer:
        for changes in _waves(plan.changes):
            # None waits for another one of its wave, so what fails in it changes nothing for the rest of it.
            codes = iter(writer.apply([(c.action, c.op.route) for c in changes if c.op.after not in failed]))
            for change in changes:
                if change.op.after in failed:
                    message = "stays for now, because the route that takes its place could not be made"
                else:
                    code = next(codes)
                    message = _failure(change, code) if code else ""
                if message:
                    failed.add(change.subject)
                    problems.append(Problem(change.subject, "peer %s: %s" % (change.op.node, message) if change.op.node else message))
    return tuple(problems)


def _waves(changes: Sequence[Change]) -> Iterable[List[Change]]:
    """Runs of changes, none of which waits for what becomes of another one of its run."""
    wave: List[Change] = []
    subjects: Set[str] = set()
    for change in changes:
        if change.op.after in subjects:
            yield wave
            wave, subjects = [], set()
        wave.append(change)
        subjects.add(change.subject)
    yield wave


def result(outcome: Outcome) -> Dict[str, Any]:
    """What the module returns beside the values that every module has. Routes that are not as wanted come first."""
    failures = {p.subject: p.message for p in outcome.failures}
    routes = [
        {
            "dst": v.dst,
            "next_hop": v.next_hop,
            "node": v.node,
            "action": "fail" if v.subject in failures else v.action,
            "reason": failures.get(v.subject, v.reason),
        }
        for v in outcome.plan.details["routes"]
    ]
    routes.sort(key=lambda r: r["action"] not in ("fail", "conflict"))
    return {"routes": routes, "unchanged": outcome.plan.details["unchanged"]}


def parse_protocol(value: Any) -> int:
    """A route protocol number that marks routes as ours and nobody else's."""
    if not 5 <= int(value) <= 255 or int(value) in PROTOCOLS:
        taken = ", ".join("%d %s" % item for item in sorted(PROTOCOLS.items()))
        raise KindnetError(
            "protocol", value, "cannot mark routes as those of this collection", "Use a number from 5 to 255 that nobody has; taken are %s." % taken
        )
    return int(value)


def parse_max_removals(value: Optional[int]) -> Optional[int]:
    """How many peers may be lost at once; None: the default."""
    if value is not None and value < 0:
        raise KindnetError("max_removals", value, "is negative", "Write 0 or more, or leave it out for the larger of 2 and 10 % of the peers.")
    return value


def parse_table(value: Any) -> int:
    """``main``, or the number of a table."""
    text = str(value).strip()
    if text == "main":
        return MAIN_TABLE
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) < 1 << 32):
        raise KindnetError("table", value, "is not a routing table", "Write main, or a number from 1 to 4294967295; names of rt_tables are not looked up.")
    if int(text) == LOCAL_TABLE:
        raise KindnetError("table", value, "is the kernel's own table of local addresses", "Use main, or a table that holds routes to others.")
    return int(text)


def _section(params: Dict[str, Any], protocol: int, table: int, recorded: Optional[Section]) -> Section:
    from ._node_table import find_node, parse_cidrs, parse_nodes  # converge only

    clusters = parse_cidrs("cluster_cidrs", params["cluster_cidrs"] or [])
    nodes = parse_nodes(params["nodes"], clusters)
    find_node(nodes, params["node_name"])
    if params["renumbered_nodes"] is not None:
        _refuse_renumbering(nodes, params["renumbered_nodes"], recorded)
    refuse_overlap_with_node_network(nodes, params["node_name"], table)
    peers = _wanted_routes.peers_of(nodes, params["node_name"])
    section: Section = {"protocol": protocol, "table": table, "node_name": params["node_name"], "peers": peers}
    if params["non_l2"] != _wanted_routes.FAIL:
        decided = _decide_non_l2(params, peers, table)
        if decided:
            section["non_l2"] = decided
    if params["takeover"]:
        from ._rivals import refuse_takeover

        refuse_takeover()
        section["takeover"] = True
        section["cluster_cidrs"] = list(clusters)
        next_hops = {hop for _node, _cidr, hop in peers}
        # kindnetd's next hop is any of a peer's addresses.
        section["known_addresses"] = sorted(ip for n in nodes if n.name != params["node_name"] for ip in n.node_ips if ip not in next_hops)
    return section


def _decide_non_l2(params: Dict[str, Any], peers: Sequence[Sequence[str]], table: int) -> Dict[str, List[str]]:
    from . import _non_l2  # converge only
    from ._links import RouteLookup
    from ._on_link import OnLink
    from ._route import covering, packed

    gateway_of = _non_l2.parse_gateways(params["non_l2_gateways"])
    interface = _non_l2.parse_interface(params["non_l2_interface"])
    routes = _dump_all(_asked_tables(table), covering(packed(address) for _node, _cidr, address in peers))

    def interface_to(address: str) -> str:
        if interface:
            return interface
        with RouteLookup() as lookup:
            found = lookup.interface_to(address)
        return found[0] if found else ""

    return _non_l2.decide(params["non_l2"], peers, OnLink(routes, table), gateway_of, interface_to)


def refuse_overlap_with_node_network(nodes: Sequence[Node], node_name: str, table: int = MAIN_TABLE) -> None:
    """Raise if a pod CIDR lies in the network by which this host reaches its peers: only the host knows how large that is."""
    from ._on_link import OnLink, node_addresses, overlap_with_node_network  # converge only
    from ._route import cidr_text, covering, packed, route_text

    routes = _dump_all(_asked_tables(table), covering(packed(ip) for _name, ip in node_addresses(nodes, node_name)))
    overlap = overlap_with_node_network(nodes, node_name, OnLink(routes, table))
    if overlap is None:
        return
    links = _netlink.link_names()
    network = cidr_text(overlap.network)
    raise KindnetError(
        "pod_cidrs of %s" % overlap.node,
        overlap.cidr,
        "overlaps the node network %s (%s), in which %s of %s is; nothing was changed"
        % (network, route_text(overlap.network, links), overlap.address, overlap.neighbour),
        "Correct kindnet_pod_cidrs of %s to a range outside of %s; if the node network is smaller than that, correct the prefix length on %s of %s."
        % (overlap.node, network, links.get(overlap.network.oif, "the interface"), node_name),
    )


def _guard(params: Dict[str, Any], section: Section, recorded: Optional[Section], max_removals: Optional[int]) -> None:
    from ._node_table import shorten  # converge only
    from ._removal_guard import removal_guard

    own = [r for family in FAMILIES for r in _netlink.dump(family, section["table"], section["protocol"])]
    before = (recorded or {}).get("peers", ())
    lost, allowed, all_of_them = removal_guard(before, section["peers"], own, max_removals, params["removed_nodes"])
    if not all_of_them and len(lost) <= allowed:
        return
    raise KindnetError(
        "nodes",
        "a table with %d peers" % len({name for name, _cidr, _hop in section["peers"]}),
        "would take away %s: %s; nothing was changed"
        % ("every peer that this host has" if all_of_them else "%d of its peers at once, where at most %d may go" % (len(lost), allowed), shorten(lost, 100)),
        "If hosts are missing by mistake, put them back into the inventory (group kindnet_nodes, or kindnet_node_table). "
        "If they are gone for good, run again with kindnet_force_removals=true%s" % ("." if all_of_them else ", or raise kindnet_max_removals."),
    )


def _refuse_renumbering(nodes: Sequence[Node], meant: Sequence[str], recorded: Optional[Section]) -> None:
    """Only a node itself knows whether pods live in what it gives up. Raise unless it has been asked."""
    from ._node_table import shorten  # converge only
    from ._removal_guard import renumbered

    given_up = renumbered((recorded or {}).get("peers", ()), nodes, meant)
    if given_up:
        raise KindnetError(
            "renumbered_nodes",
            ", ".join(given_up),
            "would take away the routes to %s; whether pods live there was not looked at in this run, and nothing was changed"
            % shorten(["%s of %s" % (", ".join(cidrs), name) for name, cidrs in given_up.items()]),
            "Run without --limit, --tags and kindnet_serial while each of these nodes is up: it then looks first, and refuses for all."
            " If it has no pods, or they may lose their network: kindnet_force_pod_cidr_change=true.",
        )


def _require_pyroute2(section: Section) -> None:
    """Without pyroute2 a converge that has nothing to change is fine, and any other one must not begin."""
    if plan(section, read(section, {})).changes:
        from . import _pyroute2_dep

        _pyroute2_dep.require()


def _require_permission() -> None:
    """Raise unless this process may change routes; check mode too, because a real run would fail."""
    capable = True
    try:
        with open("/proc/self/status", "rb") as f:
            capable = any(line.startswith(b"CapEff:") and int(line.split()[1], 16) >> CAP_NET_ADMIN & 1 for line in f)
    except OSError:
        pass  # without /proc the kernel's own refusal will tell
    if not capable:
        raise _permission_error("CAP_NET_ADMIN is missing")


def _permission_error(value: str) -> KindnetError:
    return KindnetError("permission", "uid %d, %s" % (os.geteuid(), value), "routes may not be changed", "Run as root (become: true), with CAP_NET_ADMIN.")


def _failure(change: Change, code: int) -> str:
    """What the kernel's refusal means, with the remedy; "" if the route is as planned all the same."""
    if change.action == "remove" and code in (errno.ESRCH, errno.ENOENT):
        return ""
    name = errno.errorcode.get(code, str(code))
    if code == errno.EPERM:
        raise _permission_error(name)
    if code == errno.EEXIST:
        return "another route to it appeared meanwhile and was left alone (%s). Run again to see which." % name
    if code in (errno.ENOENT, errno.ESRCH):
        return "the route to replace is gone meanwhile (%s). Run again." % name
    if code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
        return (
            "the kernel does not take its next hop as on-link (%s). Correct kindnet_node_ips of the peer, or the interface of the node network"
            " on this host; look at 'ip rule' too." % name
        )
    if code == errno.ENOBUFS:
        return "whether the kernel made it is not known, as its answer was lost (%s). Run again to see." % name
    if code == errno.ENETDOWN:
        return "the interface to its next hop is down (%s). Bring it up." % name
    if code == errno.EACCES:
        return "IPv6 is disabled on the interface to its next hop (%s). Enable it, or take the peer's IPv6 pod CIDR out." % name
    return "the kernel refuses it: %s (%s). Look at dmesg." % (name, os.strerror(code))
