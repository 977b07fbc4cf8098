# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person asks of kindnet-reconcile: --check, --status, --pause, --resume. A pass does not import this."""

from __future__ import annotations

__metaclass__ = type

import argparse
import json
import os
import re
import sys
import syslog
import time

from . import _concerns, _desired, _history, _pause, _problem_memory, _status_file, _systemd
from ._errors import KindnetError
from ._plan import Change, line_of
from ._reconcile import DRIFT, FAILURE, LOCK_TIMEOUT, OK, USAGE, VERSION, build, fail, look, refuse_others_than_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NoReturn, Optional, Tuple

    from ._plan import Plan, Problem

TIMER = "kindnet-reconcile.timer"
SERVICE = "kindnet-reconcile.service"
WATCH = "kindnet-watch.service"

# When a unit came into its state, in µs of the clock since boot. Not StateChangeTimestamp: of a timer it is that of its last pass.
SINCE = ("ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic")
LINE_MAX = 300  # characters of a repair
LAST_REPAIRS = 5  # that --status prints; with --json it has all that are kept

DURATION = re.compile(r"(?=.)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, "%s: %s\n" % (self.prog, message))


def tell(text: str) -> None:
    """One answer to the person who asked; print() is refused in what runs inside Ansible modules."""
    sys.stdout.write(text + "\n")


def main(argv: Optional[List[str]] = None) -> int:
    """What a person starts. There are arguments: without any it would be a pass."""
    os.umask(0o022)
    parser = Parser(
        prog="kindnet-reconcile",
        description="Make this host's routes, masquerade chain and CNI configuration what %s says. Without options: one pass." % _desired.FILE,
        epilog="Exit codes: 0 in sync or repaired; 1 failure, a problem that a pass cannot mend, or (--status) not kept in sync; 2 drift (--check); 64 usage.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="print what a pass would change, and change nothing")
    what.add_argument("--status", action="store_true", help="print what is managed, how the last pass ended, and whether passes are paused")
    what.add_argument("--pause", metavar="DURATION", type=duration, help="change nothing for so long (90s, 30m, 1h, 2d, 1h30m), at most until reboot")
    what.add_argument("--resume", action="store_true", help="end the pause; the next pass comes within seconds")
    what.add_argument("--watch", action="store_true", help="start a pass whenever something of ours changes, for ever: what %s runs" % WATCH)
    what.add_argument("--version", action="version", version="%(prog)s of kindnet.host " + VERSION)
    parser.add_argument("--json", action="store_true", help="with --check or --status: print one JSON object")
    options = parser.parse_args(argv)
    if options.json and not (options.check or options.status):
        parser.error("--json goes with --check or --status")
    if not (options.check or options.status or options.pause or options.resume):
        parser.error("say what to do, or nothing at all for one pass")
    try:
        if options.status:
            return status(options.json)
        refuse_others_than_root()
        if options.check:
            return check(options.json)
        if options.resume:
            return resume()
        return pause(options.pause)
    except KindnetError as e:
        if options.check and options.json:
            return tell_check([], [{"section": "", "subject": e.field, "message": "%s: %s. %s" % (e.value, e.problem, e.remedy)}], [], None)
        return fail(e)


def duration(text: str) -> int:
    """``1h30m`` in seconds."""
    match = DURATION.fullmatch(text)
    seconds = sum(int(n or 0) * unit for n, unit in zip(match.groups(), (86400, 3600, 60, 1))) if match else 0
    if seconds <= 0:
        raise argparse.ArgumentTypeError("%r is not a duration; write 90s, 30m, 1h, 2d or 1h30m" % text)
    return seconds


def check(as_json: bool) -> int:
    """Print the drift as it is now, paused or not. Under the lock, or half a pass would look like drift."""
    changes: List[Dict[str, str]] = []
    problems: List[Dict[str, str]] = []
    notes: List[str] = []
    lines: List[str] = []
    with _desired.lock(LOCK_TIMEOUT):
        left = _pause.remaining()
        desired = _desired.load()
        for name, error, _concern, section, plan in look(desired):
            if error is not None:
                problems.append({"section": name, "subject": error.field, "message": "%s: %s. %s" % (error.value, error.problem, error.remedy)})
                continue
            for c in plan.changes:
                lines.append(line_of(c))
                changes.append(
                    {"section": name, "subject": c.subject, "action": c.action, "before": c.before, "after": c.after, "reason": c.reason}
                )
            problems += [{"section": name, "subject": p.subject, "message": p.message} for p in plan.problems + unseen_by_passes(name, section, plan)]
            notes += plan.notes
            try:
                notes += would_decide_otherwise(name, section)
            except KindnetError as e:
                notes.append(str(e))  # what auto would do decides nothing here
    paused = paused_for(left)
    if as_json:
        return tell_check(changes, problems, notes, paused)
    for line in lines:
        tell(line)
    for p in problems:
        tell("problem: %s: %s" % (p["subject"], p["message"]))
    for note in notes:
        tell("note: %s" % note)
    if paused:
        tell("note: passes are paused for another %s" % spell(paused))
    return _code(changes, problems)


def tell_check(changes: List[Dict[str, str]], problems: List[Dict[str, str]], notes: List[str], paused: Optional[int]) -> int:
    """For a program, which reads one JSON object whatever happened."""
    tell(json.dumps({"changes": changes, "problems": problems, "notes": notes, "paused_seconds": paused}, indent=2))
    return _code(changes, problems)


def _code(changes: List[Dict[str, str]], problems: List[Dict[str, str]]) -> int:
    return FAILURE if problems else DRIFT if changes else OK


def unseen_by_passes(name: str, section: Dict[str, Any], plan: Plan) -> Tuple[Problem, ...]:
    """What a pass has no time to look for, such as a foreign route ahead of one of ours that is as it should be."""
    if name != "routes":
        return ()
    routes = _concerns.load(name)
    return tuple(p for p in routes.plan(section, routes.read_all(section)).problems if p not in plan.problems)


def would_decide_otherwise(name: str, section: Dict[str, Any]) -> List[str]:
    """What was decided at converge and would be decided otherwise today, and what stands in the way. A pass keeps to what is recorded."""
    if name == "masq":
        notes: List[str] = _concerns.load(name).notes_of(section)
        return notes
    if name == "conflist":
        note = _concerns.load(name).mtu_today(section)
        return [note] if note else []
    return []


def pause(seconds: int) -> int:
    """Taken under the lock: when this returns, no pass is half-way through its changes."""
    with _desired.lock(LOCK_TIMEOUT):
        _pause.start(seconds)
    until = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time.time() + seconds))
    _tell("passes are paused for %s, until %s" % (spell(seconds), until))
    tell("End it earlier with kindnet-reconcile --resume; a reboot ends it too. Playbooks still change this host.")
    return OK


