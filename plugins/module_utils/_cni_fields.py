# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the CNI specification and the documentation of the reference plugins say of each field of a configuration. Pure.

What a plugin cannot read fails each pod that starts later, on every node; what it does not know it leaves out without a word.
"""

from __future__ import annotations

__metaclass__ = type

import json
import re

from ._conflist_data import shown
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Optional, Tuple

    Data = Dict[str, Any]
    # Takes the field's full name and its value, and returns the value as the plugin reads it.
    Parser = Callable[[str, Any], Any]

# Lists of plugins came with the first.
FIRST_VERSION = "0.3.0"
# Versions of the specification with which a field of the list came, or from which on a plugin speaks.
VERSION_OF_FIELD = {"disableCheck": "0.4.0", "disableGC": "1.1.0", "loadOnlyInlinedPlugins": "1.1.0"}
VERSION_OF_PLUGIN = {"firewall": "0.4.0"}
# Releases of the reference plugins with which a field came, where supported distributions have older ones.
RELEASE_OF_FIELD = {
    "firewall": {"ingressPolicy": "1.1.0"},
    "portmap": {"backend": "1.6.0", "masqAll": "1.2.0"},
    "sbr": {"table": "1.6.0"},
    "tuning": {"allmulti": "1.0.0", "txQLen": "1.4.0"},
}

# The plugins that may follow the one that makes a pod's interface, in the order of use. The pod is tuned and shaped before the rules
# that let traffic in, and open to the outside last; a runtime goes the other way round when the pod ends.
CHAINED = ("tuning", "bandwidth", "firewall", "sbr", "portmap")
# What a runtime may hand to a plugin, for each pod.
CAPABILITIES = {"bandwidth": {"bandwidth": True}, "portmap": {"portMappings": True}}

# The plugin bandwidth sets a token bucket by 32-bit numbers of bytes and of the kernel's ticks, each 64 ns, out of whole microseconds.
MOST_BYTES, MOST_TICKS = 2**32 - 1, 2**32 - 1
TICK = 0.064  # microseconds
ETHERNET_HEADER = 14
KERNELS_TABLES = {253: "default", 254: "main", 255: "local"}


def plugin_of(kind: str, given: Any) -> Data:
    """The configuration of a chained plugin out of what a user says of it; text that is a number or a boolean is one.

    :param given: the plugin's fields; {} turns it on with its defaults.
    """
    if not isinstance(given, dict):
        raise KindnetError(kind, shown(given), "is not a mapping", "Give fields of the plugin (%s), or {}." % ", ".join(sorted(FIELDS[kind])))
    fields = dict(FIELDS[kind], capabilities=_capabilities)
    plugin: Data = {"type": kind}
    for name, value in given.items():
        if name not in fields:
            problem = "is no field of the plugin %s" % kind
            raise KindnetError("%s.%s" % (kind, name), shown(value), problem, "Known are %s." % ", ".join(sorted(fields)))
        plugin[name] = fields[name]("%s.%s" % (kind, name), value)
    if kind in CAPABILITIES:
        plugin["capabilities"] = dict(CAPABILITIES[kind], **plugin.get("capabilities", {}))
    _refuse_combinations(kind, plugin)
    return plugin


def refuse_fields(field: str, plugin: Data) -> None:
    """Raise for a field of a plugin in a finished configuration that the plugin could not read; fields that are not known here are left alone.

    :param field: what to call the plugin, such as "template x.j2: plugins[1]".
    """
    fields = dict(FIELDS.get(plugin["type"], {}), capabilities=_capabilities, ipMasq=_boolean)
    # null and "" are what a plugin has for a field that is not there
    given = {name: value for name, value in plugin.items() if value not in (None, "")}
    for name in given:
        if name in fields and name != "mtu":  # which may be "auto", and is looked at with all the others
            _refuse_other_type("%s.%s" % (field, name), given[name], fields[name])
    _refuse_combinations(field, given)


def refuse_version(field: str, version: str, kinds: Iterable[str]) -> None:
    """Raise if a version of the specification has no lists of plugins, or is older than what one of ``kinds`` speaks."""
    _refuse_older(field, version, FIRST_VERSION, "has no lists of plugins")
    for kind in kinds:
        _refuse_older(field, version, VERSION_OF_PLUGIN.get(kind, FIRST_VERSION), "is older than what the plugin %s speaks" % kind)


def refuse_list_fields(field: str, conflist: Data) -> None:
    """What :func:`refuse_fields` does, for the fields beside the plugins and for what the plugins need of them."""
    versions = versions_of(conflist)
    for version in versions:
        refuse_version("%s: cniVersion" % field, version, [plugin["type"] for plugin in conflist["plugins"]])
    for name, least in VERSION_OF_FIELD.items():
        if name in conflist:
            # libcni takes the text "true", too, as the specification had it once.
            _boolean("%s: %s" % (field, name), conflist[name])
            _refuse_older("%s: cniVersion" % field, max(versions, key=_numbers), least, "has no %s" % name)
    bridged = any(plugin["type"] == "bridge" for plugin in conflist["plugins"])
    for position, plugin in enumerate(conflist["plugins"]):
        policy = plugin.get("ingressPolicy") if plugin["type"] == "firewall" else None
        if policy not in (None, "", "open") and not bridged:
            raise KindnetError(
                "%s: plugins[%d].ingressPolicy" % (field, position),
                policy,
                "works with the plugin bridge only: elsewhere it cuts pods of a node off from each other, and its rules stay when they go",
                "Leave it out, or make it 'open'.",
            )


def versions_of(conflist: Data) -> Tuple[str, ...]:
    """Versions of the specification that a runtime may use a configuration with: it takes the highest that it knows."""
    return tuple(dict.fromkeys([conflist["cniVersion"], *conflist.get("cniVersions", ())]))


def refuse_small_bursts(conflist: Data, mtu: Optional[int]) -> None:
    """Raise if a token bucket of the plugin bandwidth would hold no whole packet: larger ones are dropped, however slow they come."""
    packet = (mtu or 1500) + ETHERNET_HEADER
    for plugin in conflist["plugins"]:
        for way in ("ingress", "egress") if plugin["type"] == "bandwidth" else ():
            rate, burst = plugin.get(way + "Rate", 0) // 8, plugin.get(way + "Burst", 0) // 8
            if rate and int(int(burst * 1000000 / rate) / TICK) * TICK * rate / 1000000 < packet:
                # What it takes, and what a microsecond and a tick may lose.
                least = 8 * (packet + rate * 1064 // 10**9 + 2)
                raise KindnetError(
                    "bandwidth.%sBurst" % way,
                    plugin.get(way + "Burst", 0),
                    "is less than one packet of %d bytes (MTU %d) at this rate, so none that is full would pass" % (packet, mtu or 1500),
                    "Give at least %d bits; a tenth of a second of the rate is %d." % (least, max(least, rate * 8 // 10)),
                )


def sysctls_of(conflist: Data) -> Dict[str, str]:
    """What the plugin tuning sets in every pod."""
    return {name: value for plugin in conflist["plugins"] if plugin["type"] == "tuning" for name, value in (plugin.get("sysctl") or {}).items()}


def _refuse_other_type(field: str, value: Any, parse: Parser) -> None:
    parsed = parse(field, value)
    if json.dumps(parsed, sort_keys=True) != json.dumps(value, sort_keys=True):
        raise KindnetError(field, shown(value), "is not what the plugin reads", "Write %s." % json.dumps(parsed))


def _refuse_older(field: str, version: str, least: str, problem: str) -> None:
    if _numbers(version) < _numbers(least):
        raise KindnetError(field, version, problem, "Set cni_version (of the roles: kindnet_cni_version) to '%s' or newer." % least)


def _refuse_combinations(field: str, plugin: Data) -> None:
    """What a plugin refuses of fields that are right each by itself, or where one takes the meaning of another away."""
    kind = plugin["type"]
    if kind == "portmap":
        _refuse_portmap(field, plugin)
    elif kind == "bandwidth":
        for way in ("ingress", "egress"):
            _refuse_rate(field, way, plugin.get(way + "Rate", 0), plugin.get(way + "Burst", 0))
    elif kind == "firewall":
        for name, backend in (("iptablesAdminChainName", "firewalld"), ("firewalldZone", "iptables")):
            if name in plugin and plugin.get("backend") == backend:
                raise KindnetError("%s.%s" % (field, name), plugin[name], "has no meaning with backend %s" % backend, "Leave out one of the two.")


def _refuse_portmap(field: str, plugin: Data) -> None:
    def refuse(name: str, problem: str, remedy: str = "Leave out one of the two.") -> None:
        raise KindnetError("%s.%s" % (field, name), shown(plugin[name]), problem, remedy)

    backend = plugin.get("backend", "iptables")
    if "markMasqBit" in plugin and "externalSetMarkChain" in plugin:
        refuse("externalSetMarkChain", "excludes markMasqBit")
    if plugin.get("masqAll") and plugin.get("snat") is False:
        refuse("masqAll", "has no meaning with snat false")
    for name in ("markMasqBit", "externalSetMarkChain"):
        if name in plugin and backend == "nftables":
            refuse(name, "has no meaning with backend nftables")
    for name in ("conditionsV4", "conditionsV6"):
        for first in plugin.get(name, ())[:1]:
            language = "iptables" if first[0] in "-!" else "nftables"
            if language != backend:
                refuse(name, "is in the language of %s, and the backend is %s" % (language, backend), "Set backend to %s, or write it anew." % language)


def _refuse_rate(field: str, way: str, rate: int, burst: int) -> None:
    for name, value, other in ((way + "Rate", rate, way + "Burst"), (way + "Burst", burst, way + "Rate")):
        if value and not (rate and burst):
            raise KindnetError("%s.%s" % (field, name), value, "is given without %s" % other, "Give both, in bits per second and in bits.")
    if not rate:
        return
    if rate < 8:
        raise KindnetError("%s.%sRate" % (field, way), rate, "is less than a byte per second", "Give bits per second, such as 100000000.")
    # The queue holds the burst and what comes in 25 ms.
    if rate // 8 // 40 + burst // 8 > MOST_BYTES:
        raise KindnetError("%s.%sRate" % (field, way), rate, "makes with %sBurst a queue that is larger than 4 GiB" % way, "Give lower ones.")
    if burst // 8 * 1000000 / (rate // 8) / TICK > MOST_TICKS:
        raise KindnetError(
            "%s.%sBurst" % (field, way),
            burst,
            "takes %d s at this rate, and the kernel counts to 274" % (burst // rate),
            "Give at most %d bits." % (rate * 274),
        )


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


# --- one kind of value each


def _boolean(field: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise KindnetError(field, shown(value), "is not a boolean", "Give true or false.")


def _whole(least: int, most: int, what: str) -> Parser:
    def parse(field: str, value: Any) -> int:
        number = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and re.match(r"-?[0-9]{1,20}\Z", value.strip()):
            number = int(value)
        if number is None or not least <= number <= most:
            raise KindnetError(field, shown(value), "is not %s" % what, "Give a whole number from %d to %d." % (least, most))
        return number

    return parse


def _one_of(*choices: str) -> Parser:
    def parse(field: str, value: Any) -> str:
        if value not in choices:
            raise KindnetError(field, shown(value), "is not one of %s" % ", ".join(choices), "Give one of these, or leave it out.")
        return str(value)

    return parse


def _text(pattern: str, what: str, remedy: str) -> Parser:
    def parse(field: str, value: Any) -> str:
        if not isinstance(value, str) or not re.match(pattern + r"\Z", value):
            raise KindnetError(field, shown(value), "is not %s" % what, remedy)
        return str(value)

    return parse


def _table(field: str, value: Any) -> int:
    number: int = _whole(1, 2**31 - 1, "the number of a routing table")(field, value)
    if number in KERNELS_TABLES:
        raise KindnetError(field, number, "is the kernel's own table %s" % KERNELS_TABLES[number], "Give another number.")
    return number


def _mac(field: str, value: Any) -> str:
    if not isinstance(value, str) or not re.match(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}\Z", value):
        raise KindnetError(field, shown(value), "is not a MAC address", "Write it such as '02:00:00:00:00:01'.")
    if int(value[:2], 16) & 1 or value.strip("0:") == "":
        raise KindnetError(field, value, "is not the address of one interface", "Make the first byte even, such as '02:00:00:00:00:01'.")
    # CHECK compares it with what the kernel prints.
    return str(value.lower())


def _words(field: str, value: Any) -> Any:
    """A rule's matches, word by word: the plugin hands them to iptables or nft as they are."""
    good = isinstance(value, list) and all(isinstance(word, str) and word and word.isprintable() for word in value)
    if not good:
        raise KindnetError(field, shown(value), "is not a list of words", "Write each word by itself, such as ['!', '-d', '192.0.2.0/24'].")
    return [str(word) for word in value]


