# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between whom a packet is walked: from what an operator types to an address, and to the node it is on. Pure.

A pod is named by its container id (or the beginning of one that no other has), its name, or an address; a node by its name or an address. No
name is ever looked up anywhere else.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
from collections import namedtuple

from ..module_utils._errors import KindnetError
from ..module_utils._lookups import SINGLE
from ..module_utils._node_table import family_of, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

    from ..module_utils._node_table import Node

    Data = Dict[str, Any]

    class End(NamedTuple):
        """One end of a walk."""

        kind: str  # POD, NODE, ABSENT (an address of a pod CIDR that no pod is known to have), OUTSIDE
        name: str  # as a person calls it
        address: str
        node: str  # where it is; "" of OUTSIDE
        interface: str = ""  # of a pod, the host's end of its link
        netns: str = ""  # of a pod, the path of its network namespace

    class Candidate(NamedTuple):
        """Whom a word may mean."""

        kind: str
        name: str
        node: str
        ips: Tuple[str, ...]
        container: str
        interface: str
        netns: str
else:
    End = namedtuple("End", "kind name address node interface netns", defaults=("", ""))
    Candidate = namedtuple("Candidate", "kind name node ips container interface netns")

POD, NODE, ABSENT, OUTSIDE = "pod", "node", "absent", "outside"
MOST_ADDRESSES = 32  # of both nodes, that a source may be translated to; where kube-proxy uses IPVS, a node has one for each Service
POD_SOURCES = {"pods", "CNI configurations", "recorded CNI configuration"}  # what kindnet_info knows pods from, by its names of them
SHORTEST = 4  # characters of a container id that stand for it
HOW = {
    "src": "Write -e src=POD_OR_NODE: a pod's container id, name or address, or a node's name.",
    "dst": "Write -e dst=ADDRESS_OR_POD: an address, a pod's container id or name, or a node's name.",
}


def find_ends(src: Any, dst: Any, nodes: Sequence[Node], infos: Mapping[str, Data]) -> Tuple[End, End]:
    """Both ends, with addresses of one family: IPv4 if both have one, unless an address says otherwise.

    :param infos: what kindnet_info told of each host; of one that it could not ask, {}.
    """
    known = _candidates(nodes, infos)
    missing = _missing(nodes, infos)
    others = _other_addresses(nodes, infos)
    ends = [_find(field, value, known, others, nodes, missing) for field, value in (("src", src), ("dst", dst))]
    families = [[family_of(ip) for ip in candidate.ips] for candidate in ends]
    family = next((f for f in (4, 6) if f in families[0] and f in families[1]), 0)
    if not family:
        raise KindnetError(
            "dst", dst, "%s and %s have no addresses of one family (%s; %s)" % (ends[0].name, ends[1].name, *(", ".join(e.ips) for e in ends)),
            "Walk between two that both have IPv4, or both IPv6.",
        )
    source, destination = (
        End(e.kind, e.name, next(ip for ip in e.ips if family_of(ip) == family), e.node, e.interface, e.netns) for e in ends
    )
    if source.address == destination.address:
        raise KindnetError("dst", dst, "is %s, which is the source too" % destination.address, "Name two different ends.")
    return source, destination


def flows_of(source: End, destination: End, nodes: Sequence[Node], infos: Mapping[str, Data]) -> List[Data]:
    """What every node is asked: the packet and its answer; and both once more with each address that the source may be translated to."""
    asked = [(source.address, destination.address, True), (destination.address, source.address, False)]
    for address in addresses_of({source.node, destination.node}, family_of(source.address), nodes, infos):
        if address not in (source.address, destination.address):
            asked += [(address, destination.address, False), (destination.address, address, False)]
    return [{"source": s, "destination": d, "begins": begins} for s, d, begins in asked]


def addresses_of(names: Any, family: int, nodes: Sequence[Node], infos: Mapping[str, Data]) -> List[str]:
    """The addresses of these nodes, those by which peers reach them first, then those with a network behind them."""
    found = [ip for n in nodes if n.name in names for ip in n.node_ips]
    others = [a for name in sorted(n for n in names if n) for a in infos.get(name, {}).get("addresses", ())]
    found += [a["ip"] for a in sorted(others, key=lambda a: bool(a["prefix_length"] == SINGLE[family]))]
    return list(dict.fromkeys(ip for ip in found if family_of(ip) == family))[:MOST_ADDRESSES]


