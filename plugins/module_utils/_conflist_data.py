# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a CNI network configuration list is: read from text, checked, completed, written. Pure, on the controller as on a node."""

from __future__ import annotations

__metaclass__ = type

import json
import re

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

    Data = Dict[str, Any]

AUTO = "auto"
# Where host-local keeps its allocations when a configuration does not say.
DEFAULT_DATA_DIR = "/var/lib/cni/networks"
# Every runtime runs this one for a pod's lo, and no conflist names it.
LOOPBACK = "loopback"
DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}
# Below the first IPv4 does not work, below the second the kernel turns IPv6 off on the link.
LEAST_MTU = {4: 68, 6: 1280}
MOST_MTU = 65535
# What a user may say beside pod CIDRs, MTU, name and version: fields of the plugins, as these spell them.
OPTIONS = ("ranges", "extra_ranges", "portmap", "tuning", "bandwidth", "firewall", "sbr")
# The keys that tell what an object is stand first in the file.
FIRST_KEYS = {"cniVersion": 0, "name": 1, "type": 2}

TEMPLATE_REMEDY = "Correct the template; every value of it should go through to_json."


def parse_pod_cidrs(value: Any) -> Tuple[str, ...]:
    """A node's pod CIDRs as canonical text in the given order: one, or one of each family."""
    from ._node_table import LONGEST_PREFIX, as_list, parse_cidr

    cidrs = [parse_cidr("pod_cidrs", item) for item in as_list("pod_cidrs", value)]
    if not cidrs:
        raise KindnetError(
            "pod_cidrs",
            "none",
            "there is no pod CIDR, so pods could get no address",
            "Set kindnet_pod_cidrs of this host, such as ['10.244.1.0/24'].",
        )
    for cidr in cidrs:
        if int(cidr.text.rpartition("/")[2]) > LONGEST_PREFIX[cidr.family]:
            raise KindnetError(
                "pod_cidrs",
                cidr.text,
                "is too small for a gateway and a pod",
                "Use a prefix length of at most %d." % LONGEST_PREFIX[cidr.family],
            )
    if len({c.family for c in cidrs}) < len(cidrs):
        raise KindnetError(
            "pod_cidrs",
            ", ".join(c.text for c in cidrs),
            "has more than one pod CIDR of a family, so every pod would get two addresses of it",
            "Give one pod CIDR, or one of IPv4 and one of IPv6.",
        )
    return tuple(c.text for c in cidrs)