def resume() -> int:
    with _desired.lock(LOCK_TIMEOUT):
        try:
            left = _pause.remaining()
        except KindnetError:
            left = 0.0  # a damaged one is ended too
        _pause.end()
    if left is None:
        tell("passes are not paused")
    else:
        _tell("the pause is ended")
    return OK


def _tell(text: str) -> None:
    """To the person, and to the journal with who it was: the next one on duty looks there."""
    tell(text)
    syslog.openlog("kindnet-reconcile", 0, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_NOTICE, "%s (by %s)" % (text, os.environ.get("SUDO_USER") or "root"))


def status(as_json: bool) -> int:
    """Exit code 1 when this host is not kept in sync, whatever the reason; a cheap probe for monitoring."""
    failed = False
    state: Dict[str, Any] = {
        **build(),
        "cluster_name": "",
        "sections": [],
        "desired_error": None,
        "paused_seconds": None,
        "last_pass": {"result": "unknown", "at": ""},
        "problems": [],
        "timer": {"active": "unknown", "enabled": "unknown", "since": ""},
        "watch": {"active": "unknown", "enabled": "unknown"},
        "counters": {},
        "history": [],
        "history_error": None,
    }
    try:
        desired = _desired.load()
        state["cluster_name"], state["sections"] = desired.cluster_name, sorted(desired.sections)
        state["paused_seconds"] = paused_for(_pause.remaining())
    except KindnetError as e:
        state["desired_error"] = str(e)
        failed = True
    memory = _problem_memory.load()
    state["problems"] = [{"subject": s, "message": m["message"]} for s, m in memory.items()]
    try:
        for name, unit in (("timer", TIMER), ("watch", WATCH)):
            shown = _systemd.show(unit, "ActiveState", "UnitFileState", *SINCE)
            state[name] = {"active": shown.get("ActiveState", ""), "enabled": shown.get("UnitFileState") or "not installed"}
            if unit == TIMER:
                state[name]["since"] = since(shown)
        state["last_pass"] = last_pass(_systemd.show(SERVICE, "ActiveState", "Result", "ExecMainStatus", "ExecMainExitTimestampMonotonic"))
        failed = failed or state["timer"]["active"] != "active" or state["last_pass"]["result"] == "failed"
        # Where it is wanted; it is off by default.
        failed = failed or (state["watch"]["enabled"] == "enabled" and state["watch"]["active"] != "active")
    except KindnetError:
        failed = True
    failed = failed or bool(memory)
    told = _status_file.load()
    state["counters"] = {name: told[name] for name in ("since", "repairs", "failures")}
    state["history_error"] = told["history_error"] or None
    try:
        state["history"] = _history.load()
    except KindnetError as e:
        state["history_error"] = str(e)
    if as_json:
        tell(json.dumps(state, indent=2))
    else:
        paused, last = state["paused_seconds"], state["last_pass"]
        tell("cluster:    %s" % (state["cluster_name"] or "none; nothing is managed"))
        tell("managed:    %s" % (", ".join(state["sections"]) or "nothing"))
        tell("paused:     %s" % ("for another %s; nothing is repaired meanwhile" % spell(paused) if paused else "no"))
        tell("timer:      %s, %s%s" % (state["timer"]["active"], state["timer"]["enabled"], spell_since(state["timer"]["since"])))
        is_off = state["watch"] == {"active": "inactive", "enabled": "not installed"}
        tell("watch:      %s" % ("off" if is_off else "%s, %s" % (state["watch"]["active"], state["watch"]["enabled"])))
        tell("last pass:  %s%s" % (last["result"], ", " + last["at"] if last["at"] else ""))
        tell("code:       kindnet.host %s, %s" % (state["version"], state["digest"]))
        for p in state["problems"]:
            tell("problem:    %s: %s" % (p["subject"], p["message"]))
        if state["desired_error"]:
            tell("problem:    %s" % state["desired_error"])
        repairs = state["counters"]["repairs"]
        tell("repaired:   %s" % (", ".join("%s %d" % item for item in repairs.items()) + " since boot" if repairs else "nothing since boot"))
        for entry in state["history"][-LAST_REPAIRS:]:
            tell("            %s" % one_line(entry))
        if state["history_error"]:
            tell("note:       %s" % state["history_error"])
    return FAILURE if failed else OK


