# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only an inventory can see: hosts that are each as they were told, and do not fit together. Pure.

What is not known is neither right nor wrong: a host that failed or did not answer is not spoken of. What a run of the playbook would mend is a
difference of its host, and what only follows from that is not said again.
"""

from __future__ import annotations

__metaclass__ = type

from collections import Counter
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ..module_utils._desired import FILE as DESIRED
from ..module_utils._node_table import shorten
from ..module_utils._peers_digest import expected
from ._cross_hosts import CONVERGE, finding, listed, mends, of
from ._cross_networks import overlaps
from ._cross_routes import one_way
from ._told_routes import leaves_out

Data = Dict[str, Any]

# Where hosts have addresses that are their own affair, the same on each: of container engines, of IPVS, of tunnels, of services that are everywhere.
LOOPBACK = "lo"
LOCAL_KINDS = ("bridge", "veth", "dummy", "tun", "vxlan", "ipip", "sit", "gre", "wireguard")


def cross_checks(nodes: Sequence[Data], hosts: Sequence[Data], code: Optional[Tuple[str, str]] = None) -> List[Data]:
    """Findings: the check, the hosts, the subject, and what is wrong and what to do.

    :param nodes: the node table; empty if none was made, and then nothing is held against it.
    :param hosts: those of the report.
    :param code: version and digest of what this checkout would install, if that is known.
    """
    seen = [host for host in hosts if host.get("info")]
    managed = [host for host in seen if host["info"].get("managed")]
    found: List[Data] = []
    for check in (
        one_way(nodes, seen),
        overlaps(nodes, seen),
        _pod_cidrs(nodes, managed),
        _mtus(seen),
        _addresses(nodes, seen),
        _desired_state(nodes, managed),
        _code(managed, code),
        _timers(managed),
        _passes(managed),
        _pauses(managed),
    ):
        found += check
    return found


# --- What hosts were told


def _pod_cidrs(nodes: Sequence[Data], hosts: Sequence[Data]) -> Iterable[Data]:
    by_name = {node["name"]: node for node in nodes}
    for host in hosts:
        node, recorded = by_name.get(host["name"]), of(host, "desired").get("pod_cidrs")
        if node is None or not recorded or set(recorded) == set(node["pod_cidrs"]) or mends(host, "conflist"):
            continue
        yield finding(
            "pod_cidrs",
            [host["name"]],
            ", ".join(recorded),
            "%s gives its pods addresses of %s, and the inventory says %s, which is where its peers send what is for them. If the inventory is right, %s "
            "If it is not, correct kindnet_pod_cidrs of %s."
            % (host["name"], ", ".join(recorded), ", ".join(node["pod_cidrs"]), CONVERGE.replace("Run", "run") % host["name"], host["name"]),
        )


def _desired_state(nodes: Sequence[Data], hosts: Sequence[Data]) -> Iterable[Data]:
    """Hosts whose recorded peers are not the inventory's. Each has others, so none can be compared with another."""
    wanted = expected(nodes)
    for host in hosts:
        recorded = of(host, "desired").get("peers")
        if not recorded or wanted.get(host["name"], recorded) == recorded:
            continue
        at = of(host, "desired").get("recorded")
        told = _peers_told(nodes, host)
        yield finding(
            "desired",
            [host["name"]],
            DESIRED,
            "%s goes by other peers than the inventory has now: its desired state is%s from before the last change%s. Passes keep it so. %s"
            % (host["name"], " of %s," % at if at else "", " (%s)" % told if told else "", CONVERGE % host["name"]),
        )


def _peers_told(nodes: Sequence[Data], host: Data) -> str:
    """In what the recorded peers differ, as far as the routes show it."""
    if leaves_out(host):
        return ""
    wanted = {cidr: node["name"] for node in nodes if node["name"] != host["name"] for cidr in node["pod_cidrs"]}
    recorded = set(of(host, "peers").get("missing") or ()) | {route["dst"] for route in of(host, "routes") or () if route.get("ours")}
    lacks = ["%s of %s" % (cidr, name) for cidr, name in wanted.items() if cidr not in recorded]
    extra = sorted(recorded - set(wanted))
    parts = ["it does not know %s" % shorten(lacks)] if lacks else []
    return "; ".join(parts + (["it still has %s" % shorten(extra)] if extra else []))


def _code(hosts: Sequence[Data], ours: Optional[Tuple[str, str]]) -> Iterable[Data]:
    groups: Dict[Tuple[str, str], List[str]] = {}
    for host in hosts:
        versions = of(host, "versions")
        if versions.get("digest"):
            groups.setdefault((versions.get("collection", ""), versions["digest"]), []).append(host["name"])
    if not groups:
        return
    reference = ours or max(groups, key=lambda key: (_number(key[0]), len(groups[key]), key[1]))
    what = "this checkout would install" if ours else "others run"
    for key in sorted(groups, key=lambda key: (_number(key[0]), key)):
        if key[1] == reference[1]:
            continue
        is_newer = _number(key[0]) > _number(reference[0])
        remedy = "Converge from a checkout at least as new." if is_newer else CONVERGE % ("it" if len(groups[key]) == 1 else "them")
        names = groups[key]
        message = "%s %s %s code than %s: %s, and %s. %s" % (
            shorten(names),
            "runs" if len(names) == 1 else "run",
            "newer" if is_newer else "older" if _number(key[0]) < _number(reference[0]) else "other",
            what,
            _version(key),
            _version(reference),
            remedy,
        )
        yield finding("code", names, _version(key), message)


def _version(code: Tuple[str, str]) -> str:
    return "%s (%s)" % (code[0] or "of an unknown version", code[1])


def _number(version: str) -> Tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


# --- The network between them