def parse_mtu(value: Any, families: Sequence[int] = (4,)) -> Any:
    """An MTU in bytes, ``auto``, or None when there is none to set. Text of a number is a number: templating makes text of it."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip() == AUTO:
        return AUTO
    number = -1
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and value.strip().isdigit() and value.strip().isascii() and len(value.strip()) < 10:
        number = int(value)
    least = max(LEAST_MTU[f] for f in families)
    if not least <= number <= MOST_MTU:
        raise KindnetError(
            "mtu",
            shown(value),
            "is not an MTU for IPv%s" % " and IPv".join(str(f) for f in families),
            "Give a number of bytes from %d to %d, or 'auto', or leave it out." % (least, MOST_MTU),
        )
    return number


def parse_name(value: Any, field: str = "name") -> str:
    """A network's name, as libcni accepts it; it is also the name of a folder of host-local's."""
    if not isinstance(value, str) or not re.match(r"[A-Za-z0-9][A-Za-z0-9_.\-]*\Z", value):
        raise KindnetError(
            field, shown(value), "is not a name of a CNI network", "Use letters, digits, '_', '.' and '-', beginning with a letter or a digit."
        )
    return str(value)


def parse_version(field: str, value: Any) -> str:
    """A version of the CNI specification."""
    if not isinstance(value, str) or not re.match(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}\Z", value):
        raise KindnetError(field, shown(value), "is not a version of the CNI specification", "Give one as a string, such as '0.3.1'.")
    return str(value)


def template_variables(pod_cidrs: Any, mtu: Any, name: Any, cni_version: Any, options: Optional[Data] = None) -> Dict[str, Any]:
    """What a conflist template is rendered with; everything is checked, and nothing in it can end a string of JSON early.

    :param options: of those in :data:`OPTIONS`, the ones that are given.
    """
    from ._cni_fields import CHAINED, plugin_of, refuse_version
    from ._ranges import range_sets

    options = dict({"portmap": {}}, **(options or {}))
    cidrs = parse_pod_cidrs(pod_cidrs)
    families = [6 if ":" in c else 4 for c in cidrs]
    chained = [plugin_of(kind, options[kind]) for kind in CHAINED if kind in options]
    refuse_version("cni_version", parse_version("cni_version", cni_version), [plugin["type"] for plugin in chained])
    return {
        "pod_cidrs": list(cidrs),
        "families": ["ipv%d" % f for f in families],
        "routes": [{"dst": DEFAULT_ROUTE[f]} for f in families],
        "ranges": range_sets(cidrs, options.get("ranges"), options.get("extra_ranges")),
        "chained": chained,
        "mtu": parse_mtu(mtu, families),
        "name": parse_name(name),
        "cni_version": str(cni_version),
    }


def parse_text(field: str, text: Any) -> Data:
    """A conflist out of a template's or a user's text.

    :param field: what to call the text in an error, such as "template /etc/x.j2".
    """
    if not isinstance(text, str):
        raise KindnetError(field, shown(text), "renders to %s, not to text" % type(text).__name__, "End the expression with '| to_json'.")
    if not text.strip():
        raise KindnetError(field, "''", "renders to nothing", TEMPLATE_REMEDY)
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as e:
        lines = text.splitlines()
        line = lines[e.lineno - 1] if e.lineno <= len(lines) else ""
        raise KindnetError(
            field,
            "line %d column %d of the result" % (e.lineno, e.colno),
            "renders to something else than JSON (%s): %s" % (e.msg, shown(line)),
            TEMPLATE_REMEDY,
        )
    except (ValueError, RecursionError) as e:
        raise KindnetError(field, shown(text), "renders to something else than JSON (%s)" % e, TEMPLATE_REMEDY)
    return parse_conflist(field, data)


def parse_conflist(field: str, data: Any) -> Data:
    """Refuse what libcni or the reference plugins would refuse, before a running node's file is touched.

    Returns a copy without MTUs that are null, so that a template need not put a key and its comma under a condition.
    """
    from ._cni_fields import refuse_fields, refuse_list_fields

    def refuse(value: Any, problem: str, remedy: str = "") -> NoReturn:
        raise KindnetError(field, shown(value), problem, remedy or "Make it a CNI configuration list: cniVersion, name and plugins.")

    if not isinstance(data, dict):
        refuse(data, "is not a conflist but %s" % _json_type(data))
    for key in ("cniVersion", "name", "plugins"):
        if key not in data:
            refuse(sorted(data), "is not a conflist, it has no %r" % key)
    versions = data.get("cniVersions", [])
    for version in [data["cniVersion"]] + (versions if isinstance(versions, list) else [versions]):
        parse_version("%s: cniVersion" % field, version)
    parse_name(data["name"], "%s: name" % field)
    plugins = data["plugins"]
    if not isinstance(plugins, list) or not plugins:
        refuse(plugins, "has no list of plugins")
    copied: List[Data] = []
    for position, plugin in enumerate(plugins):
        where = "plugins[%d]" % position
        if not isinstance(plugin, dict):
            refuse(plugin, "%s is not an object but %s" % (where, _json_type(plugin)))
        _refuse_type(field, where, plugin)
        mtu = plugin.get("mtu")
        known = mtu is None or mtu == AUTO or isinstance(mtu, int) and not isinstance(mtu, bool) and LEAST_MTU[4] <= mtu <= MOST_MTU
        if not known:
            refuse(mtu, "%s.mtu is not an MTU" % where, "Make it a number of bytes from %d to %d, or \"auto\"." % (LEAST_MTU[4], MOST_MTU))
        if "ipam" in plugin:
            ipam = plugin["ipam"]
            if not isinstance(ipam, dict):
                refuse(ipam, "%s.ipam is not an object but %s" % (where, _json_type(ipam)))
            if ipam:  # {} is how a plugin without addresses is written
                _refuse_type(field, where + ".ipam", ipam)
                _refuse_ranges("%s: %s.ipam" % (field, where), ipam)
        refuse_fields("%s: %s" % (field, where), plugin)
        copied.append({k: v for k, v in plugin.items() if k != "mtu" or v is not None})
    conflist: Data = dict(data, plugins=copied)
    refuse_list_fields(field, conflist)
    return conflist


def refuse_unused(field: str, options: Data, conflist: Data) -> None:
    """Raise for a plugin that somebody gives options of and that ``conflist``, out of a template of theirs, does not have."""
    from ._cni_fields import CHAINED

    types = plugin_types(conflist)
    for kind in CHAINED:
        # portmap is there without being asked for, so that {} asks for nothing
        if kind in options and kind not in types and (options[kind] or kind != "portmap"):
            raise KindnetError(kind, shown(options[kind]), "is not in what %s makes" % field, "Let the template use 'chained', or leave this out.")


def wants_mtu(conflist: Data) -> bool:
    """True if a plugin leaves its MTU to the node."""
    return any(p.get("mtu") == AUTO for p in conflist["plugins"])


def fill_mtu(conflist: Data, mtu: Optional[int]) -> Data:
    """``conflist`` with every ``auto`` replaced by ``mtu``, and left out when that is unknown."""
    plugins = []
    for plugin in conflist["plugins"]:
        if plugin.get("mtu") == AUTO:
            plugin = {k: v for k, v in plugin.items() if k != "mtu"}
            if mtu is not None:
                plugin["mtu"] = mtu
        plugins.append(plugin)
    return dict(conflist, plugins=plugins)


def mtu_of(conflist: Optional[Data]) -> Optional[int]:
    """The MTU that a conflist in use gives to pods."""
    for plugin in plugins_of(conflist):
        mtu = plugin.get("mtu")
        if isinstance(mtu, int) and not isinstance(mtu, bool) and LEAST_MTU[4] <= mtu <= MOST_MTU:
            return mtu
    return None


def plugin_types(conflist: Data) -> Tuple[str, ...]:
    """Every program a runtime executes for ``conflist``, each once, in the order of use."""
    types: List[str] = []
    for plugin in conflist["plugins"]:
        types.append(plugin["type"])
        if plugin.get("ipam"):
            types.append(plugin["ipam"]["type"])
    types.append(LOOPBACK)
    return tuple(dict.fromkeys(types))


def stores_of(conflist: Optional[Data]) -> Dict[str, Tuple[str, ...]]:
    """Folder of host-local's allocations to the subnets it allocates from; {} of a conflist that is damaged or has none."""
    return {folder: tuple(str(r.get("subnet")) for r in ranges) for folder, ranges in ranges_of(conflist).items()}


