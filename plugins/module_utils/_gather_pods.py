# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pods of this host that have their addresses from host-local, and what else is written down of them. Looks, and changes nothing.

host-local knows an address and a container. The pod's name and its network namespace are in what libcni keeps of each pod that it attached, and a pod's
interface on the host is the one that its host route leads to.
"""

from __future__ import annotations

__metaclass__ = type

import json
import os

from . import _allocations, _files
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, Sequence, Set, Tuple

    from ._interfaces import Link
    from ._plan_allocations import Allocation

    Data = Dict[str, Any]

# Where libcni keeps what it attached, in a file named NETWORK-CONTAINER-INTERFACE; the second is an older one's.
CACHES = ("/var/lib/cni/results", "/var/lib/cni/cache/results")
CACHE_KIND = "cniCacheV1"
DEFAULT_IFNAME = "eth0"  # host-local has not always kept it
# A folder for each namespace of containerd's, in it one for each container that runs
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
MOST_NAMED = 5  # of what could not be read


def allocated(conflists: Iterable[Data], routed: Dict[str, str]) -> Tuple[List[Tuple[str, Allocation]], List[str]]:
    """What host-local has given to pods of these configurations, with the name of the network; and notes.

    The plugin ptp makes a route to each pod, so what a crash left is told apart and left out. Other plugins leave no such sign.

    :param routed: the interface that each address is behind by a host route.
    """
    found: List[Tuple[str, Allocation]] = []
    notes: List[str] = []
    seen: Set[str] = set()
    for conflist in conflists:
        judged, others = _allocations.stores(conflist)
        for store in sorted({*judged, *others} - seen):
            seen.add(store)
            given = _allocations.read(store, ())
            notes += ["%s/%s %s" % (store, ascii(a.ip)[1:-1], a.doubt) for a in given if a.doubt]
            found += [(str(conflist["name"]), a) for a in given if a.ip in routed or store in others]
            left = sum(a.ip not in routed for a in given) if store in judged else 0
            if left:
                notes.append("%s: %d addresses to which no host route leads: a pod that is being made, or what a crash left (cni_allocations)" % (store, left))
    return found, notes


def pods(conflists: Sequence[Data], routed: Dict[str, str], links: Iterable[Link]) -> Tuple[List[Data], List[str]]:
    """One for each interface of a pod, in the order of their addresses; and notes."""
    given, notes = allocated(conflists, routed)
    veths = {link.name for link in links if link.kind == "veth"}
    by_pod: Dict[Tuple[str, str, str], List[str]] = {}
    for network, allocation in given:
        by_pod.setdefault((network, allocation.container, allocation.ifname or DEFAULT_IFNAME), []).append(allocation.ip)
    found: List[Data] = []
    unread: List[str] = []
    try:
        namespaces = sorted(_files.names_in(TASKS) or ())
    except KindnetError as e:
        namespaces = []
        unread.append(str(e))
    for (network, container, ifname), ips in by_pod.items():
        cached = _cached(network, container, ifname, unread)
        args = arguments_of(cached)
        name, namespace = args.get("K8S_POD_NAME", ""), args.get("K8S_POD_NAMESPACE", "")
        if not name:
            name, namespace = _of_containerd(container, namespaces)
        netns = network_namespace(cached)
        found.append(
            {
                "ips": ips,
                "container": container,
                "name": name,
                "namespace": namespace,
                "interface": next((routed[ip] for ip in ips if ip in routed), "") or host_interface(cached, veths),
                "netns": netns if netns and os.path.exists(netns) else "",
            }
        )
    notes += unread[:MOST_NAMED]
    if unread[MOST_NAMED:]:
        notes.append("%d further files of %s cannot be read" % (len(unread) - MOST_NAMED, CACHES[0]))
    return found, notes


def veths(links: Iterable[Link], addresses: Dict[str, List[str]], found: Iterable[Data], node_interface: str) -> List[Data]:
    """Pure. The host's ends of veth pairs, with the pod behind each where that is known. A node that is a container itself has one more, which is no pod's."""
    container_of = {pod["interface"]: pod["container"] for pod in found if pod["interface"]}
    return [
        {
            "name": link.name,
            "mtu": link.mtu,
            "up": link.is_up,
            "container": container_of.get(link.name, ""),
            "addresses": addresses.get(link.name, []),
        }
        for link in links
        if link.kind == "veth" and link.name != node_interface
    ]


def arguments_of(cached: Data) -> Dict[str, str]:
    """Pure. What the runtime told the plugins of a pod, which is pairs of a name and a value."""
    pairs = cached.get("cniArgs")
    whole = (pair for pair in (pairs if isinstance(pairs, list) else ()) if isinstance(pair, list) and len(pair) == 2)
    return {name: value for name, value in whole if isinstance(name, str) and isinstance(value, str)}


def host_interface(cached: Data, veths: Set[str]) -> str:
    """Pure. The pod's interface on the host, as its plugins told of it: a veth that is in no sandbox."""
    return next((str(i["name"]) for i in _interfaces_of(cached) if not i.get("sandbox") and i.get("name") in veths), "")


def network_namespace(cached: Data) -> str:
    """Pure. Where it is: libcni has not always kept it, but the plugins tell where the pod's end of the pair is."""
    places = [cached.get("netns"), *(interface.get("sandbox") for interface in _interfaces_of(cached))]
    return next((place for place in places if place and isinstance(place, str)), "")


def _interfaces_of(cached: Data) -> List[Data]:
    result = cached.get("result")
    interfaces = result.get("interfaces") if isinstance(result, dict) else None
    return [interface for interface in interfaces if isinstance(interface, dict)] if isinstance(interfaces, list) else []


def _cached(network: str, container: str, ifname: str, unread: List[str]) -> Data:
    """What libcni keeps of one pod; {} if it keeps nothing, or not in a form that we know."""
    if not container or "/" in container + ifname:  # nothing that libcni would accept
        return {}
    for folder in CACHES:
        path = os.path.join(folder, "%s-%s-%s" % (network, container, ifname))
        try:
            with open(path, "rb") as f:
                data = json.loads(f.read(_files.LARGEST))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as e:
            unread.append("%s: cannot be read (%s), so the pod's name is not known" % (path, e.strerror if isinstance(e, OSError) else "it is damaged"))
            continue
        if isinstance(data, dict) and data.get("kind") == CACHE_KIND:
            return data
    return {}


def _of_containerd(container: str, namespaces: Iterable[str]) -> Tuple[str, str]:
    """The name and the namespace of what ctr started, which attaches it as NAMESPACE-NAME; of others the container as it is, and no namespace."""
    for namespace in namespaces:
        name = container[len(namespace) + 1 :]
        if name and container.startswith(namespace + "-") and os.path.isdir(os.path.join(TASKS, namespace, name)):
            return name, namespace
    return container, ""
