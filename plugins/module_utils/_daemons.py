# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network daemons of a host, asked and told through their own tools. No part of a pass."""

from __future__ import annotations

__metaclass__ = type

import json
import os
import re
from collections import namedtuple

from . import _systemd
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, FrozenSet, NamedTuple, Sequence, Tuple

    class Daemon(NamedTuple):
        active: bool
        used: bool  # it runs, or will after the next boot
else:
    Daemon = namedtuple("Daemon", "active used")

NETWORKD, NETWORKMANAGER, FIREWALLD = "systemd-networkd", "NetworkManager", "firewalld"
NAMES = (NETWORKD, NETWORKMANAGER, FIREWALLD)
RUNNING = ("active", "activating", "reloading")
ENABLED = ("enabled", "enabled-runtime", "alias", "linked", "linked-runtime")
POLICY = "kindnet"

_FIREWALLD_CALL = ("busctl", "--json=short", "call", "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1")


def look() -> Dict[str, Daemon]:
    """Which of the daemons this host has. One process for all; without systemd it has none."""
    daemons = {name: Daemon(False, False) for name in NAMES}
    if not os.path.isdir(_systemd.BOOTED):
        return daemons
    units = ["%s.service" % name for name in NAMES]
    out = _systemd.systemctl("show", "--property=Id,LoadState,ActiveState,UnitFileState", "--", *units)
    for block in out.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = unit.get("Id", "").rpartition(".service")[0]
        if name in daemons and unit.get("LoadState") == "loaded":
            active = unit.get("ActiveState") in RUNNING
            daemons[name] = Daemon(active, active or unit.get("UnitFileState") in ENABLED)
    return daemons


def networkd_setting(key: str, without: str = "") -> str:
    """What systemd-networkd would read for ``key`` of its section [Network] if it started now; "" if nothing sets it.

    :param without: a file to leave out.
    """
    return setting_of(_systemd.run("systemd-analyze", "--no-pager", "cat-config", "systemd/networkd.conf"), key, without)


def setting_of(text: str, key: str, without: str = "") -> str:
    """Pure. ``text`` is what ``systemd-analyze cat-config`` prints: each file after a comment that names it; the last assignment counts."""
    value = path = section = ""
    for line in text.splitlines():
        line = line.strip()
        if re.match(r"# /\S+$", line):
            path, section = line[2:], ""
        elif line.startswith("["):
            section = line
        elif section == "[Network]" and path != without and line.partition("=")[0].strip() == key:
            value = line.partition("=")[2].strip()
    return value


def is_no(value: str) -> bool:
    return value.lower() in ("no", "n", "false", "f", "off", "0")


def reload_networkmanager() -> None:
    """Have NetworkManager read its configuration; connections are not touched."""
    _systemd.systemctl("reload", "%s.service" % NETWORKMANAGER)


def firewalld_policy() -> FrozenSet[Tuple[str, str]]:
    """What the policy of ours that firewalld has in force accepts: ("source" or "destination", CIDR). Empty without it."""
    return _accepted_by(POLICY) if POLICY in _policies() else frozenset()


def firewalld_accepts(but: str = "") -> FrozenSet[Tuple[str, str]]:
    """The same of all policies in force, whosever they are, ``but`` for one."""
    return frozenset(rule for policy in _policies() if policy != but for rule in _accepted_by(policy))


def _policies() -> Sequence[str]:
    try:
        return list(_firewalld("org.fedoraproject.FirewallD1.policy", "getPolicies"))
    except KindnetError as e:
        if re.search(r"unknown (method|interface)", e.problem, re.IGNORECASE):
            return ()  # a firewalld older than 0.9, which has no policies
        raise


def _accepted_by(policy: str) -> FrozenSet[Tuple[str, str]]:
    settings = _firewalld("org.fedoraproject.FirewallD1.policy", "getPolicySettings", "s", policy)
    if settings.get("ingress_zones", {}).get("data") != ["ANY"] or settings.get("egress_zones", {}).get("data") != ["ANY"]:
        return frozenset()
    found = [re.match(r'rule .*\b(source|destination) address="([^"]+)" accept$', r) for r in settings.get("rich_rules", {}).get("data", ())]
    return frozenset((match.group(1), match.group(2)) for match in found if match)


def masquerading_zones() -> Sequence[str]:
    """Zones in use in which firewalld masquerades everything that leaves, pods' packets to other nodes included."""
    zones = _firewalld("org.fedoraproject.FirewallD1.zone", "getActiveZones")
    names = set(zones) | {str(_firewalld("org.fedoraproject.FirewallD1", "getDefaultZone"))}
    return [name for name in sorted(names) if _firewalld("org.fedoraproject.FirewallD1.zone", "queryMasquerade", "s", name) is True]


def reload_firewalld() -> None:
    """Have firewalld read its configuration, if it finds no fault with it: with one, it would leave the host without its rules."""
    _systemd.run("firewall-cmd", "--check-config")
    _systemd.run("firewall-cmd", "--reload")


def _firewalld(interface: str, method: str, *arguments: str) -> Any:
    answer = _systemd.run(*(_FIREWALLD_CALL + (interface, method) + arguments))
    try:
        return json.loads(answer)["data"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        raise KindnetError(FIREWALLD, method, "answered something else than expected: %r" % answer[:200], "Run firewall-cmd --state on the host.")