def ranges_of(conflist: Optional[Data]) -> Dict[str, Tuple[Data, ...]]:
    """The same with all that the configuration says of each range."""
    stores: Dict[str, Tuple[Data, ...]] = {}
    if not conflist or not isinstance(conflist.get("name"), str):
        return stores
    for plugin in plugins_of(conflist):
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == "host-local":
            folder = "%s/%s" % (str(ipam.get("dataDir") or DEFAULT_DATA_DIR).rstrip("/"), conflist["name"])
            stores[folder] = stores.get(folder, ()) + tuple(r for ranges in _range_sets(ipam) for r in ranges)
    return stores


def plugins_of(conflist: Optional[Data]) -> List[Data]:
    """The plugins of what may be anybody's file."""
    plugins = (conflist or {}).get("plugins")
    return [p for p in plugins if isinstance(p, dict)] if isinstance(plugins, list) else []


def read_text(content: bytes) -> Optional[Data]:
    """The object that a file holds; None when it is damaged."""
    try:
        data = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def pretty(conflist: Data) -> str:
    """The text of the file: the same for the same data, whatever the order it was given in."""
    return json.dumps(_ordered(conflist), indent=2) + "\n"


def same(a: Any, b: Any) -> bool:
    """True if both are the same JSON. Python's own comparison takes false for 0 and 1 for true."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _ordered(value[k]) for k in sorted(value, key=lambda k: (FIRST_KEYS.get(k, len(FIRST_KEYS)), k))}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _range_sets(ipam: Data) -> Iterator[List[Data]]:
    """Every set of ranges of host-local's configuration, also in the old form where the one range is the configuration itself."""
    if "subnet" in ipam:
        yield [{k: ipam[k] for k in ("subnet", "rangeStart", "rangeEnd", "gateway") if k in ipam}]
    sets = ipam.get("ranges")
    for ranges in sets if isinstance(sets, list) else ():
        yield [item for item in ranges if isinstance(item, dict)] if isinstance(ranges, list) else []


def _refuse_type(field: str, where: str, plugin: Data) -> None:
    kind = plugin.get("type")
    # A runtime looks for a file of this name in its plugin folders.
    if not isinstance(kind, str) or not re.match(r"[A-Za-z0-9_.\-]+\Z", kind) or kind in (".", ".."):
        raise KindnetError(field, shown(kind), "%s.type is not the name of a CNI plugin" % where, "Name a program, such as \"ptp\".")


def _refuse_ranges(field: str, ipam: Data) -> None:
    if ipam["type"] != "host-local":
        return
    from ._ranges import refuse_overlaps

    refuse_overlaps(field, list(_range_sets(ipam)))


def _no_constant(text: str) -> Any:
    raise ValueError("%s is no value of JSON" % text)


def _json_type(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value for a message: on one line, recognisable, and never pages of it."""
    text = value if isinstance(value, str) and value.isprintable() else ascii(value)
    return text if len(text) <= 80 else "%s... (%d characters)" % (text[:60], len(text))