def _capabilities(field: str, value: Any) -> Data:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise KindnetError(field, shown(value), "is not a mapping", "Name each capability, such as {'portMappings': true}.")
    return {name: _boolean("%s.%s" % (field, name), enabled) for name, enabled in value.items()}


def _sysctls(field: str, value: Any) -> Dict[str, str]:
    if not isinstance(value, dict):
        raise KindnetError(field, shown(value), "is not a mapping", "Give names and values, such as {'net.core.somaxconn': '500'}.")
    parsed: Dict[str, str] = {}
    for name, setting in value.items():
        if not isinstance(name, str) or not re.match(r"net(\.[A-Za-z0-9_\-]+)+\Z", name):
            raise KindnetError(
                field, shown(name), "is not the name of a network sysctl", "Name one below net, with dots, such as net.ipv4.conf.IFNAME.arp_filter."
            )
        text = str(setting) if isinstance(setting, int) and not isinstance(setting, bool) else setting
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            raise KindnetError("%s.%s" % (field, name), shown(setting), "is not the value of a sysctl", "Give a number, or text in quotes.")
        parsed[name] = str(text)
    return parsed


_CHAIN = _text(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,27}", "the name of an iptables chain", "Use at most 28 letters, digits, '_', '.' and '-'.")
_BITS = _whole(0, 2**63 - 1, "a number of bits per second")
_BURST = _whole(0, 8 * MOST_BYTES - 1, "a number of bits that the plugin takes")
_PATH = _text(r"/[^\x00-\x1f]*", "an absolute path", "Begin it with '/'.")

