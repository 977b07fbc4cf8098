#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether packets between pods would arrive, and why not. Asks the host's own tools, not the code that converged it."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_verify
short_description: Tell whether packets from this node's pods reach those of its peers, and why not
version_added: "0.1.0"
description:
  - Compares the host with its recorded desired state (C(kindnet-reconcile --check)).
  - Asks the kernel, for each pod CIDR of each peer, where a packet to it would go (C(ip route get)), and compares with the node table given here.
  - Looks at what stops a packet between the interfaces, forwarding and the policy of C(FORWARD), and whether each peer's address answers.
  - Looks whether systemd-networkd, NetworkManager or firewalld would take routes, interfaces or packets of pods for theirs.
  - Reports all that is wrong, by name, and fails then. Changes nothing.
  - kindnetd has nothing like it.
options:
  nodes:
    description: The node table, as M(kindnet.host.kindnet_route) takes it.
    type: raw
    required: true
  node_name:
    description: The name of this host in O(nodes).
    type: str
    required: true
  cluster_cidrs:
    description: CIDRs out of which all pod CIDRs are. Rules of C(FORWARD) that accept them are looked for if its policy is to drop.
    type: list
    elements: str
    default: []
  ping:
    description: Ping the address of each peer, if the host has C(ping).
    type: bool
    default: true
  ping_timeout:
    description: Seconds that a peer has for an answer. Peers are asked 64 at a time.
    type: int
    default: 2
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode as otherwise.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
seealso:
  - module: kindnet.host.kindnet_route
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Verify the paths to the peers
  kindnet.host.kindnet_verify:
    nodes: "{{ table.nodes_json | string }}"
    node_name: "{{ inventory_hostname }}"
    cluster_cidrs: [10.244.0.0/16]
"""

RETURN = r"""
problems:
  description: What is wrong, by name, and what to do.
  returned: always
  type: list
  elements: dict
  sample: [{subject: route to 10.244.1.0/24 of worker, message: "there is none (Network is unreachable). Run playbooks/kindnet.yml."}]
notes:
  description: Worth knowing, wrong for nobody.
  returned: always
  type: list
  elements: str
  sample: []
routes:
  description: How many pod CIDRs of peers are routed as the node table says.
  returned: always
  type: int
  sample: 2
answering:
  description: How many peers answered, by ping or on the link.
  returned: always
  type: int
  sample: 2
"""

import ipaddress
import json
import os
import platform
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import _daemons, _desired, _firewall, _neighbours, _plan_chain, _plan_forward
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._module import short_invocation
from ansible_collections.kindnet.host.plugins.module_utils._node_table import family_of, find_node, parse_nodes, shorten

RECONCILE = "/usr/local/sbin/kindnet-reconcile"
CONVERGE = "Run playbooks/kindnet.yml against this host."
AT_ONCE = 64
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Findings:
    """What has been found; checks add to it and know nothing of each other."""

    def __init__(self):
        self.problems, self.notes = [], []
        self.routes = self.answering = 0

    def problem(self, subject, message):
        self.problems.append({"subject": subject, "message": message})


def command(argv, text=None):
    """Exit code, stdout, stderr; 127 if there is no such command."""
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            env={"PATH": PATH, "LC_ALL": "C"},
            text=True,
            timeout=300,
            check=False,
        )
    except FileNotFoundError:
        return 127, "", "%s is not installed" % argv[0]
    except subprocess.TimeoutExpired:
        return 124, "", "%s did not end within 5 minutes" % argv[0]
    return done.returncode, done.stdout, done.stderr


def drift(findings):
    rc, out, err = command([RECONCILE, "--check", "--json"])
    if rc == 127:
        findings.problem("kindnet-reconcile", "is not installed on this host, so nothing is kept as it should be. " + CONVERGE)
        return
    try:
        state = json.loads(out)
    except ValueError:
        findings.problem("kindnet-reconcile --check", "failed: %s" % " ".join((err or out).split())[:500])
        return
    for change in state.get("changes", ()):
        findings.problem(
            change["subject"],
            "drifted: %s, and should be %s (%s). The next pass repairs it; if not, see kindnet-reconcile --status and journalctl -t kindnet-reconcile."
            % (one_line(change["before"]) or "absent", one_line(change["after"]) or "absent", change["reason"]),
        )
    for problem in state.get("problems", ()):
        findings.problem(problem["subject"], problem["message"])
    findings.notes.extend(state.get("notes", ()))
    if state.get("paused_seconds"):
        findings.notes.append("passes are paused for another %d s; kindnet-reconcile --resume ends it" % state["paused_seconds"])
    rc, out, _err = command(["systemctl", "is-active", "kindnet-reconcile.timer"])
    if rc not in (0, 127):
        findings.problem("kindnet-reconcile.timer", "is %s, so drift stays until somebody converges. %s" % (out.strip() or "not running", CONVERGE))
    rc, out, _err = command(["systemctl", "is-enabled", "kindnet-watch.service"])
    if rc == 0:
        rc, out, _err = command(["systemctl", "is-active", "kindnet-watch.service"])
        if rc not in (0, 127):
            findings.problem("kindnet-watch.service", "is %s, so drift stays until the timer's next pass. %s" % (out.strip() or "not running", CONVERGE))


def one_line(text):
    text = " ".join(text.split())
    return text if len(text) < 200 else text[:200] + "..."


def forwarding(findings, families):
    for family, path in ((4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")):
        if family not in families:
            continue
        try:
            with open("/proc/sys/" + path) as f:
                value = f.read().strip()
        except OSError as e:
            value = e.strerror
        if value == "0" or not value.isdigit():
            findings.problem(
                "forwarding of IPv%d" % family, "%s is %s, so no packet passes from a pod to a peer. %s" % (path.replace("/", "."), value, CONVERGE)
            )


def first_pod(cidr):
    """An address that a pod of this CIDR would have: the second one, as the first is the gateway's."""
    return str(ipaddress.ip_network(cidr)[2])


