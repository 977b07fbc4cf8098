# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hostPort rules of the plugin portmap: which of them lead to no pod. Told from what iptables-save and nft print; looks, and changes nothing."""

from __future__ import annotations

__metaclass__ = type

import ipaddress
import json
import re
import shlex
import subprocess
from collections import namedtuple

from ._firewall import ENVIRONMENT, legacy_tables
from ._plan_chain import FAMILIES, FLAVOURS, Place, command, split_lines, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

    class HostPorts(NamedTuple):
        """What portmap made for one pod in one table."""

        table: str  # as an operator would ask for it
        chain: str
        container: str
        rules: Tuple[str, ...]
        ports: Tuple[str, ...]  # of this host, such as "tcp 8080"
        targets: Tuple[str, ...]  # addresses of the pod
        remedy: str  # the command that takes it out
else:
    HostPorts = namedtuple("HostPorts", "table chain container rules ports targets remedy")

OF_A_POD = "CNI-DN-"  # begins the name of the chain that portmap makes for a pod
NFT_TABLE = "cni_hostport"  # of portmap's backend nftables
NFT_CHAINS = ("hostports", "hostip_hostports")
TIMEOUT = 30.0  # seconds for one program to print a table


def read() -> Tuple[List[HostPorts], List[str]]:
    """All of them, and which tables could not be looked at."""
    found: List[HostPorts] = []
    blind: List[str] = []
    for place in (Place(flavour, family) for flavour in FLAVOURS for family in FAMILIES):
        # Asking for a legacy table that the kernel does not hold would make it.
        if place.flavour == "legacy" and "nat" not in legacy_tables(place.family):
            continue
        program = command(place)
        status, out, err = _run([program + "-save", "-t", "nat"])
        if status == 0:
            found += of_iptables(program, out)
        elif status is not None:
            blind.append("%s -t nat: %s" % (program, err))
    for family in ("ip", "ip6"):
        status, out, _err = _run(["nft", "--json", "--handle", "list", "table", family, NFT_TABLE])
        if status == 0:  # otherwise there is none
            found += of_nft(family, json.loads(out))
    return found, blind


def of_iptables(program: str, text: str) -> List[HostPorts]:
    """Pure. One for each chain of a pod in what ``iptables-save`` prints of the nat table."""
    rules = [tokens(line) for line in split_lines(text) if line.startswith("-A ")]
    chains: Dict[str, List[Sequence[str]]] = {}
    jumps: Dict[str, List[Sequence[str]]] = {}
    for rule in rules:
        if rule[1].startswith(OF_A_POD):
            chains.setdefault(rule[1], []).append(rule)
        elif rule[-2:-1] in (("-j",), ("-g",)) and rule[-1].startswith(OF_A_POD):
            jumps.setdefault(rule[-1], []).append(rule)
    found = []
    for chain, own in sorted(chains.items()):
        nat = [r for r in own if "DNAT" in r and "--to-destination" in r]
        table = "%s -w -t nat" % program
        steps = ["%s -D %s" % (table, shlex.join(jump[1:])) for jump in jumps.get(chain, ())]
        steps += ["%s -F %s" % (table, chain), "%s -X %s" % (table, chain)]
        found.append(
            HostPorts(
                table,
                chain,
                _container(jumps.get(chain, [])),
                tuple(shlex.join(r) for r in nat),
                tuple("%s %s" % (_after("-p", r), _after("--dport", r)) for r in nat),
                tuple(dict.fromkeys(_address(_after("--to-destination", r)) for r in nat)),
                " && ".join(steps),
            )
        )
    return found


def of_nft(family: str, data: Any) -> List[HostPorts]:
    """Pure. One for each pod in what ``nft --json list table`` prints of portmap's own table; its rules carry the pod's id."""
    pods: Dict[Tuple[str, str], List[Dict[str, Any]]] = {}
    for item in data["nftables"]:
        rule = item.get("rule", {})
        if rule.get("chain") in NFT_CHAINS and _destination(rule):
            pods.setdefault((rule["chain"], rule.get("comment", "")), []).append(rule)
    found = []
    for (chain, container), rules in sorted(pods.items()):
        found.append(
            HostPorts(
                "nft list table %s %s" % (family, NFT_TABLE),
                chain,
                container,
                tuple("handle %d" % r["handle"] for r in rules),
                tuple(_nft_port(r) for r in rules),
                tuple(dict.fromkeys(filter(None, (_destination(r) for r in rules)))),
                " && ".join("nft delete rule %s %s %s handle %d" % (family, NFT_TABLE, chain, r["handle"]) for r in rules),
            )
        )
    return found


def _container(jumps: Sequence[Sequence[str]]) -> str:
    """The pod's id out of portmap's comment: dnat name: "NETWORK" id: "POD"; cut off where it is long."""
    for jump in jumps:
        match = re.search(r' id: "([^"]*)', _after("--comment", jump))
        if match:
            return match.group(1)
    return ""


def _after(option: str, rule: Sequence[str]) -> str:
    return rule[rule.index(option) + 1] if option in rule[:-1] else ""


def _address(target: str) -> str:
    """Of 192.0.2.1:80 or [2001:db8::1]:80."""
    address = target[1:].partition("]")[0] if target.startswith("[") else target.rpartition(":")[0] if target.count(":") == 1 else target
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _expressions(rule: Dict[str, Any], kind: str) -> Iterator[Any]:
    for expression in rule.get("expr", ()):
        if kind in expression:
            yield expression[kind]


def _destination(rule: Dict[str, Any]) -> Optional[str]:
    for nat in _expressions(rule, "dnat"):
        address = nat.get("addr") if isinstance(nat, dict) else None
        if isinstance(address, str):
            return _address(address)
    return None


def _nft_port(rule: Dict[str, Any]) -> str:
    for match in _expressions(rule, "match"):
        payload = match.get("left", {}).get("payload", {}) if isinstance(match.get("left"), dict) else {}
        if payload.get("field") == "dport":
            return "%s %s" % (payload.get("protocol"), match.get("right"))
    return ""


def _run(argv: List[str]) -> Tuple[Optional[int], str, str]:
    """Exit code, output and last line of complaint; no exit code if there is no such program."""
    try:
        done = subprocess.run(argv, capture_output=True, env=ENVIRONMENT, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        return None, "", ""
    except (OSError, subprocess.SubprocessError) as e:
        return 1, "", str(e)
    err = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape"), ascii(err[-1][:200])[1:-1] if err else "exit code %d" % done.returncode
