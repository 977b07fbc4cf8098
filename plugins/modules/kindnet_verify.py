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
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._module import short_invocation
from ansible_collections.kindnet.host.plugins.module_utils._node_table import family_of, find_node, parse_nodes

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
            "drifted: %s, and should be %s (%s). The next pass repairs it; see journalctl -u kindnet-reconcile if not."
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


def routes(findings, peers, families):
    wanted = []
    for peer in peers:
        for cidr in peer.pod_cidrs:
            hops = [ip for ip in peer.node_ips if family_of(ip) == family_of(cidr)]
            if hops and family_of(cidr) in families:
                wanted.append((peer.name, cidr, first_pod(cidr), hops[0]))
    answers = route_lookups([address for _name, _cidr, address, _hop in wanted]) if wanted else {}
    for name, cidr, address, hop in wanted:
        problem = route_problem(answers.get(address), hop)
        if problem:
            findings.problem("route to %s of %s" % (cidr, name), "%s. %s" % (problem, CONVERGE))
        else:
            findings.routes += 1


def dropping_policies(rules_by_tool, chains):
    """Names of what drops forwarded packets by default: iptables' FORWARD by tool, and base chains of nft itself. Pure."""
    found = [tool for tool, rules in sorted(rules_by_tool.items()) if "-P FORWARD DROP" in rules]
    for item in chains:
        chain = item.get("chain", {})
        if chain.get("hook") != "forward" or chain.get("policy") != "drop":
            continue
        if (chain.get("family"), chain.get("table")) in (("ip", "filter"), ("ip6", "filter")) and chain.get("name") == "FORWARD":
            continue  # the one of iptables-nft
        found.append("nft %s %s %s" % (chain.get("family"), chain.get("table"), chain.get("name")))
    return found


def accepts(rules, cidrs):
    """True if some rule of FORWARD accepts every packet, or what comes from and goes to each of ``cidrs``. Pure.

    A rule that only looks like it may be hidden behind another; a rule in another chain may accept. It is a hint, not a proof.
    """
    targets = [line.split() for line in rules if line.startswith("-A FORWARD ") and line.endswith("-j ACCEPT")]
    if any(words == ["-A", "FORWARD", "-j", "ACCEPT"] for words in targets):
        return True

    def given(flag, cidr):
        return any(words == ["-A", "FORWARD", flag, cidr, "-j", "ACCEPT"] for words in bare)

    bare = [strip_comment(words) for words in targets]
    both = [["-A", "FORWARD", "-s", c, "-d", c, "-j", "ACCEPT"] for c in cidrs]
    return bool(cidrs) and all(b in bare or (given("-s", c) and given("-d", c)) for c, b in zip(cidrs, both))


def strip_comment(words):
    """A rule's words without its comment. Quoted words of one comment are dropped together."""
    text = re.sub(r' -m comment --comment ("(?:[^"\\]|\\.)*"|\S+)', "", " ".join(words))
    return text.split()


def firewall(findings, families, cluster_cidrs):
    for family in families:
        prefix = "iptables" if family == 4 else "ip6tables"
        rules_by_tool = {}
        for tool in (prefix + "-nft", prefix + "-legacy"):
            # Asking iptables-legacy loads its modules, and with them tables that nobody used.
            if tool.endswith("legacy") and "filter" not in legacy_tables(family):
                continue
            rc, out, _err = command([tool, "-w", "5", "-t", "filter", "-S", "FORWARD"])
            if rc == 0:
                rules_by_tool[tool] = out.splitlines()
        cidrs = [c for c in cluster_cidrs if family_of(c) == family]
        for tool in dropping_policies(rules_by_tool, ()):
            if not accepts(rules_by_tool[tool], cidrs):
                findings.problem(
                    "FORWARD of %s" % tool,
                    "drops what no rule accepts, and no rule accepts the pods (%s). Add, persistently: %s"
                    % (
                        ", ".join(cidrs) or "no cluster CIDR of this family",
                        "; ".join("%s -I FORWARD -s %s -j ACCEPT; %s -I FORWARD -d %s -j ACCEPT" % (tool, c, tool, c) for c in cidrs) or "rules for them",
                    ),
                )
    rc, out, _err = command(["nft", "--json", "list", "chains"])
    if rc == 0:
        try:
            chains = json.loads(out).get("nftables", ())
        except ValueError:
            chains = ()
        for chain in dropping_policies({}, chains):
            findings.notes.append("%s drops forwarded packets by default; see that it accepts those of the pods (%s)" % (chain, ", ".join(cluster_cidrs)))


def legacy_tables(family):
    try:
        with open("/proc/net/ip%s_tables_names" % ("" if family == 4 else "6")) as f:
            return f.read().split()
    except OSError:
        return []


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
                findings.problem("node IP %s of %s" % (ip, name), "does not answer. Is the host up, its address right, and on this link?")


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
        routes(findings, peers, families)
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