def route_lookups(addresses):
    """What the kernel says of each address: the route as ``ip -json`` prints it, or why there is none."""
    lines = "".join("route get %s\n" % a for a in addresses)
    rc, out, err = command(["ip", "-json", "-force", "-batch", "-"], lines)
    if rc == 127:
        raise KindnetError("ip", "command", err, "Install iproute2.")
    answers = {}
    for line in out.splitlines():
        if line.strip():
            for route in json.loads(line):
                answers[route["dst"]] = route
    why = ""
    for line in err.splitlines():
        failed = re.match(r"Command failed -:([0-9]+)", line)
        if failed:
            answers[addresses[int(failed.group(1)) - 1]] = why
        else:
            why = line.rpartition("answers: ")[2].strip()
    return answers


def route_problem(answer, next_hop):
    """Why a packet would not go to ``next_hop``, as half a sentence; "" if it does. Pure."""
    if not isinstance(answer, dict):
        return "there is none (%s)" % (answer or "no answer")
    if answer.get("type", "unicast") != "unicast":
        return "leads nowhere (%s)" % answer["type"]
    via = answer.get("gateway") or answer.get("via", {}).get("host")
    if via != next_hop:
        where = "via %s" % via if via else "to nobody, as if its pods were on the link"
        return "leads %s dev %s, and not via %s" % (where, answer.get("dev"), next_hop)
    if "linkdown" in answer.get("flags", ()) or "dead" in answer.get("flags", ()):
        return "leads over dev %s, which has no link" % answer.get("dev")
    return ""


def decided_about():
    """How the last converge decided to reach peers that are not on-link, by address."""
    try:
        return _desired.load().sections.get("routes", {}).get("non_l2", {})
    except KindnetError:
        return {}  # drift has told it


def routes(findings, peers, families, decided):
    wanted = []
    left = []
    for peer in peers:
        for cidr in peer.pod_cidrs:
            hops = [ip for ip in peer.node_ips if family_of(ip) == family_of(cidr)]
            if hops and family_of(cidr) in families:
                how = decided.get(hops[0], ())
                if how[:1] == ["skip"]:
                    left.append("%s (%s)" % (peer.name, hops[0]))
                    continue
                # The gateway of a peer that is not on-link
                wanted.append((peer.name, cidr, first_pod(cidr), how[1] if how[:1] == ["via"] and how[1] else hops[0]))
    answers = route_lookups([address for _name, _cidr, address, _hop in wanted]) if wanted else {}
    for name, cidr, address, hop in wanted:
        problem = route_problem(answers.get(address), hop)
        if problem:
            findings.problem("route to %s of %s" % (cidr, name), "%s. %s" % (problem, CONVERGE))
        else:
            findings.routes += 1
    if left:
        findings.notes.append("not on-link, and left to the network (kindnet_non_l2 is skip): %s" % shorten(list(dict.fromkeys(left))))