def holder_of(address: str, nodes: Sequence[Node]) -> Tuple[str, str]:
    """The node and the pod CIDR that an address is of; both "" if none."""
    ip = ipaddress.ip_address(address)
    for node in nodes:
        for cidr in node.pod_cidrs:
            if ip in ipaddress.ip_network(cidr):
                return node.name, cidr
    return "", ""


def _candidates(nodes: Sequence[Node], infos: Mapping[str, Data]) -> List[Candidate]:
    found = [Candidate(NODE, n.name, n.name, tuple(n.node_ips), "", "", "") for n in nodes]
    for name in sorted(infos):
        for pod in infos[name].get("pods", ()):
            label = pod.get("name") or pod.get("container") or (list(pod.get("ips", ())) or [""])[0]
            if pod.get("namespace", "default") not in ("", "default"):
                label = "%s/%s" % (pod["namespace"], label)
            found.append(
                Candidate(POD, label, name, tuple(pod.get("ips", ())), pod.get("container", ""), pod.get("interface", ""), pod.get("netns", ""))
            )
    return found


def _missing(nodes: Sequence[Node], infos: Mapping[str, Data]) -> str:
    """Whose pods may be meant and are not known, as sentences; "" if there are none."""
    unasked = sorted(n.name for n in nodes if not infos.get(n.name))
    blind = sorted(n.name for n in nodes if is_blind(infos.get(n.name, {})))
    return "".join(words % shorten(names) for words, names in (
        (" Not asked, since they could not be reached: %s.", unasked), (" Could not tell their pods (see kindnet_info): %s.", blind),
    ) if names)


def is_blind(info: Mapping[str, Any]) -> bool:
    """Whether a host could not tell which pods it has, by what kindnet_info returned."""
    return bool(POD_SOURCES.intersection(info.get("unseen") or ()))


def _other_addresses(nodes: Sequence[Node], infos: Mapping[str, Data]) -> Dict[str, List[str]]:
    """Who has an address that is not the one by which peers reach it, such as that of another network, or the gateway of its pods."""
    found: Dict[str, List[str]] = {}
    for node in nodes:
        for ip in dict.fromkeys(a["ip"] for a in infos.get(node.name, {}).get("addresses", ())):
            found.setdefault(ip, []).append(node.name)
    return found


def _find(
    field: str, value: Any, known: Sequence[Candidate], others: Mapping[str, Sequence[str]], nodes: Sequence[Node], missing: str
) -> Candidate:
    if not isinstance(value, str) or not value.strip():
        raise KindnetError(field, repr(value if value is not None else ""), "is missing", HOW[field])
    text = value.strip()
    address = _address(text)
    found = [c for c in known if address in c.ips] if address else _with_name(text, known)
    owners = others.get(address, ()) if address and not found else ()
    if len(owners) == 1:  # one that many have, such as that of Docker's bridge, says nothing about whom it means
        found = [c for c in known if (c.kind, c.node) == (NODE, owners[0])]
    if len({(c.node, c.kind, c.container) for c in found}) > 1:
        listed = ["%s %s on %s (%s)" % (c.kind, c.name, c.node, c.container or ", ".join(c.ips)) for c in found]
        raise KindnetError(field, text, "is more than one: %s" % shorten(sorted(listed)), "Write the address or the whole container id of the one you mean.")
    if found:
        return found[0]._replace(ips=(address,)) if address else found[0]._replace(ips=tuple(ip for c in found for ip in c.ips))
    if not address:
        names = shorten(sorted({c.name for c in known}))
        raise KindnetError(field, text, "is neither a node nor a pod that runs on one", "There are %s.%s Names are not looked up elsewhere. %s" % (
            names, missing, HOW[field]))
    holder, _cidr = holder_of(address, nodes)
    if field == "src":
        where = ", which is of %s" % holder if holder else ""
        raise KindnetError(field, text, "is no address of a pod or of a node%s" % where, "See which pods run there.%s %s" % (missing, HOW[field]))
    return Candidate(ABSENT if holder else OUTSIDE, address, holder, (address,), "", "", "")


def _with_name(text: str, known: Sequence[Candidate]) -> List[Candidate]:
    found = [c for c in known if text in (c.name, c.container, c.name.rpartition("/")[2])]
    if found or len(text) < SHORTEST:
        return found
    return [c for c in known if c.container.startswith(text)]


def _address(text: str) -> Optional[str]:
    try:
        return None if "%" in text else str(ipaddress.ip_address(text))
    except ValueError:
        return None
