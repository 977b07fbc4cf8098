# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table: who the nodes are, where they are reached, and which pods live there.

Pure, and the same on the controller and on a node. A table is right as a whole or refused as a whole: a wrong entry for one
node would send another node's traffic astray.
"""

from __future__ import annotations

__metaclass__ = type

import json
import socket
from bisect import bisect_right
from collections import namedtuple

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Set, Tuple, Union

    class Node(NamedTuple):
        """One node; every address is canonical text."""

        name: str
        node_ips: Tuple[str, ...]  # in the order of preference; the first of a family is that family's next hop
        pod_cidrs: Tuple[str, ...]

    class Range(NamedTuple):
        """Addresses of one family from ``first`` to ``last``, both included. Sorts by family, then by address."""

        family: int  # 4 or 6
        first: int
        last: int
        text: str
else:
    Node = namedtuple("Node", "name node_ips pod_cidrs")
    Range = namedtuple("Range", "family first last text")

KEYS = ("name", "node_ips", "pod_cidrs")
BITS = {4: 32, 6: 128}
# A pod CIDR needs its network address, the gateway of the pods and at least one pod: what host-local refuses is refused here.
LONGEST_PREFIX = {4: 30, 6: 126}


def family_of(address_or_cidr: str) -> int:
    """4 or 6, of text that is already known to be right."""
    return 6 if ":" in address_or_cidr else 4


def parse_address(field: str, value: Any) -> Range:
    """One unicast address that other nodes can reach.

    :param field: what to call it in an error.
    """
    if not isinstance(value, str):
        raise KindnetError(field, _shown(value), "is not an IP address", "Write it as a string in quotes, such as '172.18.0.2'.")
    text = value.strip()
    if "%" in text:
        raise KindnetError(field, _shown(value), "has a zone, so it means something on one host only", "Use an address that every node can reach.")
    if "/" in text:
        raise KindnetError(field, _shown(value), "is a network, not an address", "Leave out the prefix length: %s." % text.split("/")[0])
    family, number = _number(field, value, text)
    canonical = _text(family, number)
    for special, what in SPECIAL[family]:
        if special.first <= number <= special.last:
            raise KindnetError(
                field, _shown(value), "is %s address (%s)" % (what, special.text), "Use a unicast address that every node can reach."
            )
    return Range(family, number, number, canonical)


def parse_cidr(field: str, value: Any) -> Range:
    """One network without host bits, outside of what can never be routed between nodes.

    :param field: what to call it in an error.
    """
    if not isinstance(value, str) or "/" not in value:
        raise KindnetError(field, _shown(value), "is not a CIDR", "Write address and prefix length as a string in quotes, such as '10.244.1.0/24'.")
    address, _slash, prefix = value.strip().partition("/")
    family, number = _number(field, value, address)
    bits = BITS[family]
    # The length is looked at before the number: int() takes as long as the text is.
    if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3 and str(int(prefix)) == prefix and int(prefix) <= bits):
        raise KindnetError(field, _shown(value), "has no valid prefix length", "Write a number from 0 to %d behind the slash." % bits)
    hosts = (1 << (bits - int(prefix))) - 1
    first = number & ~hosts
    canonical = "%s/%s" % (_text(family, first), prefix)
    if number & hosts:
        raise KindnetError(field, _shown(value), "has host bits set", "Write %s." % canonical)
    for special, what in SPECIAL[family]:
        if first <= special.last and special.first <= first | hosts:
            raise KindnetError(
                field, _shown(value), "overlaps %s, %s range" % (special.text, what), "Use a range of unicast addresses, such as one out of RFC 1918."
            )
    return Range(family, first, first | hosts, canonical)


def parse_cidrs(field: str, value: Any) -> Tuple[str, ...]:
    """A list of CIDRs (or the same as one comma-separated string) as canonical text, in the given order."""
    return tuple(parse_cidr(field, item).text for item in as_list(field, value))


def parse_nodes(nodes: Union[str, Sequence[Dict[str, Any]]], cluster_cidrs: Sequence[str] = ()) -> Tuple[Node, ...]:
    """The node table in canonical form, in the given order.

    :param nodes: mappings of ``name``, ``node_ips`` and ``pod_cidrs``, or the same as one JSON string.
    :param cluster_cidrs: what every pod CIDR must lie in; empty: not checked.

    Errors: one :class:`KindnetError` for the first thing that is wrong. Costs O(n log n).
    """
    entries = _entries(nodes)
    clusters = [parse_cidr("cluster_cidrs", c) for c in cluster_cidrs]
    table: List[Node] = []
    names: Set[str] = set()
    addresses: List[Tuple[Range, str]] = []
    networks: List[Tuple[Range, str]] = []
    for position, entry in enumerate(entries):
        name = _name(position, entry)
        if name in names:
            raise KindnetError("nodes", name, "is in the table more than once", "Keep one entry for each node.")
        names.add(name)
        ips = [parse_address("node_ips of %s" % name, a) for a in as_list("node_ips of %s" % name, entry.get("node_ips"))]
        cidrs = [_pod_range("pod_cidrs of %s" % name, c) for c in as_list("pod_cidrs of %s" % name, entry.get("pod_cidrs"))]
        _complete(name, ips, cidrs)
        _inside_clusters(name, cidrs, clusters)
        addresses.extend((r, name) for r in ips)
        networks.extend((r, name) for r in cidrs)
        table.append(Node(name, tuple(r.text for r in ips), tuple(r.text for r in cidrs)))
    _addresses_differ(addresses)
    networks.sort()
    _networks_disjoint(networks)
    _no_node_inside("pod_cidrs of", networks, addresses)
    # Cluster CIDRs may contain each other, and there are few.
    for cluster in clusters:
        _no_node_inside("cluster_cidrs", [(cluster, "")], addresses)
    return tuple(table)


def find_node(nodes: Iterable[Node], node_name: str) -> Node:
    """The entry of this host, by its name in the table."""
    known = []
    for node in nodes:
        if node.name == node_name:
            return node
        known.append(node.name)
    raise KindnetError(
        "node_name",
        node_name,
        "is not in the node table (%s)" % shorten(known),
        "Put this host into the inventory group kindnet_nodes, or into kindnet_node_table, under this very name.",
    )


def dump_nodes(nodes: Iterable[Node]) -> str:
    """The table as one JSON string, the form in which it travels: Ansible templates and checks a list item by item."""
    return json.dumps([{"name": n.name, "node_ips": n.node_ips, "pod_cidrs": n.pod_cidrs} for n in nodes], separators=(",", ":"))


def shorten(names: Sequence[str], most: int = 8) -> str:
    """Names for a message that stays readable with thousands of them."""
    if len(names) <= most:
        return ", ".join(names) or "none"
    return "%s and %d more" % (", ".join(names[:most]), len(names) - most)


def as_list(field: str, value: Any) -> List[Any]:
    """A list, also where an INI inventory could only say ``a,b``. None is the empty list."""
    if value is None:
        return []
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    raise KindnetError(field, _shown(value), "is not a list", "Write a list of strings.")


def _entries(nodes: Any) -> List[Any]:
    if isinstance(nodes, (str, bytes)):
        try:
            nodes = json.loads(nodes)
        except ValueError as e:
            # Not what it says: modules hide the table, so Ansible would make asterisks of it.
            raise KindnetError("nodes", "%d characters" % len(nodes), "is not JSON (%s)" % e, "Give a list of nodes, or the same as one JSON string.")
    if not isinstance(nodes, (list, tuple)):
        raise KindnetError("nodes", _shown(nodes), "is not a list", "Give a list of mappings with %s." % ", ".join(KEYS))
    if not nodes:
        raise KindnetError(
            "nodes", "0 entries", "the node table is empty", "Put hosts into the inventory group kindnet_nodes, or write kindnet_node_table."
        )
    return list(nodes)


def _name(position: int, entry: Any) -> str:
    where = "nodes[%d]" % position
    if not isinstance(entry, dict):
        raise KindnetError(where, _shown(entry), "is not a mapping", "Write %s for each node." % ", ".join(KEYS))
    unknown = sorted(str(k) for k in entry if k not in KEYS)
    if unknown:
        raise KindnetError(where, ", ".join(unknown), "is no key of a node (%s)" % _shown(entry.get("name")), "Known are %s." % ", ".join(KEYS))
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise KindnetError(where + ".name", _shown(name), "is not a name", "Write the host's name in the inventory, as a string.")
    if not name.isprintable() or " " in name or len(name) > 253:
        problem = "has blanks or control characters, or is longer than a host name can be"
        raise KindnetError(where + ".name", _shown(ascii(name)), problem, "Use the host's name in the inventory.")
    # ansible's own string classes are not plain ones, and compare and dump slower
    return str(name)


def _complete(name: str, ips: List[Range], cidrs: List[Range]) -> None:
    if not ips:
        raise KindnetError(
            "node_ips of %s" % name,
            "none",
            "the node has no address, so no peer could reach its pods",
            "Set kindnet_node_ips of %s, or a literal address in ansible_host." % name,
        )
    if not cidrs:
        raise KindnetError(
            "pod_cidrs of %s" % name,
            "none",
            "the node has no pod CIDR, so its pods could get no address",
            "Set kindnet_pod_cidrs of %s, such as ['10.244.1.0/24']." % name,
        )
    families = {r.family for r in ips}
    for cidr in cidrs:
        if cidr.family not in families:
            raise KindnetError(
                "pod_cidrs of %s" % name,
                cidr.text,
                "is IPv%d, and the node has no IPv%d address to be its next hop (node_ips: %s)"
                % (cidr.family, cidr.family, ", ".join(r.text for r in ips)),
                "Add an IPv%d address to kindnet_node_ips of %s, or drop this pod CIDR." % (cidr.family, name),
            )


def _pod_range(field: str, value: Any) -> Range:
    cidr = parse_cidr(field, value)
    longest = LONGEST_PREFIX[cidr.family]
    if int(cidr.text.rpartition("/")[2]) > longest:
        raise KindnetError(field, _shown(value), "is too small for a gateway and a pod", "Use a prefix length of at most %d." % longest)
    return cidr


def _inside_clusters(name: str, cidrs: List[Range], clusters: List[Range]) -> None:
    if not clusters:
        return
    for cidr in cidrs:
        if not any(c.family == cidr.family and c.first <= cidr.first and cidr.last <= c.last for c in clusters):
            raise KindnetError(
                "pod_cidrs of %s" % name,
                cidr.text,
                "lies outside every cluster CIDR (%s), so its packets would leave with the node's address" % ", ".join(c.text for c in clusters),
                "Correct kindnet_pod_cidrs of %s, or add the range to kindnet_cluster_cidrs." % name,
            )


def _addresses_differ(addresses: List[Tuple[Range, str]]) -> None:
    owners: Dict[str, str] = {}
    for address, name in addresses:
        other = owners.setdefault(address.text, name)
        if other != name:
            raise KindnetError(
                "node_ips of %s" % name,
                address.text,
                "is also the address of %s" % other,
                "Correct kindnet_node_ips or ansible_host of %s or %s." % (other, name),
            )
    if len(owners) != len(addresses):
        seen: Set[str] = set()
        for address, name in addresses:
            if address.text in seen:
                raise KindnetError("node_ips of %s" % name, address.text, "is given twice", "Write each address once.")
            seen.add(address.text)


def _networks_disjoint(networks: List[Tuple[Range, str]]) -> None:
    """Sorted as they are, the first overlap there is shows between two neighbours."""
    for (a, owner), (b, name) in zip(networks, networks[1:]):
        if a.family == b.family and b.first <= a.last:
            who = "%s of the same node" % a.text if owner == name else "%s of %s" % (a.text, owner)
            raise KindnetError(
                "pod_cidrs of %s" % name,
                b.text,
                "overlaps %s" % who,
                "Give every node ranges of its own%s." % ("" if owner == name else ": correct kindnet_pod_cidrs of %s or %s" % (owner, name)),
            )


def _no_node_inside(what: str, networks: List[Tuple[Range, str]], addresses: List[Tuple[Range, str]]) -> None:
    """No node's address within ``networks`` (sorted, disjoint): peers would then look for that node among pods."""
    starts = [(r.family, r.first) for r, _owner in networks]
    for address, name in addresses:
        at = bisect_right(starts, (address.family, address.first)) - 1
        if at < 0:
            continue
        network, owner = networks[at]
        if network.family == address.family and address.first <= network.last:
            raise KindnetError(
                ("%s %s" % (what, owner)).strip(),
                network.text,
                "overlaps the node network: it contains %s, the address of %s" % (address.text, name),
                "Use a range for pods that holds no node's address.",
            )