def dropping_chains(chains):
    """Names of base chains of nft that drop what they forward by default, the one of iptables left out. Pure."""
    found = []
    for item in chains:
        chain = item.get("chain", {})
        if chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        if (chain.get("family"), chain.get("table")) in (("ip", "filter"), ("ip6", "filter")) and chain.get("name") == "FORWARD":
            continue
        found.append("nft %s %s %s" % (chain.get("family"), chain.get("table"), chain.get("name")))
    return found


def forward_problem(place, found, cidrs):
    """Why packets of pods do not pass this filter table, and what to do; "" if they do. Pure.

    What chains that FORWARD leads to make of a packet is not looked at. It is a hint, not a proof.
    """
    mine = [c for c in cidrs if _plan_chain.family_of(c) == place.family]
    if not _plan_forward.drops(found):
        return ""
    if not mine:
        return "drops what no rule accepts, and no cluster CIDR of this family is known here"
    if _plan_forward.is_right(found, mine) or _plan_forward.accepted_by_others(found, mine):
        return ""
    return (
        "drops what no rule accepts, and no rule accepts the pods (%s). Docker and others do this. Run playbooks/kindnet.yml with "
        "kindnet_manage_forward: true (the default), or add, so that it lasts: %s" % (", ".join(mine), _plan_forward.remedy(place, mine, found))
    )


def firewall(findings, families, cluster_cidrs):
    for flavour in _plan_chain.FLAVOURS:
        for family in families:
            place = _plan_chain.Place(flavour, "ipv4" if family == 4 else "ipv6")
            backend = _firewall.BACKENDS[flavour]
            if not backend.installed(place.family):
                continue
            name = "FORWARD of %s" % _plan_chain.command(place)
            try:
                problem = forward_problem(place, backend.read_forward(place.family, 5), cluster_cidrs)
            except KindnetError as e:
                findings.notes.append("%s: cannot tell whether it drops packets of pods: %s" % (name, e))
                continue
            if problem:
                findings.problem(name, problem)
    rc, out, _err = command(["nft", "--json", "list", "chains"])
    if rc == 0:
        try:
            chains = json.loads(out).get("nftables", ())
        except ValueError:
            chains = ()
        for chain in dropping_chains(chains):
            findings.notes.append("%s drops forwarded packets by default; see that it accepts those of the pods (%s)" % (chain, ", ".join(cluster_cidrs)))


def managed_veths(text):
    """Interfaces of pods in what ``nmcli --terse --fields DEVICE,STATE device`` prints that NetworkManager does not leave alone. Pure."""
    rows = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    return [name for name, state in rows if re.match(r"veth[0-9a-f]{8}\Z", name) and state != "unmanaged"]


def daemons(findings, cluster_cidrs):
    """What the host's network daemons make of routes, interfaces and packets of pods."""
    here = _daemons.look()
    option = "Run playbooks/kindnet.yml with kindnet_manage_%s: true (the default). By hand: %s."
    if here[_daemons.NETWORKD].used and not _daemons.is_no(_daemons.networkd_setting("ManageForeignRoutes")):
        problem, _stop, remedy = _neighbours.advice(_neighbours.NETWORKD).partition(". ")
        findings.problem("systemd-networkd", "%s. %s" % (problem, option % ("networkd", remedy)))
    if here[_daemons.NETWORKMANAGER].active:
        rc, out, err = command(["nmcli", "--terse", "--fields", "DEVICE,STATE", "device"])
        managed = managed_veths(out)
        if managed:
            remedy = _neighbours.advice(_neighbours.NETWORKMANAGER).partition(". ")[2]
            findings.problem(
                "NetworkManager", "manages interfaces of pods (%s). %s" % (", ".join(managed), option % ("networkmanager", remedy))
            )
        elif rc != 0:
            findings.notes.append("NetworkManager does not say which interfaces it manages: %s" % one_line(err))
    if here[_daemons.FIREWALLD].active:
        firewalld(findings, cluster_cidrs, option)


