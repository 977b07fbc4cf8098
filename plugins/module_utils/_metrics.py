# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of passes for the textfile collector of node_exporter. Off by default: no pass imports this unless its service names a folder.

The file is its own memory: a pass goes on counting from what the one before wrote. Without it counters begin at 0, as Prometheus expects of them.
What a pass has not looked at it does not tell, rather than what was so once.
"""

from __future__ import annotations

__metaclass__ = type

import os
import stat
import time

from . import _concerns, _files, _problem_memory
from ._errors import KindnetError
from ._reconcile import as_kindnet_error, build

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Set, Tuple

    from ._plan import Plan
    from ._reconcile import Pass

    Counters = Dict[str, float]

SECTION = "metrics"  # of problems with the file
NAME = "kindnet.prom"
LARGEST = 1 << 16  # bytes; ours has about 2,500

# Name, type, and what it says
FAMILIES = (
    ("kindnet_passes_total", "counter", "Passes of kindnet-reconcile, paused ones included."),
    ("kindnet_failures_total", "counter", "Passes that ended with a problem."),
    ("kindnet_repairs_total", "counter", "Things that passes changed back, by section of desired.json."),
    ("kindnet_last_pass_timestamp_seconds", "gauge", "When the last pass ended, whatever it found."),
    ("kindnet_last_success_timestamp_seconds", "gauge", "When a pass last ended with everything as recorded; 0 if none has."),
    ("kindnet_pass_duration_seconds", "gauge", "Time that the last pass took, without the start of its process."),
    ("kindnet_problems", "gauge", "Problems that the last pass found and could not mend."),
    ("kindnet_peers_wanted", "gauge", "Pod CIDRs of peers that this node is to have a route to."),
    ("kindnet_peers_present", "gauge", "Those of them that it has one to, after the last pass."),
    ("kindnet_paused", "gauge", "Whether passes are paused (kindnet-reconcile --pause)."),
    ("kindnet_build_info", "gauge", "The version of the collection whose code passes run, and its digest."),
)
COUNTERS = tuple(name for name, kind, _help in FAMILIES if kind == "counter")
LAST_SUCCESS = "kindnet_last_success_timestamp_seconds"


def measure(this: Pass, folder: str, seconds: float) -> None:
    """Add a pass to the metrics. What keeps it from that is one more problem of the pass."""
    if this.is_paused:  # what it did not look at is neither there nor gone
        this.blind = {str(entry["section"]) for entry in _problem_memory.load().values()} - {SECTION}
    path = os.path.join(folder, NAME)
    try:
        text = rendered(parse(_read(path)), build(), this, seconds, time.time())
        # Not synced to the disk six times a minute: one that a power cut damages is replaced by the next pass.
        _files.write_atomic(path, text.encode(), lasting=False)
    except KindnetError as e:
        remedy = "Give kindnet_textfile_dir a folder that is root's and on a disk with room, or leave it out."
        this.add_error(SECTION, KindnetError(path, e.value, e.problem, remedy))
    except Exception as e:
        this.add_error(SECTION, as_kindnet_error("the metrics", e))


def rendered(old: Counters, code: Dict[str, str], this: Pass, seconds: float, now: float) -> str:
    """Pure. The whole file, in Prometheus' text format."""
    failed = bool(this.problems)
    succeeded = not failed and not this.is_paused
    repairs = dict.fromkeys(_concerns.MODULES, 0)
    for section, _change in this.repairs:
        repairs[section] = repairs.get(section, 0) + 1
    samples: Dict[str, float] = {
        "kindnet_passes_total": old.get("kindnet_passes_total", 0) + 1,
        "kindnet_failures_total": old.get("kindnet_failures_total", 0) + failed,
        "kindnet_last_pass_timestamp_seconds": now,
        LAST_SUCCESS: now if succeeded else old.get(LAST_SUCCESS, 0),
        "kindnet_paused": this.is_paused,
        'kindnet_build_info{version="%s",digest="%s"}' % (code["version"], code["digest"]): 1,
    }
    for section, count in repairs.items():
        sample = 'kindnet_repairs_total{kind="%s"}' % section
        samples[sample] = old.get(sample, 0) + count
    if not this.is_paused:
        samples["kindnet_pass_duration_seconds"] = seconds
        samples["kindnet_problems"] = len(this.problems)
    if this.routes is not None:
        samples["kindnet_peers_wanted"], samples["kindnet_peers_present"] = peers(*this.routes)
    lines: List[str] = []
    for name, kind, text in FAMILIES:
        of_family = ["%s %s\n" % (sample, number(value)) for sample, value in samples.items() if sample.partition("{")[0] == name]
        if of_family:
            lines += ["# HELP %s %s\n" % (name, text), "# TYPE %s %s\n" % (name, kind), *of_family]
    return "".join(lines)


def number(value: float) -> str:
    return "%d" % value if value == int(value) else "%.3f" % value


def parse(text: str) -> Counters:
    """Pure. What is to be counted on of a file that :func:`rendered` made; nothing of a line that is damaged."""
    counters: Counters = {}
    for line in text.splitlines():
        sample, _space, value = line.rpartition(" ")
        name = sample.partition("{")[0]
        if name not in COUNTERS and name != LAST_SUCCESS:
            continue
        try:
            found = float(value)
        except ValueError:
            continue
        if 0 <= found < float("inf"):
            counters[sample] = found
    return counters


def peers(section: Dict[str, Any], plan: Plan, failed: Set[str]) -> Tuple[int, int]:
    """Pure. How many pod CIDRs of peers this node is to have a route to, and to how many of them it has one after the pass that made ``plan``.

    From the routes that the pass itself has read; where it had nothing to plan, they were all there.
    """
    entries = section.get("peers", ())
    what_became: Dict[str, str] = {v.subject: v.action for v in plan.details["routes"]}
    if not what_became:
        return plan.details["unchanged"], plan.details["unchanged"]
    subjects = ["route %s" % cidr for _node, cidr, _next_hop in entries]
    wanted = [subject for subject in subjects if what_became.get(subject) != "skip"]
    return len(wanted), sum(what_became.get(subject) not in ("conflict", "fail") and subject not in failed for subject in wanted)


def _read(path: str) -> str:
    """The file as it is; "" without one. Whoever may write the folder might have put anything there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""  # what keeps it from being read is told when it cannot be written either
    try:
        return os.read(fd, LARGEST).decode("ascii", "replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""
    finally:
        os.close(fd)


def file_in(folder: Optional[str]) -> str:
    """The path of the file; "" when metrics are off."""
    return os.path.join(folder, NAME) if folder else ""
