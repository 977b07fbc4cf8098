# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in the form that CI reads: a suite for each host, a case for each concern. Pure."""

from __future__ import annotations

__metaclass__ = type

from typing import Any, List, Mapping, Optional, Sequence, Tuple
from xml.etree import ElementTree

from ._report import NOT_COMPARED, UNREACHABLE

CROSS_HOST = "cross_host"
# What XML 1.0 cannot hold, not even escaped; a damaged file may have any of it.
UNPRINTABLE = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "\N{REPLACEMENT CHARACTER}")

# Name of the case, and its element: none if all is well, or what it is called, its message and its text.
Case = Tuple[str, Optional[Tuple[str, str, str]]]


def junit(report: Mapping[str, Any]) -> str:
    """The whole document."""
    root = ElementTree.Element("testsuites", {"name": text("kindnet.host %s of %s" % (report["playbook"], report["cluster_name"]))})
    for host in report["hosts"]:
        suite(root, host["name"], report["generated"], cases_of(host, report["check_mode"]))
    if report["cross_host"] or report["check_mode"]:
        suite(root, CROSS_HOST, report["generated"], cross_host_cases(report["cross_host"], bool(report["totals"]["compared"])))
    for attribute in ("tests", "failures", "errors", "skipped"):
        root.set(attribute, str(sum(int(s.get(attribute, "0")) for s in root)))
    root.set("time", "0")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n%s\n' % ElementTree.tostring(root, encoding="unicode")


def suite(root: ElementTree.Element, name: str, generated: str, cases: Sequence[Case]) -> None:
    kinds = [case[1][0] for case in cases if case[1]]
    element = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": text(name),
            "timestamp": generated.rstrip("Z"),
            "tests": str(len(cases)),
            "failures": str(kinds.count("failure")),
            "errors": str(kinds.count("error")),
            "skipped": str(kinds.count("skipped")),
            "time": "0",
        },
    )
    for case_name, outcome in cases:
        case = ElementTree.SubElement(element, "testcase", {"classname": text(name), "name": text(case_name), "time": "0"})
        if outcome:
            kind, message, body = outcome
            found = ElementTree.SubElement(case, kind, {"message": text(message)})
            if kind != "skipped":
                found.set("type", kind)
                found.text = text(body)


def cases_of(host: Mapping[str, Any], check_mode: bool) -> List[Case]:
    """A failure is what was looked at and is not as wanted, an error what could not be looked at."""
    if host["status"] == UNREACHABLE:
        return [("reach the host", ("error", host["line"], host["message"])), *found_cases(host, check_mode)]
    if not (host["looked_at"] or host["failures"]):
        return [("look at the host", ("error", host["line"], host["message"]))]
    return found_cases(host, check_mode)


def found_cases(host: Mapping[str, Any], check_mode: bool) -> List[Case]:
    cases: List[Case] = []
    concerns = dict.fromkeys(
        [
            *host["looked_at"],
            *(f["concern"] for f in host["failures"]),
            *(d["concern"] for d in host["differences"]),
            *(p["concern"] for p in host["problems"]),
        ]
    )
    for concern in concerns:
        failures = [f["message"] for f in host["failures"] if f["concern"] == concern]
        # In a real run a change is no fault.
        lines = [difference_line(d) for d in host["differences"] if d["concern"] == concern and check_mode]
        lines += ["problem: %s: %s" % (p["subject"], p["message"]) for p in host["problems"] if p["concern"] == concern]
        if failures:
            cases.append((concern, ("error", " ".join(failures[0].split()), "\n".join(failures + lines))))
        elif lines:
            subjects = [r["subject"] for r in (*(host["differences"] if check_mode else ()), *host["problems"]) if r["concern"] == concern]
            cases.append((concern, ("failure", ", ".join(subjects), "\n".join(lines))))
        else:
            cases.append((concern, None))
    return cases


def cross_host_cases(findings: Sequence[Mapping[str, Any]], is_compared: bool) -> List[Case]:
    if not findings:
        return [("all checks", None if is_compared else ("skipped", NOT_COMPARED, ""))]
    return [(f["check"] + ": " + f["subject"], ("failure", f["message"], "%s: %s" % (", ".join(f["hosts"]), f["message"]))) for f in findings]


def difference_line(difference: Mapping[str, Any]) -> str:
    return "%s %s: %s -> %s (%s)" % (
        difference["action"],
        difference["subject"],
        difference["before"] or "absent",
        difference["after"] or "absent",
        difference["reason"],
    )


def text(value: str) -> str:
    return value.translate(UNPRINTABLE)