FIELDS: Dict[str, Dict[str, Parser]] = {
    "bandwidth": {"ingressRate": _BITS, "ingressBurst": _BURST, "egressRate": _BITS, "egressBurst": _BURST},
    "firewall": {
        "backend": _one_of("iptables", "firewalld"),
        "iptablesAdminChainName": _CHAIN,
        "firewalldZone": _text(r"[A-Za-z0-9_\-]{1,17}", "the name of a zone of firewalld", "Give one that firewalld knows, such as trusted."),
        "ingressPolicy": _one_of("open", "same-bridge", "isolated"),
    },
    "portmap": {
        "snat": _boolean,
        "masqAll": _boolean,
        "backend": _one_of("iptables", "nftables"),
        "markMasqBit": _whole(0, 31, "the number of a bit of the mark"),
        "externalSetMarkChain": _CHAIN,
        "conditionsV4": _words,
        "conditionsV6": _words,
    },
    "sbr": {"table": _table},
    "tuning": {
        "sysctl": _sysctls,
        "mac": _mac,
        "promisc": _boolean,
        "mtu": _whole(68, 65535, "an MTU"),
        "allmulti": _boolean,
        "txQLen": _whole(0, 2**31 - 1, "a length of a queue"),
        "dataDir": _PATH,
    },
}