def _number(field: str, value: Any, text: str) -> Tuple[int, int]:
    family = family_of(text)
    try:
        packed = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, text)
    except (OSError, ValueError):
        if text.startswith("["):
            remedy = "Leave out the brackets."
        elif "/" in str(value):
            raise KindnetError(field, _shown(value), "is not a CIDR", "Write the whole address and a prefix length, such as 10.244.1.0/24.")
        else:
            remedy = "Write an IPv4 or IPv6 address as digits; names are never looked up."
        raise KindnetError(field, _shown(value), "is not an IP address", remedy)
    return family, int.from_bytes(packed, "big")


def _text(family: int, number: int) -> str:
    """The form in which ``ip`` prints it: IPv6 compressed, in lower case."""
    return socket.inet_ntop(socket.AF_INET6 if family == 6 else socket.AF_INET, number.to_bytes(BITS[family] // 8, "big"))


def _special(family: int, cidr: str, what: str) -> Tuple[Range, str]:
    address, _slash, prefix = cidr.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if family == 6 else socket.AF_INET, address)
    first = int.from_bytes(packed, "big")
    return Range(family, first, first | ((1 << (BITS[family] - int(prefix))) - 1), cidr), what


def _shown(value: Any) -> str:
    """A value for a message: recognisable, and never pages of it."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else "%s... (%d characters)" % (text[:60], len(text))


# Neither a next hop nor a pod can have one of these.
SPECIAL = {
    4: (
        _special(4, "0.0.0.0/8", "an unspecified"),
        _special(4, "127.0.0.0/8", "a loopback"),
        _special(4, "169.254.0.0/16", "a link-local"),
        _special(4, "224.0.0.0/4", "a multicast"),
        _special(4, "255.255.255.255/32", "the broadcast"),
    ),
    6: (
        _special(6, "::/128", "an unspecified"),
        _special(6, "::1/128", "a loopback"),
        _special(6, "::ffff:0:0/96", "an IPv4-mapped"),
        _special(6, "fe80::/10", "a link-local"),
        _special(6, "ff00::/8", "a multicast"),
    ),
}
