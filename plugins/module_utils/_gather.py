# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that there is to know of a host, each value from the adapter whose it is. Looks, and changes nothing: no lock is taken, no file written.

A source that fails costs the values that come from it, which are then empty, and is a note. Nobody is to lose the rest of what a host can tell.
"""

from __future__ import annotations

__metaclass__ = type

import platform
from functools import cached_property, partial

from . import _addresses, _conflist, _desired, _gather_conflists, _gather_masq, _gather_pods, _gather_routes, _gather_state, _history, _interfaces
from ._errors import KindnetError
from ._managed import is_managed
from ._node_table import SPECIAL
from ._peers_digest import digest_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar

    from ._addresses import Address
    from ._interfaces import Link
    from ._route import Route

    T = TypeVar("T")
    Data = Dict[str, Any]

FORWARDING = {"net.ipv4.ip_forward": "net/ipv4/ip_forward", "net.ipv6.conf.all.forwarding": "net/ipv6/conf/all/forwarding"}
REVERSE_PATH = "net.ipv4.conf.%s.rp_filter", "net/ipv4/conf/%s/rp_filter"

# What each value is when nothing is known of it
EMPTY: Dict[str, Any] = {
    "versions": dict.fromkeys(("collection", "digest", "python", "kernel", "pyroute2", *_gather_state.TOOLS), ""),
    "desired": {"digest": "", "recorded": "", "sections": [], "error": "", "pod_cidrs": [], "peers": ""},
    "peers": {"wanted": 0, "present": 0, "missing": []},
    "node_interface": {"name": "", "mtu": 0},
    "links": [],
    "addresses": [],
    "sysctls": {},
    "routes": [],
    "pods": [],
    "veths": [],
    "masquerade": [],
    "conflists": [],
    "timer": {"active": "", "enabled": "", "since": "", "paused_seconds": None, "last_pass": {"result": "unknown", "at": ""}, "problems": []},
    "watch": {"active": "", "enabled": ""},
    "history": [],
}
SUBSETS = tuple(EMPTY)
UNCOMPARED = ("watch", "history")  # by which no host is compared with others


class Host:
    """This host, each source of which is read once, and only for what is asked."""

    def __init__(self, node_name: str, cluster_cidrs: Sequence[str], most_right_routes: Optional[int] = None, most_repairs: Optional[int] = None) -> None:
        self.notes: List[str] = []
        self.unseen: List[str] = []
        self.routes_left_out = 0
        self._most_right_routes = most_right_routes
        self._most_repairs = most_repairs
        self._node_name = node_name
        self._cluster_cidrs = list(cluster_cidrs)
        self._desired_error = ""

    def tell(self, name: str) -> Any:
        """One of :data:`SUBSETS`, which the method of that name looks up."""
        return self._at(name, getattr(self, name), EMPTY[name], name not in UNCOMPARED)

    # --- What every answer has

    def identity(self) -> Data:
        return {
            "node_name": self._node_name or self._section("routes").get("node_name") or platform.node(),
            "hostname": platform.node(),
            "managed": is_managed(),
            "cluster_name": self._recorded.cluster_name,
        }

    # --- The values that can be asked for, by their names

    def versions(self) -> Data:
        collection, digest = self._at("code of passes", _gather_state.code, ("", ""))
        return {
            "collection": collection,
            "digest": digest,
            "python": platform.python_version(),
            "kernel": platform.release(),
            "pyroute2": self._at("pyroute2", _gather_state.pyroute2, "", False),
            **{name: self._at(name, partial(_gather_state.tool, name), "", False) for name in _gather_state.TOOLS},
        }

    def desired(self) -> Data:
        digest, at = self._at(_desired.FILE, _gather_state.recorded_file, ("", ""))
        recorded = self._recorded
        return {
            "digest": digest,
            "recorded": at,
            "sections": sorted(recorded.sections),
            "error": self._desired_error,
            "pod_cidrs": self._own_pod_cidrs,
            "peers": self._at("recorded peers", self._peers_digest, ""),
        }

    def peers(self) -> Data:
        return self._at("peers", lambda: _gather_routes.peers(self._section("routes"), self._routes), EMPTY["peers"])

    def node_interface(self) -> Data:
        return self._node_interface

    def links(self) -> List[Data]:
        return [
            {"name": link.name, "index": link.number, "mtu": link.mtu, "up": link.is_up, "kind": link.kind, "mac": link.mac} for link in self._links
        ]

    def addresses(self) -> List[Data]:
        names = {link.number: link.name for link in self._links}
        return [
            {"interface": names.get(index, ""), "ip": _addresses.text_of(address), "prefix_length": address.prefix}
            for index, found in sorted(self._addresses.items())
            for address in found
            if address.scope == _addresses.RT_SCOPE_UNIVERSE and not _is_special(address)
        ]

    def sysctls(self) -> Data:
        files = dict(FORWARDING)
        for name in dict.fromkeys(["all", self._node_interface["name"]]):
            if name:
                files[REVERSE_PATH[0] % name] = REVERSE_PATH[1] % name
        return {key: _gather_state.sysctl(path) for key, path in files.items()}

    def routes(self) -> List[Data]:
        names = {link.number: link.name for link in self._links}
        return self._at("routes", lambda: _gather_routes.rows(self._told_routes(), self._section("routes"), names), [])

    def pods(self) -> List[Data]:
        return self._pods

    def veths(self) -> List[Data]:
        names = {link.number: link.name for link in self._links}
        addresses = {
            names.get(index, ""): [_addresses.text_of(a) for a in found if a.scope == _addresses.RT_SCOPE_UNIVERSE] for index, found in self._addresses.items()
        }
        return _gather_pods.veths(self._links, addresses, self._pods, self._node_interface["name"])

    def masquerade(self) -> List[Data]:
        return self._noted("masquerade", lambda: _gather_masq.masquerade(self._section("masq")))

    def conflists(self) -> List[Data]:
        return [told for told, _data in self._conflists]

    def timer(self) -> Data:
        empty: Data = {}
        return {
            **EMPTY["timer"],
            **self._at("kindnet-reconcile.timer", _gather_state.timer, empty, is_managed()),
            "paused_seconds": self._at("pause", _gather_state.paused_seconds, None),
            "problems": self._at("problems", _gather_state.problems, EMPTY["timer"]["problems"], False),
        }

    def watch(self) -> Data:
        return self._at("kindnet-watch.service", _gather_state.watch, EMPTY["watch"], False)

    def history(self) -> List[Data]:
        repairs = list(_history.load())
        return repairs if self._most_repairs is None else repairs[max(0, len(repairs) - self._most_repairs) :]

    # --- The sources

    @cached_property
    def _recorded(self) -> _desired.Desired:
        try:
            return _desired.load()
        except (KindnetError, OSError) as e:
            self._desired_error = str(e)
            self.notes.append(str(e))
            return _desired.Desired("", {})

    def _section(self, name: str) -> Data:
        section: Data = self._recorded.sections.get(name, {})
        return section

    def _peers_digest(self) -> str:
        routes = self._section("routes")
        return digest_of(routes.get("peers", ())) if routes else ""

    @cached_property
    def _own_pod_cidrs(self) -> List[str]:
        return self._at("recorded pod CIDRs", lambda: _gather_state.own_pod_cidrs(self._section("conflist")), [])

    @cached_property
    def _networks(self) -> List[str]:
        """Those that pods live in, as far as this host was told."""
        routes = self._section("routes")
        masq = self._section("masq")
        recorded: List[str] = self._at("cluster CIDRs", lambda: [*masq.get("cluster_cidrs", ()), *routes.get("cluster_cidrs", ())], [])
        return list(dict.fromkeys([*self._cluster_cidrs, *recorded, *self._own_pod_cidrs, *(cidr for _node, cidr, _hop in routes.get("peers", ()))]))

    @cached_property
    def _links(self) -> List[Link]:
        return self._at("interfaces", _interfaces.links, [])

    @cached_property
    def _addresses(self) -> Dict[int, List[Address]]:
        return self._at("addresses", _addresses.by_index, {})

    @cached_property
    def _node_interface(self) -> Data:
        return self._at("node interface", lambda: _gather_routes.node_interface(self._section("routes")), EMPTY["node_interface"])

    @cached_property
    def _routes(self) -> List[Route]:
        return _gather_routes.read(self._section("routes"), self._networks)

    def _told_routes(self) -> List[Route]:
        """All of them, or all but so many that are as recorded."""
        right = _gather_routes.as_recorded(self._section("routes"), self._routes) if self._most_right_routes is not None else []
        if len(right) <= (self._most_right_routes or 0):
            return self._routes
        self.routes_left_out = len(right)
        left_out = set(right)
        return [route for route in self._routes if route not in left_out]

    @cached_property
    def _conflists(self) -> List[Tuple[Data, Data]]:
        section = self._section("conflist")
        return self._noted("CNI configurations", lambda: _gather_conflists.conflists(section))

    @cached_property
    def _pods(self) -> List[Data]:
        recorded = self._at("recorded CNI configuration", lambda: _conflist.in_use(self._section("conflist") or None), None)
        used = [data for told, data in self._conflists if told["in_use"] or told["ours"]]
        in_use = [data for data in [recorded, *used] if data]
        return self._noted("pods", lambda: _gather_pods.pods(in_use, _gather_routes.host_routes(), self._links))

    # --- What a source that fails costs

    def _at(self, what: str, look: Callable[[], T], empty: T, is_compared: bool = True) -> T:
        """What ``look`` tells, or ``empty`` and a note; by some of it, hosts are compared with each other."""
        try:
            return look()
        except KindnetError as e:
            self.notes.append("%s: %s" % (what, e))
        except Exception as e:  # what nobody foresaw in one source is no reason to tell nothing of the others
            self.notes.append("%s: cannot be told (%s: %s)" % (what, type(e).__name__, e))
        if is_compared:
            self.unseen.append(what)
        return empty

    def _noted(self, what: str, look: Callable[[], Tuple[List[T], List[str]]]) -> List[T]:
        empty: Tuple[List[T], List[str]] = ([], [])
        found, notes = self._at(what, look, empty)
        self.notes += notes
        return found


def gather(
    node_name: str, cluster_cidrs: Sequence[str], subset: Iterable[str] = SUBSETS, most_right_routes: Optional[int] = None, most_repairs: Optional[int] = None
) -> Data:
    """The values of ``subset``, the few that every answer has, and notes of what could not be looked at."""
    host = Host(node_name, cluster_cidrs, most_right_routes, most_repairs)
    answer = host.identity()
    for name in SUBSETS:
        if name in subset:
            answer[name] = host.tell(name)
    if "routes" in subset:
        answer["routes_left_out"] = host.routes_left_out
    answer["notes"] = list(dict.fromkeys(host.notes))
    answer["unseen"] = list(dict.fromkeys(host.unseen))
    return answer


def _is_special(address: Address) -> bool:
    """Loopback, link-local and the like, by which no other host reaches this one."""
    number = int.from_bytes(address.packed, "big")
    return any(reserved.first <= number <= reserved.last for reserved, _what in SPECIAL[address.family])