def _mtus(hosts: Sequence[Data]) -> Iterable[Data]:
    links = {host["name"]: int(of(host, "node_interface").get("mtu") or 0) for host in hosts}
    named = {host["name"]: of(host, "node_interface").get("name") for host in hosts}
    links = {name: mtu for name, mtu in links.items() if mtu}
    yield from _uneven(
        "mtu",
        "MTU of node interfaces",
        links,
        named,
        "Packets larger than the smallest are lost or split between these hosts. Give all interfaces of the node network one MTU, then run"
        " playbooks/kindnet.yml: new pods get it.",
    )
    conflists: Dict[str, int] = {}
    for host in hosts:
        if mends(host, "conflist"):
            continue
        for conflist in of(host, "conflists") or ():
            # One that goes by its own interface only says again what the interfaces said.
            follows = len(set(links.values())) > 1 and conflist.get("mtu") == links.get(host["name"])
            if conflist.get("ours") and conflist.get("in_use") and conflist.get("mtu") and not follows:
                conflists[host["name"]] = conflist["mtu"]
    yield from _uneven(
        "mtu",
        "MTU of pods",
        conflists,
        {},
        "New pods there get another MTU than those of the rest. Set kindnet_mtu for all, or leave it at auto, and run playbooks/kindnet.yml;"
        " running pods keep what they have.",
    )


def _uneven(check: str, subject: str, values: Dict[str, int], named: Dict[str, Any], remedy: str) -> Iterable[Data]:
    """One finding if the values of all hosts are not one: what most have, and who has what else."""
    counts = Counter(values.values())
    if len(counts) < 2:
        return
    most = max(counts, key=lambda value: (counts[value], value))
    outliers = {name: value for name, value in values.items() if value != most}
    words = ["%d on %s%s" % (value, name, " (%s)" % named[name] if named.get(name) else "") for name, value in outliers.items()]
    yield finding(check, outliers, subject, "%s: %d on %d of %d hosts, but %s. %s" % (subject, most, counts[most], len(values), shorten(words), remedy))


def _addresses(nodes: Sequence[Data], hosts: Sequence[Data]) -> Iterable[Data]:
    declared: Dict[str, List[str]] = {}
    for node in nodes:
        for ip in node["node_ips"]:
            declared.setdefault(ip, []).append(node["name"])
    holders: Dict[str, Dict[str, str]] = {}
    for host in hosts:
        links = of(host, "links") or ()
        others = {link["name"] for link in links if link.get("kind", "") not in LOCAL_KINDS and link["name"] != LOOPBACK}
        others.add(of(host, "node_interface").get("name"))
        for address in of(host, "addresses") or ():
            interface = address["interface"]
            if address["ip"] in declared or interface in others:
                holders.setdefault(address["ip"], {})[host["name"]] = interface
    for ip in sorted({*declared, *holders}):
        here, owners = holders.get(ip, {}), declared.get(ip, [])
        names = list(dict.fromkeys([*owners, *here]))
        if len(names) < 2:
            continue
        has = ["%s has it on %s" % (name, interface) for name, interface in here.items()]
        says = ["the inventory says that it is that of %s" % " and of ".join(owners)] if owners else []
        yield finding(
            "address",
            names,
            ip,
            "%s is on two hosts: %s. Packets for one reach the other. Give each host an address of its own; if the inventory is wrong, correct"
            " kindnet_node_ips."
            % (ip, "; ".join(says + [shorten(has)] if has else says)),
        )


# --- What keeps them in sync


def _timers(hosts: Sequence[Data]) -> Iterable[Data]:
    for host in hosts:
        timer = of(host, "timer")
        active, enabled = timer.get("active") or "active", timer.get("enabled") or "enabled"
        since = " since %s" % timer["since"] if timer.get("since") else ""
        if active != "active":
            message = "is %s%s, so drift stays until somebody converges. Start it with systemctl start kindnet-reconcile.timer, or run playbooks/kindnet.yml."
            yield finding("timer", [host["name"]], "kindnet-reconcile.timer", "%s: the timer %s" % (host["name"], message % (active, since)))
        elif enabled not in ("enabled", "enabled-runtime", "static"):
            message = "runs, and is %s, so it is gone after a reboot. %s" % (enabled, CONVERGE % host["name"])
            yield finding("timer", [host["name"]], "kindnet-reconcile.timer", "%s: the timer %s" % (host["name"], message))


def _passes(hosts: Sequence[Data]) -> Iterable[Data]:
    """A pass fails because of problems; those that the report has are not told again."""
    for host in hosts:
        timer = of(host, "timer")
        last = timer.get("last_pass") or {}
        subjects = [problem.get("subject", "") for problem in timer.get("problems") or ()]
        untold = [subject for subject in subjects if subject not in listed(host)]
        if untold:
            how = "cannot repair %s" % shorten(untold)
        elif last.get("result") == "failed" and not subjects:
            how = "failed"
        else:
            continue
        at = ", the last one at %s" % last["at"] if last.get("at") else ""
        message = "%s: its passes %s%s. See kindnet-reconcile --status and journalctl -t kindnet-reconcile -p err there." % (host["name"], how, at)
        yield finding("pass", [host["name"]], "kindnet-reconcile", message)


def _pauses(hosts: Sequence[Data]) -> Iterable[Data]:
    for host in hosts:
        left = of(host, "timer").get("paused_seconds")
        if left:
            message = "%s: passes are paused for another %s. Somebody asked for that, and nothing is repaired meanwhile; kindnet-reconcile --resume ends it."
            yield finding("pause", [host["name"]], "pause", message % (host["name"], _spell_time(left)))


def _spell_time(seconds: int) -> str:
    parts = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if seconds >= unit:
            parts.append("%d%s" % (seconds // unit, name))
            seconds %= unit
    return "".join(parts[:2])
