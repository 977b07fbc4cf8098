# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run found out about each host, as one report. Pure; its form is docs/drift.schema.json.

One thing that is not as wanted is one difference. Two things take several changes to put right, and are one all the same: the recorded state, of which
each concern has its section, and the version of the code, whose folder comes, is switched to, and the old one's goes.
"""

from __future__ import annotations

__metaclass__ = type

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..module_utils._code_folder import LIBRARY
from ..module_utils._desired import FILE as DESIRED
from ..module_utils._installation import CURRENT
from ..module_utils._reconcile import VERSION
from ._canvas import visible
from ._cross_checks import cross_checks

SCHEMA = 1
GENERATOR = "kindnet.host %s" % VERSION
RECORD = "record"  # the concern of what would be recorded
IN_SYNC, CHANGED, DRIFTED, FAILED, UNREACHABLE = "in_sync", "changed", "drifted", "failed", "unreachable"
STATUSES = (IN_SYNC, CHANGED, DRIFTED, FAILED, UNREACHABLE)  # from good to bad
UNSEEN = "was not looked at"
NOT_COMPARED = "not compared with each other, since kindnet_info told of none"
NAMED = 10  # things that a line names; further ones are counted

# What each module looks after, in the words of desired.json and of the roles.
CONCERN_OF = {
    "kindnet_node_table": "node_table",
    "kindnet_host_info": "host",
    "kindnet_info": "host",
    "kindnet_sysctl": "sysctl",
    "cni_plugin_archive": "cni_archive",
    "cni_plugin_links": "cni_plugins",
    "kindnet_neighbours": "neighbours",
    "kindnet_masq": "masq",
    "cni_conflist": "conflist",
    "kindnet_reconcile": "reconcile",
    "kindnet_route": "routes",
    "cni_allocations": "allocations",
    "kindnet_verify": "verify",
}
PACKAGES, PYROUTE2 = "packages", "pyroute2"  # concerns of tasks that are not our modules'


class Found(NamedTuple):
    """What became of one task on one host."""

    concern: str
    result: Mapping[str, Any]


class Looked(NamedTuple):
    """One host, and all that the run found out about it."""

    name: str
    found: Sequence[Found] = ()
    expected: Sequence[str] = ()  # concerns of which at least one task has to have run, or the host was not looked at
    info: Optional[Mapping[str, Any]] = None  # what kindnet_info returned
    check_mode: bool = True


class Run(NamedTuple):
    """What is true of all hosts."""

    playbook: str
    cluster_name: str
    generated: str  # ISO 8601, UTC
    limit: str = ""
    nodes: Sequence[Mapping[str, Any]] = ()
    exit_code: Optional[int] = None  # that of ansible-playbook, if it is not the report that makes it
    reachability: Optional[Mapping[str, Any]] = None
    code: Optional[Tuple[str, str]] = None  # what this collection would install: version and digest


def report_of(run: Run, looked: Sequence[Looked]) -> Dict[str, Any]:
    """The report."""
    entries = [host_of(host) for host in looked]
    nodes = [dict(n) for n in run.nodes]
    together = [c for c in cross_checks(nodes, entries, run.code) if not is_told(c, entries)]
    for entry in entries:
        add_line(entry, together)
    counted = {status: len([e for e in entries if e["status"] == status]) for status in STATUSES}
    # What a run has changed is as wanted now, unless it does not fit together.
    verdict = next((status for status in (UNREACHABLE, FAILED, DRIFTED) if counted[status]), DRIFTED if together else IN_SYNC)
    return {
        "schema": SCHEMA,
        "generator": GENERATOR,
        "generated": run.generated,
        "playbook": run.playbook,
        "check_mode": all(host.check_mode for host in looked),
        "limit": run.limit,
        "cluster_name": run.cluster_name,
        "verdict": verdict,
        "exit_code": {IN_SYNC: 0, UNREACHABLE: 4}.get(verdict, 2) if run.exit_code is None else run.exit_code,
        "totals": dict(
            counted,
            hosts=len(entries),
            differences=sum(len(e["differences"]) + e["differences_left_out"] for e in entries),
            problems=sum(len(e["problems"]) for e in entries),
            cross_host=len(together),
            compared=len([e for e in entries if e["info"]]),
        ),
        "nodes": nodes,
        "hosts": entries,
        "cross_host": together,
        "reachability": run.reachability,
    }


def host_of(looked: Looked) -> Dict[str, Any]:
    """The report's entry for a host, before it is known what is not right of hosts together."""
    check_mode = looked.check_mode
    found = [Found(f.concern, result) for f in looked.found for result in each(f.result)]
    problems = unique({"concern": f.concern, "subject": p["subject"], "message": p["message"]} for f in found for p in f.result.get("problems") or ())
    differences = as_one(differences_of(found))
    if not check_mode:
        # What could not be done is told once, by its problem.
        failed = {p["subject"] for p in problems}
        differences = [d for d in differences if d["subject"] not in failed]
    lost = [reason_of(looked.name, f.result) for f in found if f.result.get("unreachable")]
    failures = unique({"concern": f.concern, "message": message} for f in found for message in failures_of(looked.name, f.result))
    looked_at = list(dict.fromkeys(f.concern for f in found if not (f.result.get("unreachable") or f.result.get("skipped") or is_failure(f.result))))
    said = {f["concern"] for f in failures}
    unseen = [{"concern": c, "message": UNSEEN} for c in looked.expected if c not in looked_at and c not in said]
    if not (looked_at or failures or unseen):
        unseen = [{"concern": "host", "message": UNSEEN}]
    if lost:
        status, message = UNREACHABLE, lost[0]
    elif failures or unseen:
        # What was not looked at because of something else is not said in so many words.
        status, message = FAILED, "\n".join("%s: %s" % (f["concern"], f["message"]) for f in failures or unseen)
        failures += unseen
    elif problems and not check_mode:
        status, message = FAILED, "\n".join("%s: %s" % (p["subject"], p["message"]) for p in problems)
    else:
        status = (DRIFTED if check_mode else CHANGED) if differences or problems else IN_SYNC
        message = ""
    left_out = sum(int((f.result.get("left_out") or {}).get("changes", 0)) for f in found)
    return {
        "name": looked.name,
        "status": status,
        "line": "",
        "differences": differences,
        "differences_left_out": left_out,
        "problems": problems,
        "failures": failures,
        "notes": list(dict.fromkeys(str(n) for f in found for n in f.result.get("notes") or ())),
        "message": message,
        "looked_at": [c for c in looked_at if c not in {f["concern"] for f in failures}],
        "info": dict(looked.info) if looked.info else None,
    }


