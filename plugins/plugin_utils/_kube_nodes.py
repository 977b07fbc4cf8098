# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes out of what the Kubernetes API says of them. Pure, controller only."""

from __future__ import annotations

__metaclass__ = type

import json
import re
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple, Union

from ..module_utils._errors import KindnetError
from ..module_utils._node_table import parse_address, parse_cidrs, shorten

# What the API server accepts for a node's name. Other text could be a template, or anything else that Ansible takes a host's name for.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")


class KubeNode(NamedTuple):
    """What a node is to the collection; addresses and CIDRs are canonical text."""

    name: str
    node_ips: Tuple[str, ...]  # every InternalIP that peers can use, in the kubelet's order
    pod_cidrs: Tuple[str, ...]
    addresses: Dict[str, Tuple[str, ...]]  # as they are, by their type in the API
    labels: Dict[str, str]


def essentials(text: Union[str, bytes], source: str) -> Dict[str, Any]:
    """The part of a list of nodes that matters here, in the API's own form: what is worth keeping in a cache.

    :param text: the output of ``kubectl get nodes -o json``.
    :param source: what to call it in an error.
    """
    try:
        data = json.loads(text)
    except ValueError as e:
        raise KindnetError(source, _shown(text), "is not JSON (%s)" % e, "Give what 'kubectl get nodes -o json' prints.")
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list) or not all(isinstance(i, dict) for i in items):
        raise KindnetError(source, _shown(text), "is not a list of Kubernetes objects", "Give what 'kubectl get nodes -o json' prints.")
    kinds = sorted({str(i.get("kind", "Node")) for i in items} - {"Node"})
    if kinds:
        raise KindnetError(source, ", ".join(kinds), "holds other things than nodes", "Give what 'kubectl get nodes -o json' prints.")
    if not items:
        raise KindnetError(source, "no items", "there is no node in it", "Look at kubeconfig, context and label_selector.")
    return {
        "items": [
            {
                "metadata": {k: _part(item, "metadata").get(k) for k in ("name", "labels")},
                "spec": {k: _part(item, "spec").get(k) for k in ("podCIDR", "podCIDRs")},
                "status": {"addresses": _part(item, "status").get("addresses")},
            }
            for item in items
        ]
    }


def parse_kube_nodes(data: Dict[str, Any], source: str) -> Tuple[KubeNode, ...]:
    """The nodes in ``data``, as :func:`essentials` gives them, by name.

    Errors: :class:`KindnetError` naming every node that lacks what it needs; a list without them would be taken for the whole cluster.
    """
    nodes: List[KubeNode] = []
    unnumbered: List[str] = []
    unreachable: List[str] = []
    for item in data["items"]:
        name = item["metadata"]["name"]
        if not isinstance(name, str) or not _NAME.match(name):
            raise KindnetError(source, _shown(name), "is not the name of a node", "Give what 'kubectl get nodes -o json' prints.")
        addresses = _addresses(item["status"]["addresses"])
        node_ips, problems = _usable(addresses.get("InternalIP", ()))
        pod_cidrs = parse_cidrs("spec.podCIDRs of %s" % name, item["spec"]["podCIDRs"] or item["spec"]["podCIDR"] or None)
        if not node_ips:
            unreachable.append("%s (%s)" % (name, "; ".join(problems)) if problems else name)
        if not pod_cidrs:
            unnumbered.append(name)
        labels = _part(item["metadata"], "labels")
        nodes.append(KubeNode(name, node_ips, pod_cidrs, addresses, {str(k): str(v) for k, v in labels.items()}))
    if unreachable:
        raise KindnetError(
            source,
            shorten(unreachable),
            "no InternalIP that peers could use",
            "The kubelet publishes it, see its --node-ip; nodes that are no hosts of yours are left out with label_selector.",
        )
    if unnumbered:
        raise KindnetError(
            source,
            shorten(unnumbered),
            "no spec.podCIDR",
            "kube-controller-manager gives it, with --allocate-node-cidrs and --cluster-cidr; nodes that need none are left out with label_selector.",
        )
    return tuple(sorted(nodes, key=lambda n: n.name))


def _part(item: Dict[str, Any], key: str) -> Dict[str, Any]:
    part = item.get(key)
    return part if isinstance(part, dict) else {}


def _addresses(entries: Any) -> Dict[str, Tuple[str, ...]]:
    found: Dict[str, Tuple[str, ...]] = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            kind = str(entry.get("type"))
            found[kind] = (*found.get(kind, ()), str(entry.get("address")))
    return found


def _usable(addresses: Sequence[str]) -> Tuple[Tuple[str, ...], List[str]]:
    """Canonical addresses, each once; and why the others are none that a peer could use, such as a link-local one."""
    usable: Dict[str, None] = {}
    problems = []
    for address in addresses:
        try:
            usable[parse_address("InternalIP", address).text] = None
        except KindnetError as e:
            problems.append("%s %s" % (e.value, e.problem))
    return tuple(usable), problems


def _shown(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:60] + "..."
