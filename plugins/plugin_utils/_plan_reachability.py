# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks whom for an echo, and what the answers come to as an entry of the report. Pure."""

from __future__ import annotations

__metaclass__ = type

import ipaddress
import itertools
import random
from collections import namedtuple

from ..module_utils._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

    class Pod(NamedTuple):
        """The pod that stands for all of its node."""

        label: str
        netns: str  # "" if it is not known: then it is asked, and asks nobody
        ips: Tuple[str, ...]

    class Host(NamedTuple):
        """A node of the cluster, as this run sees it."""

        name: str
        node_ips: Tuple[str, ...]
        why_not: str = ""  # why it cannot ask: it was not reached, or takes no part
        reached: bool = True  # False if it was to take part and could not be reached
        pod: Optional[Pod] = None
        is_blind: bool = False  # it could not tell which pods it has

    class Flow(NamedTuple):
        """One source, one target, and the address to ask."""

        kind: str
        source_host: str
        source: str
        netns: str
        source_ips: Tuple[str, ...]  # that its namespace has to have
        target_host: str
        target: str
        address: str

    class Plan(NamedTuple):
        hosts: Tuple[Host, ...]  # in the order of their names
        sample: int  # how many others each host asks; 0 for all of them
        flows: Dict[str, Tuple[Flow, ...]]  # by the host that is to ask
        not_tried: Tuple[str, ...]
else:
    Pod = namedtuple("Pod", "label netns ips")
    Host = namedtuple("Host", "name node_ips why_not reached pod is_blind", defaults=("", True, None, False))
    Flow = namedtuple("Flow", "kind source_host source netns source_ips target_host target address")
    Plan = namedtuple("Plan", "hosts sample flows not_tried")

KINDS = POD_TO_POD, NODE_TO_POD, NODE_TO_NODE = ("pod to pod", "node to pod", "node to node")
# With more hosts than the first, each asks as many as the second unless it is said otherwise.
FULL_UP_TO, USUAL_SAMPLE = 50, 10


def parse_sample(value: Any, hosts: int) -> int:
    """How many others each host asks; 0 for all of them."""
    if value in (None, "", "auto"):
        return USUAL_SAMPLE if hosts > FULL_UP_TO else 0
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()):
        raise KindnetError("sample", ascii(value), "is not a number of hosts", "Write how many others each host is to ask, 0 for all, or auto.")
    return 0 if int(text) >= hosts - 1 else int(text)


def pod_of(host: str, pod_cidrs: Sequence[str], pods: Sequence[Mapping[str, Any]]) -> Optional[Pod]:
    """One pod of a host, the same one in every run while it is there: with addresses of most families, with a namespace to ask from."""
    networks = [ipaddress.ip_network(cidr) for cidr in pod_cidrs]
    found = []
    for pod in pods:
        ips = tuple(ip for ip in pod["ips"] if any(ipaddress.ip_address(ip) in network for network in networks))
        if ips:
            words = [pod.get("namespace") or "", pod.get("name") or str(pod.get("container") or ips[0])[:12]]
            found.append(Pod("/".join([host, *filter(None, words)]), pod.get("netns") or "", ips))
    return min(found, key=lambda pod: (-len({":" in ip for ip in pod.ips}), not pod.netns, pod.label), default=None)


def who_asks_whom(names: Sequence[str], asking: Sequence[str], sample: int, seed: int) -> Dict[str, List[str]]:
    """For each of ``asking``, the others that it asks, in its order. With a sample, every host is asked by as many others as each asks.

    All hosts stand in a circle, and each asks those that follow it. So at any moment of a run they ask different ones, and each is linked
    to every other by some chain of questions. Where one does not ask, the next ones before it do in its place.
    """
    circle = sorted(names)
    random.Random(seed).shuffle(circle)
    size, able = len(circle), set(asking)
    askers = [position for position, name in enumerate(circle) if name in able]
    whom: Dict[str, List[Tuple[int, str]]] = {circle[position]: [] for position in askers}
    first = 0  # of the askers, the first that does not stand ahead of the target
    for position, target in enumerate(circle):
        ahead = (askers[first - number] for number in range(1, len(askers) + 1))  # the nearest first, round the circle
        for asker in itertools.islice((asker for asker in ahead if asker != position), sample or None):
            whom[circle[asker]].append(((position - asker) % size, target))
        first += target in able
    return {name: [target for _steps, target in sorted(pairs)] for name, pairs in whom.items()}


def plan(hosts: Sequence[Host], sample: int, seed: int) -> Plan:
    """Every question of a run, by the host that asks it.

    The pod of a host asks the others' pods. The host asks their pods and themselves, so that what is lost between the hosts is told
    from what is lost within one; and its own pod.
    """
    hosts = tuple(sorted(hosts))
    by_name = {host.name: host for host in hosts}
    flows: Dict[str, Tuple[Flow, ...]] = {}
    for name, targets in who_asks_whom([h.name for h in hosts], [h.name for h in hosts if not h.why_not], sample, seed).items():
        host = by_name[name]
        own: List[Flow] = []
        if host.pod and host.pod.netns:
            for other in (by_name[t] for t in targets):
                own += _to_pod(POD_TO_POD, host, host.pod, other)
        itself = Pod(name, "", host.node_ips)
        for other in [host] + [by_name[t] for t in targets]:
            own += _to_pod(NODE_TO_POD, host, itself, other)
        for other in (by_name[t] for t in targets):
            own += [Flow(NODE_TO_NODE, name, name, "", (), other.name, other.name, ip) for ip in _first_of_each_family(other.node_ips, host.node_ips)]
        flows[name] = tuple(own)
    return Plan(hosts, sample, flows, _not_tried(hosts))


