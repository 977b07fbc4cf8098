# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry "reachability" of the report as text for a screen: a matrix of a few hosts, of many only what is bad. Pure."""

from __future__ import annotations

__metaclass__ = type

from ..module_utils._node_table import shorten
from ._plan_reachability import KINDS, POD_TO_POD, groups, is_bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Sequence, Tuple

    Result = Mapping[str, Any]

DRAWN_UP_TO = 20  # hosts, so that a line fits a wide screen
PAIRS_NAMED = 40
MESSAGE = 80  # characters of why a host was not asked


def screen(entry: Mapping[str, Any]) -> str:
    """All that a person is told of a run."""
    drawn = len(entry["hosts"]) <= DRAWN_UP_TO
    parts = [_heading(entry)]
    for kind, six, results in groups(entry["results"]):
        parts.append(total(kind, six, results) + ("\n" + matrix(entry, kind, results) if drawn else ""))
    if drawn and entry["results"]:
        parts.append("In ms, the mean of the answers; 33%: so much was lost; lost: no answer; .: not tried.")
    elif entry["not_asked"]:
        parts.append("\n".join(["Not asked:", *("  %s: %s" % (one["host"], _short(one["message"])) for one in entry["not_asked"])]))
    bad = [r for r in entry["results"] if is_bad(r)]
    if bad:
        parts.append("\n".join(["What does not answer:", *hopeless(entry["results"]), *pairs(bad)]))
    if entry["not_tried"]:
        parts.append("\n".join(["Not tried:", *("  " + line for line in entry["not_tried"])]))
    return "\n\n".join(parts)


def matrix(entry: Mapping[str, Any], kind: str, results: Sequence[Result]) -> str:
    """A row for each host that asks, a column for each that is asked, by its number."""
    names: List[str] = list(entry["hosts"])
    of_pair = {(r["source_host"], r["target_host"]): r for r in results}
    not_asked = {one["host"]: one["message"] for one in entry["not_asked"]}
    width = max(len(name) for name in names)
    lines = ["%s%s" % (" " * (width + 4), "".join("%6d" % number for number in range(1, len(names) + 1)))]
    for number, name in enumerate(names, 1):
        if name in not_asked:
            row = "  not asked: %s" % _short(not_asked[name])
        elif not any(source == name for source, _target in of_pair):
            row = "  not asked: no pod to ask from" if kind == POD_TO_POD else "  not asked: nobody to ask"
        else:
            row = "".join("%6s" % (cell(of_pair[name, target]) if (name, target) in of_pair else ".") for target in names)
        lines.append("%3d %-*s%s" % (number, width, name, row))
    return "\n".join(lines)


def cell(result: Result) -> str:
    """In five characters at most."""
    if not result["sent"]:
        return "?"
    if not result["received"]:
        return "lost"
    if is_bad(result):
        return "%.0f%%" % result["loss"]
    ms: float = result["rtt_ms"]
    return "%.2f" % ms if ms < 9.995 else "%.0f" % ms if ms < 9999.5 else "%.0fs" % (ms / 1000)


def pairs(bad: Sequence[Result]) -> List[str]:
    lines = []
    for r in bad[:PAIRS_NAMED]:
        what = "%d of %d answered" % (r["received"], r["sent"]) if r["sent"] else "not asked"
        why = (": " + r["error"] if r["sent"] else r["error"].partition("not asked")[2]) if r["error"] else ""
        lines.append("  %s: %s -> %s (%s): %s%s" % (r["kind"], r["source"], r["target"], r["address"], what, why))
    if len(bad) > PAIRS_NAMED:
        lines.append("  and %d more, all of them in the report" % (len(bad) - PAIRS_NAMED))
    return lines


def hopeless(results: Sequence[Result]) -> List[str]:
    """Hosts of which everything between them and others is lost: where to look first."""
    lines = []
    for key, other, words in (("target_host", "source_host", "nobody reaches %s"), ("source_host", "target_host", "nothing answers to %s")):
        for kind in KINDS:
            told: Dict[str, Tuple[int, int]] = {}
            for r in results:
                if r["kind"] == kind and r[key] != r[other]:
                    asked, answered = told.get(r[key], (0, 0))
                    told[r[key]] = (asked + 1, answered + bool(r["received"]))
            names = sorted(name for name, (asked, answered) in told.items() if asked > 1 and not answered)
            if names and len(names) < len(told):
                lines.append("  %s: %s" % (kind, words % shorten(names, 20)))
    return lines


def _heading(entry: Mapping[str, Any]) -> str:
    hosts = len(entry["hosts"])
    results = entry["results"]
    bad = sum(map(is_bad, results))
    mode = "each is asked by %d others" % entry["sample"] if entry["mode"] == "sampled" else "everybody asks everybody"
    missing = len(entry["not_asked"])
    words = ["%d hosts, %s" % (hosts, mode), "%d of %d pairs answer" % (len(results) - bad, len(results))]
    return "; ".join(words + (["%d not asked" % missing] if missing else []))


def total(kind: str, six: bool, results: Sequence[Result]) -> str:
    """What comes before a matrix, or stands for it."""
    times = [r["rtt_ms"] for r in results if r["rtt_ms"] is not None]
    answering = sum(not is_bad(r) for r in results)
    speed = "; %.2f ms, the slowest %.2f ms" % (sum(times) / len(times), max(times)) if times else ""
    return "%s, %s: %d of %d pairs answer%s" % (kind, "IPv6" if six else "IPv4", answering, len(results), speed)


def _short(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE else line[: MESSAGE - 3] + "..."