def since(unit: Dict[str, str]) -> str:
    """When it came into the state that it is in, as ISO 8601 in UTC; "" if it always was, since boot."""
    return moment(unit.get(SINCE[0] if unit.get("ActiveState") == "active" else SINCE[1], ""))


def moment(text: str) -> str:
    """A time that systemd tells in µs since boot, as ISO 8601 in UTC; "" if there is none.

    Counted back from now on the clock that never jumps: systemd prints wall clocks by the host's time zone, as text.
    """
    microseconds = int(text or 0)
    if not microseconds:
        return ""
    age = time.monotonic() - microseconds / 1e6
    return time.strftime(_history.ISO_8601, time.gmtime(time.time() - age))


def spell_since(at: str) -> str:
    return " since %s" % at if at else ""


def one_line(entry: _history.Entry) -> str:
    """A repair as the journal has it, with its time, and as much of it as a person reads."""
    text = line_of(Change(*(entry[field] for field in ("subject", "action", "before", "after", "reason"))))
    text = "".join(c if c.isprintable() else " " for c in text)
    return "%s %s" % (entry["at"], text if len(text) <= LINE_MAX else text[:LINE_MAX] + " ...")


def last_pass(service: Dict[str, str]) -> Dict[str, str]:
    """How the last pass that the timer started ended. A clean pass writes no file, so systemd is asked."""
    at = moment(service.get("ExecMainExitTimestampMonotonic", ""))
    if service.get("ActiveState") == "activating":
        return {"result": "running", "at": ""}
    if not at:
        return {"result": "none yet since boot", "at": ""}
    ok = service.get("Result") == "success" and service.get("ExecMainStatus") == "0"
    return {"result": "ok" if ok else "failed", "at": at}


def paused_for(left: Optional[float]) -> Optional[int]:
    return int(left + 0.5) or 1 if left is not None and left > 0 else None


def spell(seconds: int) -> str:
    parts = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if seconds >= unit:
            parts.append("%d%s" % (seconds // unit, name))
            seconds %= unit
    return "".join(parts)