def sources_of(flows: Sequence[Flow]) -> List[Dict[str, Any]]:
    """The flows of one host as kindnet_ping takes them: its results are then in this order of the flows."""
    sources: List[Dict[str, Any]] = []
    for flow in flows:
        if not sources or sources[-1]["name"] != flow.source:
            sources.append({"name": flow.source, "netns": flow.netns, "source_ips": list(flow.source_ips), "targets": []})
        sources[-1]["targets"].append(flow.address)
    return sources


def entry(made: Plan, answers: Mapping[str, Sequence[Mapping[str, Any]]], failures: Mapping[str, str], generated: str) -> Dict[str, Any]:
    """The entry "reachability" of the report.

    :param answers: what kindnet_ping returned, by the host that asked.
    :param failures: why a host that was to ask has nothing to tell.
    """
    flows = [flow for flow_list in made.flows.values() for flow in flow_list]
    both = len({":" in flow.address for flow in flows}) > 1
    results = []
    not_asked = [{"host": h.name, "reached": h.reached, "message": h.why_not} for h in made.hosts if h.why_not]
    for host in made.hosts:
        if host.why_not:
            continue
        told = answers.get(host.name)
        if told is None:
            not_asked.append({"host": host.name, "reached": host.name in failures, "message": failures.get(host.name, "told nothing")})
            continue
        results += [_result(flow, _target(flow, both), answer) for flow, answer in zip(made.flows[host.name], told)]
    return {
        "generated": generated,
        "mode": "sampled" if made.sample else "full",
        "sample": made.sample,
        "hosts": [h.name for h in made.hosts],
        "sources": sorted({flow.source for flow in flows}),
        "targets": sorted({_target(flow, both) for flow in flows}),
        "results": results,
        "not_asked": sorted(not_asked, key=lambda one: str(one["host"])),
        "not_tried": list(made.not_tried),
    }


def groups(results: Sequence[Mapping[str, Any]]) -> List[Tuple[str, bool, List[Mapping[str, Any]]]]:
    """What belongs into one matrix: the kind, whether it is of IPv6, and the results, of which there is one for each host and other host."""
    return [
        (kind, six, some)
        for kind in KINDS
        for six in (False, True)
        for some in [[r for r in results if r["kind"] == kind and (":" in r["address"]) is six]]
        if some
    ]


def is_bad(result: Mapping[str, Any]) -> bool:
    """Whether something is missing. What could not be asked does not count as an answer."""
    return bool(result["received"] < result["sent"] or not result["sent"])


def _target(flow: Flow, both: bool) -> str:
    """What is asked is one thing for each family, where there are both: a report may have a place for each source and target alone."""
    return flow.target + " (IPv6)" if both and ":" in flow.address else flow.target


def _result(flow: Flow, target: str, answer: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        "kind": flow.kind,
        "source": flow.source,
        "source_host": flow.source_host,
        "target": target,
        "target_host": flow.target_host,
        "address": flow.address,
        "sent": answer["sent"],
        "received": answer["received"],
        "loss": 100.0 if answer["loss"] is None else answer["loss"],
        "rtt_ms": answer["rtt_avg_ms"],
        "rtt_min_ms": answer["rtt_min_ms"],
        "rtt_max_ms": answer["rtt_max_ms"],
        "error": answer["error"],
    }


def _to_pod(kind: str, host: Host, source: Pod, other: Host) -> List[Flow]:
    if not other.pod:
        return []
    source_ips = source.ips if source.netns else ()
    return [
        Flow(kind, host.name, source.label, source.netns, source_ips, other.name, other.pod.label, ip)
        for ip in _first_of_each_family(other.pod.ips, source.ips)
    ]


def _first_of_each_family(ips: Sequence[str], own: Sequence[str]) -> List[str]:
    """Of the families that the one who asks has, too."""
    firsts = (next((ip for ip in ips if (":" in ip) is six), "") for six in (False, True) if any((":" in ip) is six for ip in own))
    return [ip for ip in firsts if ip]


def _not_tried(hosts: Sequence[Host]) -> Tuple[str, ...]:
    without = [h.name for h in hosts if not h.why_not and not h.pod and not h.is_blind]
    unknown = [h.pod.label for h in hosts if not h.why_not and h.pod and not h.pod.netns]
    unseen = [h.name for h in hosts if h.why_not or h.is_blind]
    said = []
    if without:
        said.append("no pod runs on %s: asked were the hosts themselves" % ", ".join(without))
    if unknown:
        said.append("the network namespace is not known of %s: asked, but asking nobody" % ", ".join(unknown))
    if unseen:
        said.append("pods of %s: nobody could say which there are" % ", ".join(unseen))
    return tuple(said)
