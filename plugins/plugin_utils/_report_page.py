# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a report to drift.html: one page that needs nothing else, neither a network nor a script.

Names, rules and files come from hosts, and a host may be in the wrong hands. So every text is escaped by the template engine, characters that a
browser would not show as they are become visible, and the page's own policy lets nothing run or load but what is in here.
"""

from __future__ import annotations

__metaclass__ = type

import base64
import hashlib
import os
from typing import Any, Dict, Iterator, List, Mapping, Tuple
from urllib.parse import quote

from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from ._canvas import visible
from ._map import FINDINGS, Map, MapNode, label, map_of
from ._map_mermaid import mermaid_of
from ._map_svg import svg
from ._reachability import reachability_of
from ._report import NOT_COMPARED, UNREACHABLE
from ._text_diff import Part, sides

TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "templates")

# A page that no browser opens is none. What is left out is in drift.json, and the page says so.
MOST_ROWS = 5000
MOST_TEXT = 4000  # characters of one side of one difference
MOST_TEXTS = 4_000_000  # characters of all of them
MOST_PODS = 5000
MOST_ROUTES = 20  # of one host, of those that stand out

STATUSES = {"in_sync": "in sync", "changed": "changed", "drifted": "drifted", "failed": "failed", "unreachable": "unreachable"}


def page(report: Mapping[str, Any]) -> str:
    """drift.html of ``report``, which is the content of drift.json. The same report makes the same page."""
    found = map_of(report)
    style, script = _file("drift.css"), _file("drift.js")
    differences, left_out = _differences(report)
    diagram = visible(mermaid_of(found))
    text = (
        _environment()
        .get_template("drift.html.j2")
        .render(
            report=report,
            verdict=STATUSES.get(str(report.get("verdict")), str(report.get("verdict"))),
            statuses=STATUSES,
            not_compared=NOT_COMPARED,
            style=Markup(style),
            script=Markup(script),
            policy="default-src 'none'; style-src '%s'; script-src '%s'; img-src data:; base-uri 'none'; form-action 'none'" % (_hash(style), _hash(script)),
            totals=_totals(report),
            differences=differences,
            left_out=left_out,
            concerns=sorted({d["concern"] for d in differences}),
            hosts=_hosts(report, found),
            map=found,
            svg=Markup(svg(found)),
            findings=_counts(found),
            mermaid=diagram,
            mermaid_link="data:text/plain;charset=utf-8," + quote(diagram),
            reachability=reachability_of(report),
        )
    )
    return text.encode("utf-8", "replace").decode("utf-8")


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
    )


def _file(name: str) -> str:
    with open(os.path.join(TEMPLATES, name), encoding="utf-8") as f:
        return f.read()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _totals(report: Mapping[str, Any]) -> List[Tuple[str, str, int]]:
    """The status that a total is of, or "", what to call it, and the number."""
    totals = report.get("totals") or {}
    names = [("", "hosts", "hosts"), *((s, s, t) for s, t in STATUSES.items())]
    names += [("", "differences", "differences"), ("", "problems", "problems"), ("", "cross_host", "between hosts")]
    return [(status, text, int(totals.get(key) or 0)) for status, key, text in names]


def _differences(report: Mapping[str, Any]) -> Tuple[List[Dict[str, Any]], int]:
    """A row for each difference and each problem of each host, and how many there are without one."""
    rows: List[Dict[str, Any]] = []
    room, left_out = MOST_TEXTS, 0
    for host, item, action in _items(report):
        if len(rows) == MOST_ROWS:
            left_out += 1
            continue
        before, after = (str(item.get(key) or "") for key in ("before", "after"))
        short = len(before) > MOST_TEXT or len(after) > MOST_TEXT
        before, after = before[:MOST_TEXT], after[:MOST_TEXT]
        if len(before) + len(after) > room:
            before = after = ""
            short = True
        room -= len(before) + len(after)
        shown: Tuple[List[Part], List[Part]] = ([], []) if action else sides(visible(before), visible(after))
        rows.append(
            {
                "host": str(host.get("name", "")),
                "status": str(host.get("status", "")),
                "concern": str(item.get("concern") or ""),
                "subject": str(item.get("subject") or ""),
                "told": bool(action),  # in words, instead of before and after
                "action": action or str(item.get("action") or ""),
                "before": shown[0],
                "after": shown[1],
                "reason": str(item.get("message" if action else "reason") or ""),
                "short": short,
            }
        )
    return rows, left_out + sum(int(host.get("differences_left_out") or 0) for host in report.get("hosts") or ())


def _items(report: Mapping[str, Any]) -> Iterator[Tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """What stands in the table, and what to call it if it is not a difference."""
    for host in report.get("hosts") or ():
        if host.get("status") == UNREACHABLE:
            yield host, {"concern": "host", "message": host.get("message")}, "not looked at"
        for key, action in (("failures", "not looked at"), ("problems", "problem"), ("differences", "")):
            for item in host.get(key) or ():
                yield host, item, action


def _hosts(report: Mapping[str, Any], found: Map) -> List[Dict[str, Any]]:
    """What there is to say of each host, and of each node that the run was not about."""
    nodes = {n.name: n for n in found.nodes}
    hosts = []
    room = MOST_PODS
    for host in report.get("hosts") or ():
        node = nodes.pop(str(host.get("name", "")))
        pods = node.pods[: max(room, 0)]
        room -= len(pods)
        hosts.append({**_host(node), "host": host, "info": host.get("info") or {}, "pods": pods, "pods_left_out": len(node.pods) - len(pods)})
    return hosts + [{**_host(node), "host": None, "info": {}, "pods": (), "pods_left_out": 0} for node in nodes.values()]


def _host(node: MapNode) -> Dict[str, Any]:
    routes = [(r.state, label(r)) for r in node.routes if r.state in FINDINGS]
    return {"node": node, "routes": routes[:MOST_ROUTES], "routes_left_out": len(routes[MOST_ROUTES:])}


def _counts(found: Map) -> List[Tuple[str, int]]:
    states = [r.state for r in found.findings]
    return [(state, states.count(state)) for state in FINDINGS]
