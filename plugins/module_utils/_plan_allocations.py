# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of host-local's allocations nobody uses. Pure.

Whatever speaks for a pod keeps its address, and so does everything that cannot be told: an address that two pods have is worse than one
that none has.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from collections import namedtuple

from ._plan import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple

    from ._host_ports import HostPorts

    class Allocation(NamedTuple):
        """A file of host-local's, named as the address that it stands for."""

        store: str
        ip: str  # as the file is called, which is canonical
        container: str
        ifname: str
        time: float  # of its making; host-local never writes it again
        doubt: str = ""  # why nothing more is known of it
        subnet: str = ""  # the range that it is of; "" if it is of none

    class Seen(NamedTuple):
        """What speaks for addresses that are in use."""

        adding: FrozenSet[str]  # containers for which a CNI plugin runs at this moment
        addresses: FrozenSet[str]  # of all network namespaces
        routes: Tuple[Any, ...]  # destinations of all tables, as networks
        doubts: Tuple[str, ...]  # what could not be looked at
else:
    Allocation = namedtuple("Allocation", "store ip container ifname time doubt subnet", defaults=("", ""))
    Seen = namedtuple("Seen", "adding addresses routes doubts")

RELEASE = "release"


def leaked(allocations: Sequence[Allocation], seen: Seen, now: float, min_age: float) -> List[Allocation]:
    """Those that no pod has. None at all if a place where a pod might be could not be looked at."""
    if seen.doubts:
        return []
    return [a for a in allocations if not a.doubt and now - a.time > min_age and not _is_adding(a, seen) and not is_used(a.ip, a.subnet, seen)]


def is_used(ip: str, subnet: str, seen: Seen) -> bool:
    """Whether a namespace has ``ip``, or a route of part of ``subnet`` leads to it: ptp makes one for each pod."""
    if ip in seen.addresses:
        return True
    address = ipaddress.ip_address(ip)
    shortest = ipaddress.ip_network(subnet).prefixlen + 1 if subnet else address.max_prefixlen
    return any(r.version == address.version and r.prefixlen >= shortest and address in r for r in seen.routes)


def range_of(ip: str, subnets: Sequence[str]) -> str:
    """The one of ``subnets`` that holds ``ip``; "" if none does."""
    for subnet in subnets:
        if ipaddress.ip_address(ip) in ipaddress.ip_network(subnet, strict=False):
            return str(ipaddress.ip_network(subnet, strict=False))
    return ""


def canonical(name: str) -> Optional[str]:
    """The address that a file is named as; None for the lock and other files of host-local's."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return None


def releasing(allocation: Allocation) -> Change:
    return Change(
        "allocation %s" % allocation.ip,
        "remove",
        "of %s in %s" % (holder(allocation), allocation.store),
        "",
        "no pod has it",
        (RELEASE, allocation),
    )


def holder(allocation: Allocation) -> str:
    """Who asked for the address, for a message: the file may say anything."""
    return "container %s" % (ascii(" ".join(filter(None, (allocation.container[:64], allocation.ifname[:16]))))[1:-1] or "unknown")


def _is_adding(allocation: Allocation, seen: Seen) -> bool:
    return allocation.container in seen.adding or not allocation.container and bool(seen.adding)


def without_pod(host_ports: Sequence[HostPorts], kept: Sequence[Allocation], seen: Seen) -> List[HostPorts]:
    """Those that lead to addresses which no pod has."""
    if seen.doubts:
        return []
    ips = {a.ip for a in kept}
    return [h for h in host_ports if h.targets and not any(t in ips or canonical(t) is None or is_used(t, "", seen) for t in h.targets)]
