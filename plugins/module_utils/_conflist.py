# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern "conflist": the CNI configuration by which the container runtime connects this node's pods.

Its section of desired.json::

    path          where the configuration is
    conflist      what it says, with every MTU decided
    mtu_auto      {"mtu": 1500, "interfaces": {"eth0": "172.18.0.3"}}: what auto decided, and a peer behind each interface it looked
                  at; only if a plugin leaves its MTU to the node
    conflicts     what to do about files of others that a runtime would take instead: "fail" or "set_aside"; left out for "warn"
    former_paths  [[path, name]]: where earlier converges had put it, to be removed
    made_folders  folders that were not there before the first converge
    pod_cidrs     what peers route to this node; only if the ranges of the configuration are others
"""

from __future__ import annotations

__metaclass__ = type

import json
import os

from . import _before, _files
from ._conflist_data import fill_mtu, mtu_of, parse_conflist, parse_name, plugin_types, ranges_of, read_text, same, stores_of, wants_mtu
from ._errors import KindnetError
from ._plan import Problem
from ._plan_conflist import (
    FAIL,
    MAKE_FOLDER,
    REMOVE,
    REMOVE_FOLDER,
    RENAME,
    SECTION,
    WARN,
    WRITE,
    Actual,
    in_the_way,
    is_others,
    rivals_of,
    sorting_first,
)
from ._plan_conflist import plan_conflist as plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from ._files import Found
    from ._node_table import Range
    from ._plan import Plan

    Section = Dict[str, Any]

__all__ = ["SECTION", "apply", "in_use", "mtu_today", "plan", "read", "resolve"]

USUAL_PATH = "/etc/cni/net.d/10-kindnet.conflist"


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """See :class:`_converge.Concern`."""
    path = _parse_path(params["path"])
    if params["state"] == "absent":
        return _resolve_absent(path, parse_name(params["name"]), recorded)
    conflist = _given(params.get("conflist"))
    name = conflist["name"]
    found = _files.look(path)
    former = _former_paths(path, recorded)
    if recorded is None or (recorded["path"] != path and path not in (p for p, _name in recorded["former_paths"])):
        _refuse_others(path, name, found)
    section: Section = {
        "path": path,
        "former_paths": former,
        "made_folders": sorted(set(_made_folders(recorded)) | set(_files.missing_folders(os.path.dirname(path)))),
    }
    if params.get("conflicts", WARN) != WARN:
        section["conflicts"] = params["conflicts"]
    if params.get("conflicts") == FAIL:
        _refuse_rivals(section)
    before = recorded["conflist"] if recorded else read_text(found.content) if found else None
    if wants_mtu(conflist):
        section["mtu_auto"] = _decide_mtu(_peers(params.get("peer_ips")), before, (recorded or {}).get("mtu_auto", {}).get("interfaces", {}))
        conflist = fill_mtu(conflist, section["mtu_auto"]["mtu"])
    section["conflist"] = conflist
    pod_cidrs = _pod_cidrs(params.get("pod_cidrs"), conflist)
    if pod_cidrs:
        section["pod_cidrs"] = pod_cidrs
    if not params.get("force_pod_cidr_change"):
        _refuse_lost_allocations(dict(recorded or {}, conflist=before), section)
    _check_plugins(conflist, params["plugin_dirs"], bool(params.get("tools_predicted")))
    return section


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """See :class:`_converge.Concern`."""
    if section.get("state") == "absent":
        paths = [path for path, _name, _recorded in section["files"]]
    else:
        paths = [section["path"]] + [path for path, _name in section["former_paths"]]
    aside = None if recorded is None else {path: entry["before"] for path, entry in _before.load(_before.ASIDE).items()}
    files: Dict[str, Found] = {}
    folders: Dict[str, Optional[Tuple[str, ...]]] = {}
    for path in paths:
        folder = os.path.dirname(path)
        if folder not in folders:
            folders[folder] = _files.names_in(folder)
        for place in (path, _files.temporary_name(path)):
            # The names are known by now; looking for what is not there would double the calls of a clean pass.
            found = _files.look(place) if os.path.basename(place) in (folders[folder] or ()) else None
            if found:
                files[place] = found
    for folder in section["made_folders"]:
        if folder not in folders:
            folders[folder] = _files.names_in(folder)
    if "path" in section:
        others = sorting_first(section["path"], folders[os.path.dirname(section["path"])])
    else:
        others = [place for pair in (aside or {}).items() for place in pair]
    for place in others:
        found = _files.look(place)
        if found:
            files[place] = found
    if recorded is None:
        return Actual(files, folders)
    known_folders = _before.folders_of_ours(SECTION)
    if section.get("state") == "absent":
        return Actual(files, folders, _before.recorded(paths), tuple(known_folders), aside)
    # kindnetd's own file, for one, which a takeover adopts
    priors = _before.unrecorded([section["path"]]) if section["path"] not in _paths_of(recorded) else None
    return Actual(files, folders, priors, tuple(folder for folder in section["made_folders"] if folder not in known_folders), aside)


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """See :class:`_converge.Concern`."""
    failures: List[Problem] = []
    for change in plan.changes:
        what, place = change.op[:2]
        try:
            if what == WRITE:
                _files.write_atomic(place, change.op[2].encode())
            elif what == REMOVE:
                _files.remove(place)
            elif what == RENAME:
                _files.rename_new(place, change.op[2])
            elif what == MAKE_FOLDER:
                _files.make_folder(place)
            elif what == REMOVE_FOLDER:
                _files.remove_folder(place)
            elif isinstance(change.op, _before.Op) and not failures:
                _before.apply(change.op)
        except KindnetError as e:
            failures.append(Problem(change.subject, str(e)))
    return tuple(failures)


def in_use(section: Optional[Section]) -> Optional[Dict[str, Any]]:
    """The configuration by which pods got their addresses: the recorded one, or of a host without a record the one on disk.

    Such a host lost it, or kindnetd runs there. Where ours was, the record of what was there before tells.
    """
    if section:
        recorded: Dict[str, Any] = section["conflist"]
        return recorded
    for path in sorted(p for p in _before.load(_before.FILES) if p.endswith(".conflist")) + [USUAL_PATH]:
        found = read_text(_files.read_bytes(path) or b"")
        if found:
            return found
    return None


def mtu_today(section: Section) -> str:
    """What ``mtu: auto`` would decide now, in a sentence; "" if that is what it decided, or nothing can be told."""
    decided = section.get("mtu_auto")
    if not decided or not decided["interfaces"]:
        return ""
    reached = _reached(list(decided["interfaces"].values()))
    mtu = min((m for _peer, _interface, m in reached), default=None)
    if mtu is None or mtu == decided["mtu"]:
        return ""
    return "mtu auto: %d was decided at converge; it would be %d today, that of %s." % (
        decided["mtu"],
        mtu,
        ", ".join(sorted({i for _peer, i, m in reached if m == mtu})),
    )


def _resolve_absent(path: str, name: str, recorded: Optional[Section]) -> Section:
    ours = _paths_of(recorded or {})
    for place in sorted(_before.load(_before.FILES)):
        # Whatever became of desired.json: what was looked at before it was replaced is ours since.
        if place.endswith(".conflist"):
            ours.setdefault(place, name)
    files: List[List[Any]] = [[place, ours[place], True] for place in ours]
    if path not in ours:
        files.append([path, name, False])
    return {"state": "absent", "files": files, "made_folders": _made_folders(recorded)}


def _made_folders(recorded: Optional[Section]) -> List[str]:
    return sorted(set((recorded or {}).get("made_folders", ())) | set(_before.folders_of_ours(SECTION)))


def _paths_of(recorded: Section) -> Dict[str, str]:
    """Where the recorded configuration is and was, and the name of its network there."""
    if not recorded:
        return {}
    return dict([(recorded["path"], recorded["conflist"]["name"]), *recorded["former_paths"]])


def _parse_path(path: Any) -> str:
    if not isinstance(path, str) or not path.startswith("/") or os.path.normpath(path) != path or not path.isprintable():
        raise KindnetError("path", ascii(path), "is not a plain absolute path", "Give one such as /etc/cni/net.d/10-kindnet.conflist.")
    if not path.endswith(".conflist"):
        raise KindnetError("path", path, "does not end in .conflist, so no container runtime would load it as a list", "Name it so.")
    return path


def _given(conflist: Any) -> Dict[str, Any]:
    if isinstance(conflist, str):
        try:
            conflist = json.loads(conflist)
        except ValueError as e:
            raise KindnetError("conflist", ascii(conflist[:60]), "is not JSON (%s)" % e, "Give a mapping, or the same as one JSON string.")
    if conflist is None:
        raise KindnetError("conflist", "none", "is missing", "Run this module through Ansible, whose action plugin renders it from a template.")
    return parse_conflist("conflist", conflist)


def _former_paths(path: str, recorded: Optional[Section]) -> List[List[str]]:
    """Kept for good: the pass after a killed run, too, removes what an earlier converge had put elsewhere."""
    if not recorded:
        return []
    former = [[recorded["path"], recorded["conflist"]["name"]]] + recorded["former_paths"]
    return sorted([p, n] for p, n in former if p != path)


def _refuse_others(path: str, name: str, found: Optional[Found]) -> None:
    if is_others(found, name):
        other = (read_text(found.content) or {}).get("name") if found else None
        raise KindnetError(
            "path",
            path,
            "holds the configuration of another network, %s, which nobody recorded as ours" % ascii(other),
            "Move it away, or give another path (of the roles: kindnet_conflist_path).",
        )


def _refuse_rivals(section: Section) -> None:
    actual = read(section, None)
    rivals = rivals_of(section, actual)
    if rivals:
        raise KindnetError(
            "conflicts",
            ", ".join(rivals),
            in_the_way(section["path"], rivals, actual).rstrip("."),
            "Move them away, let path sort first (of the roles: kindnet_conflist_path), or have them set aside: conflicts: set_aside"
            " (of the roles: kindnet_conflist_conflicts).",
        )


def _peers(peer_ips: Any) -> List[str]:
    from ._node_table import as_list, parse_address

    if isinstance(peer_ips, str) and peer_ips.lstrip().startswith("["):
        try:
            peer_ips = json.loads(peer_ips)
        except ValueError as e:
            raise KindnetError("peer_ips", ascii(peer_ips[:60]), "is not JSON (%s)" % e, "Give a list of addresses, or the same as one JSON string.")
    return [parse_address("peer_ips", ip).text for ip in as_list("peer_ips", peer_ips)]


def _decide_mtu(peers: List[str], before: Optional[Dict[str, Any]], known: Dict[str, str]) -> Dict[str, Any]:
    """The smallest MTU of the interfaces that reach the peers; with none to reach, what the file says stays.

    One peer stands for each interface, and stays it while it can: a member that comes or goes elsewhere is no change here.
    """
    reached = _reached(peers)
    interfaces: Dict[str, str] = {}
    for peer, interface, _mtu in reached:
        if interface not in interfaces or known.get(interface) == peer:
            interfaces[interface] = peer
    mtu = min((m for _peer, _interface, m in reached), default=None)
    if mtu is None:
        return {"mtu": mtu_of(before), "interfaces": known}
    return {"mtu": mtu, "interfaces": interfaces}


def _reached(peers: List[str]) -> List[Tuple[str, str, int]]:
    from ._links import RouteLookup

    if not peers:
        return []
    with RouteLookup() as lookup:
        found = [(peer, lookup.interface_to(peer)) for peer in peers]
    return [(peer, link[0], link[1]) for peer, link in found if link]


def _check_plugins(conflist: Dict[str, Any], plugin_dirs: List[str], predicted: bool) -> None:
    from ._cni_fields import refuse_small_bursts, sysctls_of, versions_of
    from ._cni_plugins import check_fields, check_plugins, check_sysctls

    check_plugins(plugin_types(conflist), versions_of(conflist), plugin_dirs, predicted)
    check_fields(conflist["plugins"], plugin_dirs)
    refuse_small_bursts(conflist, mtu_of(conflist))
    check_sysctls(sysctls_of(conflist))


def _pod_cidrs(given: Any, conflist: Dict[str, Any]) -> List[str]:
    """The node's pod CIDRs, where they cannot be read from the configuration."""
    from ._node_table import parse_cidrs

    pod_cidrs = list(parse_cidrs("pod_cidrs", given))
    return [] if set(pod_cidrs) == {subnet for subnets in stores_of(conflist).values() for subnet in subnets} else pod_cidrs