def firewalld(findings, cluster_cidrs, option):
    try:
        if not _neighbours.policy_rules(cluster_cidrs) <= _daemons.firewalld_accepts():
            problem, _stop, remedy = _neighbours.advice(_neighbours.FIREWALLD, cluster_cidrs).partition(". ")
            findings.problem("firewalld", "%s. %s" % (problem, option % ("firewalld", remedy)))
        for zone in _daemons.masquerading_zones():
            findings.problem(
                "firewalld zone %s" % zone,
                "masquerades all that leaves by it, so pods of other nodes see this node's address. Take that away with 'firewall-cmd --permanent "
                "--zone=%s --remove-masquerade' and 'firewall-cmd --reload'; if others need it, masquerade by a rich rule for their addresses" % zone,
            )
    except KindnetError as e:
        findings.notes.append("firewalld does not say what it does with packets of pods: %s" % e)


def ping(findings, peers, families, timeout):
    asked = [(p.name, ip) for p in peers for ip in first_of_each_family(p.node_ips, families)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        codes = list(pool.map(lambda peer: command(["ping", "-n", "-q", "-c", "1", "-w", str(timeout), peer[1]])[0], asked))
    if 127 in codes:
        findings.notes.append("ping is not installed, so nobody asked the peers whether they answer")
        return
    silent = [peer for peer, code in zip(asked, codes) if code != 0]
    findings.answering += len(asked) - len(silent)
    if silent:
        neighbours = neighbour_states()
        for name, ip in sorted(silent):
            if neighbours.get(ip, "") in ("REACHABLE", "DELAY", "STALE", "PERMANENT"):
                findings.answering += 1
                findings.notes.append("%s of %s is on the link and does not answer a ping" % (ip, name))
            else:
                findings.problem("node IP %s of %s" % (ip, name), "does not answer. Is it up, its address right, and does nothing on the way drop pings?")


def first_of_each_family(ips, families):
    return [next(ip for ip in ips if family_of(ip) == f) for f in families if any(family_of(ip) == f for ip in ips)]


def neighbour_states():
    rc, out, _err = command(["ip", "-json", "neighbour", "show"])
    if rc != 0:
        return {}
    return {n["dst"]: (n.get("state") or [""])[0] for n in json.loads(out or "[]")}


def main():
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "raw", "required": True},
            "node_name": {"type": "str", "required": True},
            "cluster_cidrs": {"type": "list", "elements": "str", "default": []},
            "ping": {"type": "bool", "default": True},
            "ping_timeout": {"type": "int", "default": 2},
        },
        supports_check_mode=True,
    )
    params = module.params
    findings = Findings()
    try:
        nodes = parse_nodes(params["nodes"], params["cluster_cidrs"])
        own = find_node(nodes, params["node_name"])
        if os.geteuid() != 0:
            raise KindnetError("user", os.geteuid(), "may not ask for all of it", "Run as root (become: true).")
        families = sorted({family_of(c) for c in own.pod_cidrs})
        peers = [n for n in nodes if n.name != own.name]
        drift(findings)
        forwarding(findings, families)
        firewall(findings, families, params["cluster_cidrs"])
        daemons(findings, params["cluster_cidrs"])
        routes(findings, peers, families, decided_about())
        if params["ping"]:
            ping(findings, peers, families, params["ping_timeout"])
    except KindnetError as e:
        module.fail_json(
            msg="%s: %s" % (params["node_name"] or platform.node(), e),
            field=e.field,
            value=str(e.value),
            remedy=e.remedy,
            invocation=short_invocation(params),
        )
    result = {
        "changed": False,
        "problems": findings.problems,
        "notes": findings.notes,
        "routes": findings.routes,
        "answering": findings.answering,
        "invocation": short_invocation(params),
    }
    for note in findings.notes:
        module.warn("%s: %s" % (own.name, note))
    if findings.problems:
        module.fail_json(msg="\n".join("%s: %s: %s" % (own.name, p["subject"], p["message"]) for p in findings.problems), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
