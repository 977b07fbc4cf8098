# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may ask of the masquerade chain: checked, in canonical form. Converge only: a pass trusts what is recorded."""

from __future__ import annotations

__metaclass__ = type

import ipaddress
import re
import socket

from ._errors import KindnetError
from ._plan_chain import BEFORE, FIRST, LAST, family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Sequence

    Section = Dict[str, Any]

LONGEST_LOCK_WAIT = 60
LONGEST_CHAIN = 28  # XT_EXTENSION_MAXNAMELEN of the kernel, less its NUL
CHAIN = re.compile(r"[A-Za-z0-9_.:+][A-Za-z0-9_.:+-]*")
LONGEST_NFT_CHAIN = 26
NFT_CHAIN = re.compile(r"(?=.*[A-Z])[A-Za-z_][A-Za-z0-9_.-]{0,%d}" % (LONGEST_NFT_CHAIN - 1))
FAMILY_NAMES = {"ipv4": "IPv4", "ipv6": "IPv6"}
EVERYTHING = {"ipv4": "0.0.0.0/0", "ipv6": "::/0"}

# Names that a rule takes for something else than a chain: built-in chains, verdicts and targets. A target's extension would win over a
# chain of its name, so a jump to that chain would not even be one.
RESERVED = frozenset((
    "INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING", "BROUTING", "ACCEPT", "DROP", "QUEUE", "RETURN", "CONTINUE", "ERROR",
    "standard", "AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNMARK", "CONNSECMARK", "CT", "DNAT", "DNPT", "DSCP", "ECN", "HL",
    "HMARK", "IDLETIMER", "LED", "LOG", "MARK", "MASQUERADE", "MIRROR", "NETMAP", "NFLOG", "NFQUEUE", "NOTRACK", "RATEEST", "REDIRECT",
    "REJECT", "SAME", "SECMARK", "SET", "SNAT", "SNPT", "SYNPROXY", "TARPIT", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TPROXY", "TRACE",
    "TTL", "ULOG",
))


def canonical(params: Dict[str, Any]) -> Section:
    """What of the section comes from the options alone. Those that are as kindnetd has it are left out."""
    cluster = cluster_networks(params["cluster_cidrs"] or [])
    section: Section = {"cluster_cidrs": cluster, "chain": chain_name(params["chain"]), "lock_wait": lock_wait(params["lock_wait"])}
    section["non_masquerade_cidrs"] = networks("non_masquerade_cidrs", params["non_masquerade_cidrs"])
    for field in ("masquerade_cidrs", "source_cidrs"):
        section[field] = networks(field, params[field])
        _refuse_forgotten_family(field, section[field], cluster)
    for field in ("masquerade_link_local", "masquerade_link_local_ipv6"):
        section[field] = params[field]
    section["random_fully"] = params["random_fully"]
    section["jump_position"] = _jump_position(params["jump_position"])
    as_kindnetd = {
        "non_masquerade_cidrs": [], "masquerade_cidrs": [], "source_cidrs": [], "masquerade_link_local": True, "masquerade_link_local_ipv6": True,
        "random_fully": False, "jump_position": LAST,
    }  # fmt: skip
    return {field: value for field, value in section.items() if field not in as_kindnetd or value != as_kindnetd[field]}


def refuse_for_nftables(section: Section) -> None:
    """Raise for what only iptables can do."""
    position = section.get("jump_position", LAST)
    if position.startswith(BEFORE):
        raise KindnetError(
            "jump_position",
            repr(position),
            "does not go with backend nftables, where our rules are in a table of their own, and no rule of others beside them",
            "Write 'first' (before all of iptables' nat table) or 'last'.",
        )
    # nft would take more, but could not load again what 'nft list ruleset' prints: what is no identifier, or its word for something else.
    # Our own names in the table are all lower case, as nft's words are. The longest comment it takes holds the name beside 102 characters.
    if not NFT_CHAIN.fullmatch(section["chain"]):
        raise KindnetError(
            "chain",
            repr(section["chain"]),
            "is no name for a chain in our table of nftables: at most %d letters, digits and _ . -, none of the latter two in front, with a capital letter"
            % LONGEST_NFT_CHAIN,
            "Write one such as KIND-MASQ-AGENT.",
        )


