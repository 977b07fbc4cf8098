# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A walk as a person reads it: hop by hop, a line for each thing that a kernel answered. Pure."""

from __future__ import annotations

__metaclass__ = type

from ._walk import ARRIVED, BACK
from ._walk_ends import NODE
from ._walk_verdict import called

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Sequence

    from ._walk import Way

    Data = Dict[str, Any]

INDENT = " " * 4


def lines(ways: Sequence[Way], sentence: str) -> List[str]:
    """Both ways, and the sentence last."""
    told = ["%s -> %s" % (called(ways[0].source), called(ways[0].destination))]
    for way in ways:
        told += ["", "%s: %s" % ("And back" if way.direction == BACK else "There", "from %s to %s" % (way.source.name, way.destination.name))]
        for number, hop in enumerate(way.hops, 1):
            told += _hop(number, hop)
        if way.end != ARRIVED and way.reason:
            told.append("%s! %s %s" % (INDENT[:1], way.node, way.reason))
        told += ["%s  %s" % (INDENT[:1], remark) for remark in way.remarks]
    return [*told, "", sentence]


def _hop(number: int, hop: Data) -> List[str]:
    head = "%2d %s" % (number, hop["where"])
    if hop["note"]:
        return ["%s: %s" % (head, hop["note"])]
    came = " in by %s," % hop["iif"] if hop.get("iif") else ""
    head += ":%s %s -> %s" % (came, hop["source"], hop["destination"])
    rows = [_route(hop)]
    if hop.get("neighbour", {}).get("state"):
        rows.append("neighbour   %s %s" % (hop["neighbour"]["mac"] or "-", hop["neighbour"]["state"]))
    elif hop["error"] == "" and hop["type"] == "unicast":
        rows.append("neighbour   no entry yet: nobody sent it anything lately")
    if hop["kind"] == NODE:
        if hop.get("forwarding") is not None and hop["type"] != "local":
            strict = {None: "", 0: ", reverse-path filter off", 1: ", reverse-path filter strict", 2: ", reverse-path filter loose"}
            rows.append("forwarding  %s by %s%s" % ("on" if hop["forwarding"] != "0" else "OFF", hop["iif"], strict.get(hop["rp_filter"], "")))
        if "translation" in hop:
            said = hop["translation"]
            what = "becomes %s" % said["source"] if said["by"] else "is kept"
            rows.append("source      %s (%s)" % (what, said["rule"] or "no rule of nat says anything"))
        if hop["error"] == "" and hop["type"] == "unicast" and hop.get("iif"):
            rows.append("forward     %s%s" % (hop["forward"]["verdict"], ": %s" % hop["forward"]["why"] if hop["forward"]["why"] else ""))
    rows += ["seen        %s" % seen for seen in hop.get("seen", ())]
    if hop.get("mtu") and hop["error"] == "" and hop["type"] == "unicast":
        of_route = ", of the route %d" % hop["route_mtu"] if hop.get("route_mtu") else ""
        learned = ", and %d learned of the path lately" % hop["learned_mtu"] if hop.get("learned_mtu") else ""
        rows.append("MTU         %d%s%s" % (hop["mtu"], of_route, learned))
    return [head, *("%s%s" % (INDENT, row) for row in rows)]


def _route(hop: Data) -> str:
    if hop["error"]:
        return "route       none: %s%s   ('%s')" % (hop["error"], " ('%s' is there)" % hop["in_the_way"] if hop["in_the_way"] else "", hop["question"])
    if hop["type"] == "local":
        turned = hop.get("turned_to")
        return "route       local: %s" % ("the translation is turned back, it is for %s now" % turned if turned else "it has arrived")
    to = ", which is %s" % hop["next"] if hop["next"] and hop["next"] != hop["via"] else ""
    return "route       %s%s" % (hop["matched"], to)
