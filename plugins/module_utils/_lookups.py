# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel answers about one packet, in the network namespace of this host or in that of a pod. Looks, and changes nothing.

It is asked through ``ip``, so that an operator who types the same gets the same. Many questions go to one process (``-batch``).
"""

from __future__ import annotations

__metaclass__ = type

import json
import re
import subprocess

from ._errors import KindnetError
from ._namespaces import ENVIRONMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, Sequence, Tuple

    Data = Dict[str, Any]
    Answer = Tuple[List[Data], str]  # what ip printed, or why it did not

TIMEOUT = 20.0  # seconds for one process; it takes some milliseconds
SINGLE = {4: 32, 6: 128}
# Settings about each of two interfaces, and about all of them.
SETTINGS = {4: ("forwarding", "rp_filter"), 6: ("forwarding", "force_forwarding")}


class Namespace:
    """One network namespace: this host's, or the one at ``path``."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self._enter = ["nsenter", "--net=" + path, "--"] if path else []

    def addresses(self) -> Dict[str, Data]:
        """Each interface by its name: ``mtu``, ``up``, ``addresses`` (with prefix length, none of them link-local)."""
        ((links, why),) = self.ask(["address show"])
        if why:
            raise KindnetError("addresses", self.path or "this host", "cannot be listed (%s)" % why, "Run 'ip address' there and see.")
        return {
            link["ifname"]: {
                "mtu": link["mtu"],
                "up": "UP" in link["flags"] and "NO-CARRIER" not in link["flags"],
                "loopback": "LOOPBACK" in link["flags"],
                "addresses": ["%s/%d" % (a["local"], a["prefixlen"]) for a in link.get("addr_info", ()) if "local" in a and a.get("scope") != "link"],
            }
            for link in links
            if link.get("ifname")
        }

    def ask(self, questions: Sequence[str], *options: str) -> List[Answer]:
        """One answer for each line that ``ip`` can be given."""
        if not questions:
            return []
        done = self._run(["ip", *options, "-json", "-force", "-batch", "-"], "".join(q + "\n" for q in questions))
        said = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        failed: Dict[int, str] = {}
        why = ""
        for line in done.stderr.splitlines():
            number = re.match(r"Command failed -:([0-9]+)", line)
            if number:
                failed[int(number.group(1))] = why
            else:
                why = line.rpartition("answers: ")[2].strip()
        if len(said) + len(failed) != len(questions):
            raise KindnetError("ip", why or "%d answers" % len(said), "does not answer each question", "See what 'ip -json route' says there.")
        return [([], failed[n] or "no answer") if n in failed else (said.pop(0), "") for n in range(1, len(questions) + 1)]

    def settings(self, family: int, interfaces: Iterable[str]) -> Dict[str, str]:
        """Values of sysctl by their names; those that this kernel does not have are left out."""
        keys = ["net.ipv%d.conf.%s.%s" % (family, i, s) for i in ("all", *sorted(set(interfaces))) for s in SETTINGS[family]]
        found = {}
        for key in keys:
            # A name of an interface may have dots, so the path is not made of the key.
            _net, _family, conf, rest = key.split(".", 3)
            interface, _dot, name = rest.rpartition(".")
            try:
                with open("/proc/sys/net/ipv%d/%s/%s/%s" % (family, conf, interface, name)) as f:
                    found[key] = f.read().strip()
            except OSError:  # not in this kernel, or the interface is gone
                continue
        return found

    def _run(self, argv: List[str], stdin: str) -> Any:
        try:
            return subprocess.run(self._enter + argv, input=stdin, capture_output=True, env=ENVIRONMENT, text=True, timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise KindnetError(argv[0], " ".join(argv[1:]), "cannot be run (%s)" % e, "Install iproute2 and util-linux, and see what the command does.")


def lookups(namespace: Namespace, flows: Sequence[Tuple[str, str]], family: int) -> List[Data]:
    """Where the kernel sends a packet of each flow, by each interface it may come in by; "" is for one that starts here.

    A packet may come in by the interface that leads to its source if that is a pod here, and by any that has a network behind it.
    """
    links = namespace.addresses()
    own = {a.rpartition("/")[0] for link in links.values() for a in link["addresses"]}
    backs = dict(zip([s for s, _d in flows], namespace.ask(["route get %s" % s for s, _d in flows])))
    networks = [
        name for name, link in links.items()
        if not link["loopback"]
        and any((":" in a) == (family == 6) and int(a.rpartition("/")[2]) < SINGLE[family] for a in link["addresses"])
    ]
    asked: List[Tuple[str, str, str]] = []
    for source, destination in flows:
        if source in own:
            asked.append((source, destination, ""))
            continue
        back, _why = backs[source]
        near = [back[0]["dev"]] if back and "gateway" not in back[0] and "via" not in back[0] and "dev" in back[0] else []
        asked += [(source, destination, name) for name in dict.fromkeys(near + networks) if name in links and not links[name]["loopback"]]
    words = ["%s from %s%s" % (d, s, " iif %s" % iif if iif else "") for s, d, iif in asked]
    routes = namespace.ask(["route get %s" % w for w in words])
    matched = namespace.ask(["route get fibmatch %s" % w for w in words])
    found = []
    for (source, destination, iif), (route, why), (fib, _why) in zip(asked, routes, matched):
        entry: Data = {"source": source, "destination": destination, "iif": iif, "error": why, "question": "ip route get %s from %s" % (destination, source)}
        entry["question"] += " iif %s" % iif if iif else ""
        if why:
            entry["in_the_way"] = _matching(namespace, destination, family)
        else:
            entry.update(_summary(route[0]), matched=_in_words(fib[0]) if fib else "")
        back, why_not = backs[source]
        entry["back"] = {"error": why_not} if why_not else dict(_summary(back[0]), error="")
        found.append(entry)
    _neighbours(namespace, found)
    return found


def _summary(route: Data) -> Data:
    metrics: Data = (route.get("metrics") or [{}])[0]
    via = route.get("gateway") or (route.get("via") or {}).get("host", "")
    return {
        "type": route.get("type", "unicast"),
        "via": via,
        "dev": route.get("dev", ""),
        "prefsrc": route.get("prefsrc", ""),
        # One that expires is of the path, and was learned from a router that refused a larger packet.
        "mtu": 0 if "expires" in route else metrics.get("mtu", 0),
        "learned_mtu": metrics.get("mtu", 0) if "expires" in route else 0,
        "flags": list(route.get("flags", ())),
    }


def _matching(namespace: Namespace, destination: str, family: int) -> str:
    """The route that holds an address for which there is no way, such as a blackhole; "" if none does."""
    ((routes, _why),) = namespace.ask(["route show match %s" % destination], "-%d" % family)
    longest = max(routes, key=lambda r: int(r["dst"].partition("/")[2] or SINGLE[family]) if r["dst"] != "default" else -1, default=None)
    return _in_words(longest) if longest else ""


def _in_words(route: Data) -> str:
    """A route as ``ip route`` prints it, in brief."""
    via = route.get("gateway") or (route.get("via") or {}).get("host", "")
    words = [route.get("type", ""), route.get("dst", "")]
    for key, value in (("via", via), ("dev", route.get("dev")), ("proto", route.get("protocol")), ("metric", route.get("metric"))):
        words += [key, str(value)] if value else []
    return " ".join(word for word in words if word)


def _neighbours(namespace: Namespace, found: List[Data]) -> None:
    """The entry of the next hop of each route that has one. Whom nobody has sent anything yet has no entry, which is no fault."""
    hops = sorted({(e["via"] or e["destination"], e["dev"]) for e in found if not e["error"] and e["type"] == "unicast"})
    answers = dict(zip(hops, namespace.ask(["neighbour show to %s dev %s" % hop for hop in hops])))
    for entry in found:
        rows, _why = answers.get((entry.get("via") or entry["destination"], entry.get("dev", "")), ([], ""))
        entry["neighbour"] = {"state": (rows[0].get("state") or [""])[0], "mac": rows[0].get("lladdr", "")} if rows else {"state": "", "mac": ""}
