# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of ip-masq-agent, as options of kindnet_masq. Pure, and on the controller only.

Read as the agent reads it: YAML or JSON, keys in any case. Stricter in what the agent passes over, a key that it does not know or that
is there twice. A file without a list of CIDRs is refused, as flags of the agent decide what it then takes.
"""

from __future__ import annotations

__metaclass__ = type

import ipaddress
import json
import re
from typing import Any, Dict, List, NamedTuple, Optional

import yaml

from ..module_utils._errors import KindnetError

CIDRS, LIMIT, LINK_LOCAL, LINK_LOCAL_IPV6, RESYNC = "nonMasqueradeCIDRs", "cidrLimit", "masqLinkLocal", "masqLinkLocalIPv6", "resyncInterval"
KEYS = (CIDRS, LIMIT, LINK_LOCAL, LINK_LOCAL_IPV6, RESYNC)
DEFAULT_LIMIT = 64
SWITCHES = {LINK_LOCAL: "masquerade_link_local", LINK_LOCAL_IPV6: "masquerade_link_local_ipv6"}
# Of Go, as in 1h15m30.5s.
DURATION = re.compile(r"[-+]?(0|((\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)", re.ASCII)


class AgentOptions(NamedTuple):
    options: Dict[str, Any]  # of the module
    defaults: Dict[str, Any]  # likewise, of what the file says nothing about
    notes: List[str]


def options_of(text: str, field: str = "ip_masq_agent_config") -> AgentOptions:
    """What ``text`` asks of kindnet_masq.

    :param field: how a message names the file.
    Errors: :class:`KindnetError`.
    """
    config = _keys(_parsed(text, field), field)
    options: Dict[str, Any] = {"non_masquerade_cidrs": _cidrs(config, field)}
    defaults = {}
    for key, option in SWITCHES.items():
        value = config.get(key)
        if value is None:
            defaults[option] = False
        elif isinstance(value, bool):
            options[option] = value
        else:
            raise _error(field, key, value, "is neither true nor false", "Write true or false.")
    notes = []
    if RESYNC in config:
        _check_duration(config[RESYNC], field)
        notes.append("%s: %s has no effect: kindnet-reconcile looks after the rules every 10 s" % (field, RESYNC))
    return AgentOptions(options, defaults, notes)


def _parsed(text: str, field: str) -> Any:
    try:
        return json.loads(text)  # by YAML, JSON with tabs is an error
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date that there is not
        mark = getattr(e, "problem_mark", None)
        where = "line %d" % (mark.line + 1) if mark else "the text"
        raise KindnetError(field, where, "is neither YAML nor JSON (%s)" % (getattr(e, "problem", None) or e), "Correct the file.")


def _keys(data: Any, field: str) -> Dict[str, Any]:
    """The keys as the agent spells them."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise KindnetError(field, repr(data)[:80], "is not a mapping", "Write keys and values, such as '%s: [10.0.0.0/8]'." % CIDRS)
    spelled = {key.lower(): key for key in KEYS}
    config: Dict[str, Any] = {}
    for name, value in data.items():
        key: Optional[str] = spelled.get(str(name).lower())
        if key is None:
            raise _error(field, name, value, "is no key that ip-masq-agent knows", "It knows %s." % ", ".join(KEYS))
        if key in config:
            raise _error(field, name, value, "is there twice, in different spelling", "Write it once.")
        config[key] = value
    return config


def _cidrs(config: Dict[str, Any], field: str) -> List[str]:
    if CIDRS not in config:
        raise KindnetError(
            field,
            CIDRS,
            "is not in the file, and what ip-masq-agent then spares depends on its flags",
            "Write it: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16] is what the agent takes without flags, [] is none beside the cluster's own.",
        )
    limit = DEFAULT_LIMIT if config.get(LIMIT) is None else config[LIMIT]
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise _error(field, LIMIT, limit, "is not a whole number", "Write one, or leave it out for %d." % DEFAULT_LIMIT)
    cidrs = [] if config[CIDRS] is None else config[CIDRS]
    if not isinstance(cidrs, list):
        raise _error(field, CIDRS, cidrs, "is not a list", "Write it like [10.0.0.0/8].")
    if len(cidrs) > limit:
        remedy = "Write fewer of them, or a higher %s." % LIMIT
        raise _error(field, CIDRS, "%d networks" % len(cidrs), "are more than %s allows, which is %d" % (LIMIT, limit), remedy)
    return list(dict.fromkeys(_cidr(cidr, field) for cidr in cidrs))


def _cidr(cidr: Any, field: str) -> str:
    try:
        if not isinstance(cidr, str) or not re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", cidr):
            raise ValueError("not of the form ADDRESS/PREFIX LENGTH")
        interface = ipaddress.ip_interface(cidr)
    except ValueError as e:
        raise _error(field, CIDRS, cidr, "is not a network (%s)" % e, "Write it like 10.0.0.0/8 or fc00::/7.")
    if interface.ip != interface.network.network_address:
        raise _error(field, CIDRS, cidr, "has host bits set", "Write %s." % interface.network)
    return str(interface.network)


def _check_duration(value: Any, field: str) -> None:
    if not isinstance(value, str) or not DURATION.fullmatch(value):
        raise _error(field, RESYNC, value, "is not a duration", "Write it like 60s or 1m30s, or leave it out: it has no effect here.")


def _error(field: str, key: Any, value: Any, problem: str, remedy: str) -> KindnetError:
    return KindnetError("%s: %s" % (field, key), repr(value)[:80], problem, remedy)