def info_of(result: Any) -> Optional[Dict[str, Any]]:
    """What kindnet_info returned, without what Ansible says of the task."""
    if not isinstance(result, Mapping) or "node_name" not in result or result.get("failed"):
        return None
    left_out = ("changed", "failed", "invocation", "warnings", "deprecations", "diff", "ansible_facts")
    return {k: v for k, v in result.items() if k not in left_out and not k.startswith("_ansible")}


def each(result: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    """The results of a loop's items, or the one there is."""
    items = result.get("results")
    if isinstance(items, (list, tuple)) and "changes" not in result:
        return [i for i in items if isinstance(i, Mapping)] or [result]
    return [result]


def is_failure(result: Mapping[str, Any]) -> bool:
    """Whether the task found nothing out. One that failed with problems has found out all it could."""
    return bool(result.get("failed")) and not result.get("problems")


def failures_of(host: str, result: Mapping[str, Any]) -> List[str]:
    """What a task did not find out, and why."""
    if is_failure(result):
        return [reason_of(host, result)]
    # Of kindnet_info, which never fails because of one source.
    notes = [str(note) for note in result.get("notes") or ()]
    return [next((note for note in notes if note.startswith(what + ": ")), "%s: %s" % (what, UNSEEN)) for what in result.get("unseen") or ()]


def reason_of(host: str, result: Mapping[str, Any]) -> str:
    """Why a task failed, without the host's name in front, which whoever shows it says."""
    text = str(result.get("msg") or result.get("module_stderr") or result.get("censored") or "failed without a word").strip()
    for name in (host, str(result.get("host") or host)):
        if text.startswith(name + ": "):
            text = text[len(name) + 2 :]
    return text


def differences_of(found: Sequence[Found]) -> List[Dict[str, str]]:
    """What each concern would change, or has; what all of them would record, as one."""
    differences: List[Dict[str, str]] = []
    recorded: List[Tuple[str, Mapping[str, Any]]] = []
    missing: Sequence[str] = ()
    for concern, result in found:
        missing = result.get("missing_packages") or missing
        for change in changes_of(concern, result, missing):
            if change.get("subject") == DESIRED:
                recorded.append((concern, change))
            else:
                differences.append({"concern": concern, **{k: str(change.get(k, "")) for k in ("subject", "action", "before", "after", "reason")}})
    if recorded:
        actions = {str(change.get("action")) for _concern, change in recorded}
        differences.append(
            {
                "concern": RECORD,
                "subject": DESIRED,
                "action": actions.pop() if len(actions) == 1 else "replace",
                "before": "recorded" if any(change.get("before") for _concern, change in recorded) else "",
                "after": "\n".join("%s: %s" % (concern, change.get("after") or "not recorded") for concern, change in recorded),
                "reason": str(recorded[0][1].get("reason", "")),
            }
        )
    return unique(differences, ("concern", "subject", "action"))


def changes_of(concern: str, result: Mapping[str, Any], missing_packages: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    """The changes that a task tells of, or those that it is known to make."""
    changes: Sequence[Mapping[str, Any]] = result.get("changes") or ()
    if changes or not result.get("changed") or result.get("failed"):
        return changes
    if concern == PACKAGES and missing_packages:
        return [{"subject": "package %s" % name, "action": "add", "after": "installed", "reason": "missing"} for name in missing_packages]
    if concern == PYROUTE2:
        return [{"subject": "%s/pyroute2" % LIBRARY, "action": "add", "after": "unpacked", "reason": "this host has no usable pyroute2"}]
    # Hidden (no_log)
    return [{"subject": concern, "action": "replace", "reason": str(result.get("censored") or result.get("msg") or "not told")}]


def as_one(differences: List[Dict[str, str]]) -> List[Dict[str, str]]:
    """Folders of code come and go because another version is switched to."""
    if not any(d["subject"] == CURRENT for d in differences):
        return differences
    return [d for d in differences if d["subject"] == CURRENT or d["action"] == "replace" or not d["subject"].startswith(LIBRARY + "/")]


def unique(rows: Any, keys: Sequence[str] = ()) -> List[Dict[str, str]]:
    """The rows without those that say the same again, as a task that ran twice makes them."""
    kept: Dict[Tuple[str, ...], Dict[str, str]] = {}
    for row in rows:
        kept.setdefault(tuple(str(row[k]) for k in keys or sorted(row)), dict(row))
    return list(kept.values())


def is_told(finding: Mapping[str, Any], hosts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what is found of hosts together is a difference or problem of each of them already."""
    subject = CURRENT if finding["check"] == "code" else finding["subject"]
    told = {h["name"] for h in hosts for row in (*h["differences"], *h["problems"]) if row["subject"] == subject or row["subject"].startswith(subject + " ")}
    return bool(finding["hosts"]) and told.issuperset(finding["hosts"])


def add_line(host: Dict[str, Any], cross_host: Sequence[Mapping[str, Any]]) -> None:
    """Complete the entry. A host that is not right together with others is not in sync."""
    together = [c for c in cross_host if host["name"] in c["hosts"] or not c["hosts"]]
    if together and host["status"] == IN_SYNC:
        host["status"] = DRIFTED
    host["line"] = one_line(line_of(host, together))


def line_of(host: Mapping[str, Any], together: Sequence[Mapping[str, Any]]) -> str:
    """A host's line on the screen, without its name: what is wrong, how many and which."""
    parts = [
        counted("change" if host["status"] == CHANGED else "difference", host["differences"], host["differences_left_out"]),
        counted("problem", host["problems"]),
        counted("cross-host finding", together),
    ]
    what = "; ".join(p for p in parts if p)
    if host["status"] in (FAILED, UNREACHABLE):
        line = "%s: %s" % (host["status"], host["message"])
        return "%s; found all the same: %s" % (line, what) if what else line
    if host["status"] == IN_SYNC:
        return "in sync"
    return "%s, %s" % (host["status"], what)


def one_line(text: str) -> str:
    """For a screen: what hosts told must neither begin another host's line nor move the cursor over it."""
    return visible(" ".join(text.split()))


def counted(word: str, rows: Sequence[Mapping[str, Any]], further: int = 0) -> str:
    """Such as "2 differences: route 10.244.1.0/24, kindnet-reconcile.timer"; "" if there is none."""
    number = len(rows) + further
    if not number:
        return ""
    names = [r["subject"] for r in rows[:NAMED]]
    return "%s: %s" % (number_of(word, number), ", ".join(names + (["..."] if number > len(names) else [])))


def number_of(word: str, number: int) -> str:
    return "%d %s" % (number, word if number == 1 else word + "s")


def lines_of(report: Mapping[str, Any]) -> List[str]:
    """What the screen shows: a line for each host, for what is not right of several together, and one for all."""
    lines = ["%s: %s" % (host["name"], host["line"]) for host in report["hosts"]]
    lines += [one_line("%s: %s: %s" % (", ".join(c["hosts"]), c["subject"], c["message"])) for c in report["cross_host"]]
    return [*lines, summary(report)]


def summary(report: Mapping[str, Any]) -> str:
    """One line for all hosts."""
    totals = report["totals"]
    words = ["%d %s" % (totals[s], s.replace("_", " ")) for s in STATUSES if totals[s]]
    found = [
        number_of(word, totals[key])
        for key, word in (("differences", "difference"), ("problems", "problem"), ("cross_host", "cross-host finding"))
        if totals[key]
    ]
    limited = " (limited to %s)" % report["limit"] if report["limit"] else ""
    parts = [", ".join(words), ", ".join(found), "" if totals["compared"] or not report["check_mode"] else NOT_COMPARED]
    return "%s%s: %s" % (number_of("host", totals["hosts"]), limited, "; ".join(part for part in parts if part))
