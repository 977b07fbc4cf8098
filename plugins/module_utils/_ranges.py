# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ranges of addresses that host-local hands out: of a configuration, and as a user gives them for a node's pod CIDRs. Pure.

A range is a subnet and, where that is not to be used whole, the first and the last address to hand out and the gateway of its pods.
A pod gets one address of each *set* of ranges.
"""

from __future__ import annotations

__metaclass__ = type

import re
import socket
from collections import namedtuple

from ._conflist_data import shown
from ._errors import KindnetError
from ._node_table import BITS, LONGEST_PREFIX, family_of, parse_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

    from ._node_table import Range

    Data = Dict[str, Any]

    class Pool(NamedTuple):
        """What host-local makes of a range: it hands out ``first`` to ``last``, but for the gateway."""

        subnet: Range
        first: int
        last: int
        gateway: int
else:
    Pool = namedtuple("Pool", "subnet first last gateway")

KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway")
ADDRESSES = KEYS[1:]


def range_sets(pod_cidrs: Sequence[str], ranges: Any, extra_ranges: Any) -> List[List[Data]]:
    """The sets for a node: one for each of its pod CIDRs, of the whole unless ``ranges`` lie in it, and one for each of ``extra_ranges``.

    An address may be a number, which counts from the subnet's own address, or from behind its end if it is negative. A range of
    ``ranges`` without a subnet is one of every pod CIDR.
    """
    cidrs = [parse_cidr("pod_cidrs", cidr) for cidr in pod_cidrs]
    sets: List[List[Data]] = [[] for _cidr in cidrs]
    for position, given in enumerate(_entries("ranges", ranges)):
        field = "ranges[%d]" % position
        _refuse_unknown(field, given)
        for subnet in [given["subnet"]] if given.get("subnet") is not None else list(pod_cidrs):
            entry = _completed(field, dict(given, subnet=subnet), "subnet" in given)
            within = parse_cidr(field, entry["subnet"])
            homes = [i for i, cidr in enumerate(cidrs) if _holds(cidr, within)]
            if not homes:
                raise KindnetError(
                    field + ".subnet",
                    within.text,
                    "lies in no pod CIDR of this host (%s), so peers would have no route to its pods" % ", ".join(pod_cidrs),
                    "Correct it, leave it out, or make it one of extra_ranges (of the roles: kindnet_cni_extra_ranges).",
                )
            sets[homes[0]].append(entry)
    whole = [entries or [{"subnet": cidr}] for entries, cidr in zip(sets, pod_cidrs)]
    for position, given in enumerate(_entries("extra_ranges", extra_ranges)):
        field = "extra_ranges[%d]" % position
        _refuse_unknown(field, given)
        entry = _completed(field, given, True)
        subnet = parse_cidr(field, entry["subnet"])
        for cidr in cidrs:
            if _holds(subnet, cidr) and subnet.text != cidr.text:
                raise KindnetError(field + ".subnet", subnet.text, "holds the pod CIDR %s" % cidr.text, "Use a range beside it.")
        whole.append([entry])
    refuse_overlaps("ranges", whole)
    return whole


def without_route(pod_cidrs: Sequence[str], sets: Sequence[Sequence[Data]]) -> List[str]:
    """The subnets of ``sets`` that lie in no pod CIDR."""
    cidrs = [parse_cidr("pod_cidrs", cidr) for cidr in pod_cidrs]
    return [entry["subnet"] for entries in sets for entry in entries if not any(_holds(c, parse_cidr("subnet", entry["subnet"])) for c in cidrs)]


def pool_of(field: str, entry: Data) -> Pool:
    """What host-local makes of a range as it is in a configuration. Raise for what it refuses."""
    subnet = parse_cidr(field + ".subnet", entry.get("subnet"))
    if int(subnet.text.rpartition("/")[2]) > LONGEST_PREFIX[subnet.family]:
        remedy = "Use a prefix length of at most %d." % LONGEST_PREFIX[subnet.family]
        raise KindnetError(field + ".subnet", subnet.text, "is too small for a gateway and a pod", remedy)
    # As host-local has it: from .1 on, and of IPv4 without the broadcast address.
    found = {"rangeStart": subnet.first + 1, "rangeEnd": subnet.last - (subnet.family == 4), "gateway": subnet.first + 1}
    for name in ADDRESSES:
        if entry.get(name) is not None:
            found[name] = _address("%s.%s" % (field, name), entry[name], subnet.family)
    for name in ADDRESSES[:2]:
        if not subnet.first <= found[name] <= subnet.last:
            raise KindnetError("%s.%s" % (field, name), shown(entry[name]), "lies outside of the subnet %s" % subnet.text, "Give an address of it.")
    pool = Pool(subnet, found["rangeStart"], found["rangeEnd"], found["gateway"])
    if pool.first > pool.last:
        name = "rangeEnd" if entry.get("rangeEnd") is not None else "rangeStart"
        problem = "makes a range that ends before it starts: %s" % span(pool)
        raise KindnetError("%s.%s" % (field, name), shown(entry[name]), problem, "Exchange the two, or correct one.")
    if pool.first == pool.last == pool.gateway:
        name = "gateway" if entry.get("gateway") is not None else "rangeEnd"
        problem = "leaves no address for a pod: %s is the gateway alone" % span(pool)
        raise KindnetError("%s.%s" % (field, name), shown(entry[name]), problem, "Make the range larger.")
    return pool


def refuse_overlaps(field: str, sets: Sequence[Sequence[Data]]) -> None:
    """Raise if two ranges have an address in common, which host-local refuses, or a set has ranges of both families."""
    pools: List[Tuple[int, Pool]] = []
    for number, entries in enumerate(sets):
        for entry in entries:
            pool = pool_of(field, entry)
            for other_number, other in pools:
                if number == other_number and pool.subnet.family != other.subnet.family:
                    raise KindnetError(
                        field, pool.subnet.text, "is in one set with %s, of another family" % other.subnet.text, "Give each family sets of its own."
                    )
                if pool.subnet.family == other.subnet.family and pool.first <= other.last and other.first <= pool.last:
                    raise KindnetError(field, span(pool), "overlaps %s" % span(other), "Give every address to one range.")
            pools.append((number, pool))


def span(pool: Pool) -> str:
    return "%s-%s" % (_text(pool.subnet.family, pool.first), _text(pool.subnet.family, pool.last))


def _text(family: int, number: int) -> str:
    """An address as ``ip`` prints it."""
    return socket.inet_ntop(socket.AF_INET6 if family == 6 else socket.AF_INET, number.to_bytes(BITS[family] // 8, "big"))


def _entries(field: str, value: Any) -> List[Any]:
    if value is None or value == "":
        return []
    if not isinstance(value, (list, tuple)):
        raise KindnetError(field, shown(value), "is not a list", "Give a list of mappings of %s." % ", ".join(KEYS))
    return list(value)


def _refuse_unknown(field: str, given: Any) -> None:
    if not isinstance(given, dict):
        raise KindnetError(field, shown(given), "is not a mapping", "Give %s." % ", ".join(KEYS))
    unknown = sorted(str(key) for key in given if key not in KEYS)
    if unknown:
        raise KindnetError("%s.%s" % (field, unknown[0]), shown(given.get(unknown[0])), "is no field of a range", "Known are %s." % ", ".join(KEYS))


def _completed(field: str, given: Data, own_subnet: bool) -> Data:
    """A range with every address as text, and no host's address that a network has for itself."""
    subnet = parse_cidr(field + ".subnet", given.get("subnet"))
    entry: Data = {"subnet": subnet.text}
    for name in ADDRESSES:
        if given.get(name) is None:
            continue
        where, number = "%s.%s" % (field, name), _position(given[name])
        if number is not None:
            number += subnet.first if number >= 0 else subnet.last + 1
        elif not own_subnet:
            raise KindnetError(
                where, shown(given[name]), "is an address of one node, and the range is without a subnet", "Give a number such as 10, or the subnet."
            )
        else:
            number = _address(where, given[name], subnet.family)
        if not subnet.first <= number <= subnet.last:
            raise KindnetError(where, shown(given[name]), "lies outside of the subnet %s" % subnet.text, "Give an address of it.")
        if number == subnet.first or subnet.family == 4 and number == subnet.last:
            what = "network" if number == subnet.first else "broadcast"
            raise KindnetError(where, shown(given[name]), "is the %s address of %s" % (what, subnet.text), "Give the address of a host.")
        entry[name] = _text(subnet.family, number)
    pool_of(field, entry)
    return entry


def _position(value: Any) -> Optional[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.match(r"-?[0-9]{1,20}\Z", value.strip()):
        return int(value)  # templating makes text of a number
    return None


def _address(field: str, value: Any, family: int) -> int:
    if not isinstance(value, str):
        raise KindnetError(field, shown(value), "is not an IP address", "Write it as a string in quotes, such as '10.244.1.10'.")
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in value else socket.AF_INET, value)
    except (OSError, ValueError):
        raise KindnetError(field, shown(value), "is not an IP address", "Write an IPv4 or IPv6 address as digits; names are never looked up.")
    if family_of(value) != family:
        raise KindnetError(field, value, "is IPv%d, and the subnet is IPv%d" % (family_of(value), family), "Give an address of the subnet.")
    return int.from_bytes(packed, "big")


def _holds(outer: Range, inner: Range) -> bool:
    return outer.family == inner.family and outer.first <= inner.first and inner.last <= outer.last
