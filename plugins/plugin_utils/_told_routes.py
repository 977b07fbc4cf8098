# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes of a host that leaves out those that are as recorded: kindnet_info with most_right_routes. Pure.

It left out what it has recorded. Whether that is what the node table says tells the digest of its recorded peers, or else what the run found: of a route
that the table wants otherwise there is a difference.
"""

from __future__ import annotations

__metaclass__ = type

from typing import Any, Dict, List, Mapping


def leaves_out(host: Mapping[str, Any]) -> bool:
    return bool((host.get("info") or {}).get("routes_left_out"))


def is_cut(host: Mapping[str, Any]) -> bool:
    """Whether it counted differences that it did not tell, so that what is not named may be wrong all the same."""
    return bool(host.get("differences_left_out"))


def is_rest_right(host: Mapping[str, Any], wanted: str) -> bool:
    """Whether each route to a peer is right that the host does not tell, and that neither it nor the report calls wrong.

    :param wanted: the digest of the peers that it ought to have recorded.
    """
    if not leaves_out(host):
        return False
    info = host["info"]
    could_tell_missing = (info.get("peers") or {}).get("wanted", 0) >= info["routes_left_out"]
    if could_tell_missing and (info.get("desired") or {}).get("peers") == wanted:
        return True
    return "routes" in (host.get("looked_at") or ()) and not is_cut(host)


def told_routes(host: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The routes of a host that told of some, and those that it left out although the run would change them."""
    routes = list(host["info"]["routes"])
    if leaves_out(host):
        told = {route.get("dst") for route in routes}
        for difference in host.get("differences") or ():
            what, _space, dst = str(difference.get("subject", "")).partition(" ")
            how, _space, words = str(difference.get("before") or "").partition(" ")
            if what == "route" and how == "via" and dst not in told:
                routes.append({"dst": dst, "via": words.split(" ")[0], "type": "unicast", "ours": True})
    return routes