def lock_wait(seconds: int) -> int:
    if not 1 <= seconds <= LONGEST_LOCK_WAIT:
        raise KindnetError(
            "lock_wait", seconds, "is not between 1 and %d seconds" % LONGEST_LOCK_WAIT, "A pass every 10 s tries again anyway; write 5."
        )
    return seconds


def chain_name(name: str) -> str:
    if not CHAIN.fullmatch(name):
        problem = "is not the name of a chain: letters, digits and _ . : + - only, and no dash in front"
    elif len(name) > LONGEST_CHAIN:
        problem = "has %d characters, iptables takes at most %d" % (len(name), LONGEST_CHAIN)
    elif name in RESERVED:
        problem = "means something else to iptables: a built-in chain, a verdict or a target"
    else:
        return name
    raise KindnetError("chain", repr(name), problem, "Write a name of its own, such as KIND-MASQ-AGENT.")


def cluster_networks(cidrs: Sequence[str]) -> List[str]:
    """The cluster's networks in canonical text, in the order given: at least one, and none of them everything."""
    if not cidrs:
        raise KindnetError("cluster_cidrs", "[]", "is empty", "Write the cluster's pod range, such as 10.244.0.0/16.")
    canonical_cidrs = networks("cluster_cidrs", cidrs)
    for given, cidr in zip(cidrs, canonical_cidrs):
        if cidr in EVERYTHING.values():
            raise KindnetError(
                "cluster_cidrs",
                given,
                "is everything, so nothing would be masqueraded",
                "Write the range of the cluster's pods; if nothing is to be masqueraded, put %s into non_masquerade_cidrs." % given,
            )
    return canonical_cidrs


def networks(field: str, cidrs: Sequence[str]) -> List[str]:
    """Networks in canonical text, in the order given."""
    found: List[str] = []
    for cidr in cidrs:
        try:
            if not re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", cidr):
                raise ValueError("not of the form ADDRESS/PREFIX LENGTH")
            interface = ipaddress.ip_interface(cidr)
        except ValueError as e:
            raise KindnetError(field, repr(cidr), "is not a network (%s)" % e, "Write it like 10.244.0.0/16 or fd00:10:244::/56.")
        network = interface.network
        if interface.ip != network.network_address:
            raise KindnetError(field, cidr, "has host bits set", "Write %s." % network)
        text = _text(network)
        if text in found:
            raise KindnetError(field, cidr, "is there twice", "Write it once.")
        found.append(text)
    return found


def _refuse_forgotten_family(field: str, given: Sequence[str], cluster: Sequence[str]) -> None:
    """A list that names one family of a dual-stack cluster says nothing of the other one, neither all nor none."""
    for family in sorted({family_of(cidr) for cidr in cluster} - {family_of(cidr) for cidr in given}) if given else ():
        raise KindnetError(
            field,
            ", ".join(given),
            "has no %s network, and the cluster has %s" % (FAMILY_NAMES[family], FAMILY_NAMES[family]),
            "Add %s for everything of %s; to masquerade nothing of it, put that into non_masquerade_cidrs, too."
            % (EVERYTHING[family], FAMILY_NAMES[family]),
        )


def _jump_position(position: str) -> str:
    if position in (LAST, FIRST):
        return position
    target = position[len(BEFORE):] if position.startswith(BEFORE) else ""
    if not (CHAIN.fullmatch(target) and len(target) <= LONGEST_CHAIN):
        raise KindnetError(
            "jump_position", repr(position), "is no position", "Write 'last', 'first', or 'before' and the chain or target, such as 'before KUBE-POSTROUTING'."
        )
    return position


def _text(network: Any) -> str:
    """As iptables prints it: by the C library, whose ::ffff:10.0.0.0 Python writes in another way."""
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    return "%s/%d" % (socket.inet_ntop(family, network.network_address.packed), network.prefixlen)