def _refuse_lost_allocations(before: Section, section: Section) -> None:
    """Pods keep their addresses when the file changes. Raise if that leaves live ones outside of what host-local then knows."""
    old, new = ranges_of(before["conflist"]), ranges_of(section["conflist"])
    if same(old, new):
        return
    from ._node_table import parse_address, shorten
    from ._ranges import pool_of, span

    cut_off: List[str] = []
    set_aside: List[str] = []
    routed_before, routed = _routed(before), _routed(section)
    for store in sorted(set(old) | set(new)):
        pools = [pool_of("conflist", entry) for entry in new.get(store, ())]
        for name in sorted(_files.names_in(store) or ()):
            try:
                ip = parse_address(store, name)
            except KindnetError:  # lock, last_reserved_ip.0
                continue
            own = [p for p in pools if p.subnet.family == ip.family]
            if any(p.first <= ip.first <= p.last for p in own) and not any(p.gateway == ip.first for p in own):
                continue
            holder = (_files.read_bytes(os.path.join(store, name)) or b"").decode("utf-8", "replace").split()
            # In another store, host-local gives the address to a second pod; outside of the pod CIDR, peers send what is for it elsewhere.
            lost = store not in new or _within(routed_before, ip) and not _within(routed, ip)
            (cut_off if lost else set_aside).append("%s (%s)" % (ip.text, ascii(holder[0])[1:-1] if holder else "unknown container"))
    if cut_off:
        raise KindnetError(
            "pod_cidrs",
            ", ".join(r.text for r in routed) or "none",
            "%d live allocations of host-local would be outside: %s" % (len(cut_off), shorten(cut_off)),
            "Remove these pods first, or set force_pod_cidr_change (of the roles: kindnet_force_pod_cidr_change): they keep"
            " their addresses, and peers send those to another place.",
        )
    if set_aside:
        raise KindnetError(
            "ranges",
            ", ".join(span(pool_of("conflist", entry)) for entries in new.values() for entry in entries),
            "%d live allocations of host-local are not among the addresses for pods: %s" % (len(set_aside), shorten(set_aside)),
            "Remove these pods first, or set force_pod_cidr_change (of the roles: kindnet_force_pod_cidr_change): they keep"
            " their addresses until they end.",
        )


def _routed(section: Section) -> List[Range]:
    """What peers route to this node, by a configuration that may be anybody's."""
    from ._node_table import parse_cidr

    found: List[Range] = []
    for subnet in section.get("pod_cidrs") or [s for subnets in stores_of(section["conflist"]).values() for s in subnets]:
        try:
            found.append(parse_cidr("pod_cidrs", subnet))
        except KindnetError:
            continue
    return found


def _within(ranges: List[Range], ip: Range) -> bool:
    return any(r.family == ip.family and r.first <= ip.first <= r.last for r in ranges)
