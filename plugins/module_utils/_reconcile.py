# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One pass on the node: what desired.json says is made so again, by the planners and adapters that the playbook used.

Started every few seconds for ever, so this file and what it imports are the lean path; everything that a person asks for
is in _reconcile_cli.
"""

from __future__ import annotations

__metaclass__ = type

import _signal  # type: ignore[import-not-found]  # Python has loaded it; the signal around it would be one more import of each pass
import os
import sys
import time

from . import _concerns, _desired, _pause, _problem_memory
from ._errors import KindnetError
from ._plan import Plan, line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, TextIO, Tuple

    from ._plan import Change, Problem

VERSION = "0.2.0"  # of the collection
LOCK_TIMEOUT = 5.0  # seconds; a playbook's module holds the lock for less
FIREWALL_TIME = 20.0  # seconds for iptables in one pass: less than modules wait for the lock, and than systemd for the pass

OK, FAILURE, DRIFT, USAGE = 0, 1, 2, 64

NOTICE, ERROR = 5, 3  # syslog priorities
TEXTFILE_DIR = "KINDNET_TEXTFILE_DIR"  # in the service's environment: the folder for metrics
LINE_MAX = 4000  # characters; a conflist in full belongs into a diff, not into a line of the journal


class Stopped(BaseException):
    """Somebody ends this pass: systemd when it takes too long, or at shutdown. Not an Exception, which a concern may take for its own."""


def _stop(signum: int, frame: Any) -> None:
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)  # once is enough
    raise Stopped


def main(argv: Sequence[str] = ()) -> int:
    """What the timer starts. ``argv`` is empty, see templates/kindnet-reconcile.j2."""
    os.umask(0o022)
    try:
        refuse_others_than_root()
        return run_pass()
    except Exception as e:
        return fail(as_kindnet_error("this pass", e))


def refuse_others_than_root() -> None:
    if os.geteuid() != 0:
        raise KindnetError("kindnet-reconcile", "user %d" % os.geteuid(), "may not do this", "Run it as root.")


def fail(error: KindnetError) -> int:
    say(ERROR, "problem: %s" % error)
    return FAILURE


class Pass:
    """What a pass has found and done so far."""

    def __init__(self) -> None:
        self.problems: Dict[str, Tuple[str, str]] = {}  # by subject, the section and the message
        self.blind = set(_concerns.MODULES)  # sections, until each has been looked at
        self.waiting: List[str] = []  # those it has not come to
        self.repairs: List[Tuple[str, Change]] = []  # with the section
        self.history_error = ""
        self.routes: Optional[Tuple[Dict[str, Any], Plan, Set[str]]] = None  # once looked at: the section, its plan, the subjects that failed
        self.is_paused = False

    def add_problem(self, section: str, subject: str, message: str) -> None:
        if subject in self.problems:
            message = "%s; %s" % (self.problems[subject][1], message)
        self.problems[subject] = (section, message)

    def add_error(self, section: str, error: KindnetError) -> None:
        self.add_problem(section, error.field, "%s: %s. %s" % (error.value, error.problem, error.remedy))


def run_pass() -> int:
    """Repair what differs. Says one line per thing changed, and nothing when nothing was.

    One concern that fails does not keep the others from their work.
    """
    began = time.monotonic()
    this = Pass()
    try:
        _look_and_repair(this)
    except KindnetError as e:
        this.add_error("", e)
    except Stopped:
        if this.waiting:
            after = ", and did not come to %s" % ", ".join(this.waiting[1:]) if this.waiting[1:] else ""
            message = "the pass was ended from outside (SIGTERM) while at work on this%s. The next one begins anew." % after
            this.add_problem(this.waiting[0], "section %s" % this.waiting[0], message)
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    folder = os.environ.get(TEXTFILE_DIR)
    if folder:
        from . import _metrics

        _metrics.measure(this, folder, time.monotonic() - began)
    elif this.is_paused:
        return OK
    news = None
    if _to_journal(sys.stderr):
        news = _problem_memory.report(this.problems, this.blind, lambda line: say(ERROR, line), lambda line: say(NOTICE, line))
    else:  # a person looks: all there is, and what the timer's next pass says to the journal is not less for it
        for subject, (_section, message) in this.problems.items():
            say(ERROR, "problem: %s: %s" % (subject, message))
    if this.repairs or news is not None:
        from . import _pass_report

        _pass_report.tell(this, news)
    return FAILURE if this.problems else OK


def _look_and_repair(this: Pass) -> None:
    """Every section that this host has, under the lock."""
    left = _pause.remaining()
    if left is not None and left > 0:
        this.is_paused = True
        return
    with _desired.lock(LOCK_TIMEOUT):
        left = _pause.remaining()  # again: --pause takes the lock, so that nothing is under way when it returns
        if left is not None:
            if left > 0:
                this.is_paused = True
                return
            _pause.end()
            say(NOTICE, "the pause is over")
        desired = _desired.load()
        this.waiting = [name for name in _concerns.MODULES if name in desired.sections]
        this.blind = set(this.waiting)
        try:
            _signal.signal(_signal.SIGTERM, _stop)  # not while there is nothing to tell but that it waited for the lock
            for name, error, concern, section, plan in look(desired):
                _repair(this, name, error, concern, section, plan)
                if name in this.waiting:
                    this.waiting.remove(name)
        finally:
            _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
            if this.repairs:
                from . import _pass_report  # a clean pass has nothing to tell

                _pass_report.record(this)


def _repair(this: Pass, name: str, error: Optional[KindnetError], concern: Any, section: Dict[str, Any], plan: Plan) -> None:
    """Make the changes of one section's plan, say them, and add what went wrong to the problems."""
    failures: Tuple[Problem, ...] = ()
    if error is None and plan.changes:
        try:
            failures = concern.apply(section, plan)
        except Exception as e:
            error = as_kindnet_error("section %s" % name, e)
    if error is not None:
        this.blind.add(name)
        this.add_error(name, error)
        return
    this.blind.discard(name)
    failed = {p.subject for p in failures}
    made = [change for change in plan.changes if change.subject not in failed]
    this.repairs += [(name, change) for change in made]  # first: what was made is for the history, whatever becomes of the words
    if made:
        say(NOTICE, *map(line_of, made))
    for problem in plan.problems + tuple(failures):
        this.add_problem(name, problem.subject, problem.message)
    if name == "routes":
        this.routes = (section, plan, failed)


def build() -> Dict[str, str]:
    """Which code this is."""
    return {"version": VERSION, "digest": os.path.basename(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))}


def look(desired: _desired.Desired) -> Iterator[Tuple[str, Optional[KindnetError], Any, Dict[str, Any], Plan]]:
    """Plan every section that this host has, in order: name, what went wrong, concern, section, plan."""
    for name in sorted(set(desired.sections) - set(_concerns.MODULES)):
        error = KindnetError(
            "section %s of %s" % (name, _desired.FILE),
            "version %s of this code" % VERSION,
            "does not know it",
            "A newer version of the collection recorded it: run its playbooks/kindnet.yml, which installs its code too.",
        )
        yield name, error, None, {}, Plan()
    for name in _concerns.MODULES:
        section = desired.sections.get(name)
        if section is None:
            continue
        try:
            concern = _concerns.load(name)
            if name in _concerns.FIREWALL:
                from ._firewall import PATIENCE  # the concern has loaded it

                PATIENCE.bound(FIREWALL_TIME)
            plan = concern.plan(section, concern.read(section, None))
        except Exception as e:
            yield name, as_kindnet_error("section %s" % name, e), None, section, Plan()
        else:
            yield name, None, concern, section, plan


def as_kindnet_error(what: str, error: Exception) -> KindnetError:
    """Any error as one line that says where. What nobody foresaw in one concern must not take the others with it."""
    if isinstance(error, KindnetError):
        return error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "%s:%d" % (os.path.basename(trace.tb_frame.f_code.co_filename), trace.tb_lineno) if trace is not None else "?"
    return KindnetError(
        what,
        "%s at %s" % (type(error).__name__, place),
        "failed in a way nobody foresaw (%s)" % error,
        "Report it with this line; running playbooks/kindnet.yml records the section anew.",
    )


def say(priority: int, *texts: str) -> None:
    """A line each: to the journal with its priority when systemd started us, else as a person wants it."""
    stream = sys.stdout if priority == NOTICE else sys.stderr
    mark = "<%d>" % priority if _to_journal(stream) else ""
    stream.write("".join("%s%s\n" % (mark, _line(text)) for text in texts))
    stream.flush()


def _line(text: str) -> str:
    line = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= LINE_MAX else line[:LINE_MAX] + " ..."


def _to_journal(stream: TextIO) -> bool:
    """Whether this very stream is the journal's; the variable alone is inherited by every shell of a session."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    st = os.fstat(stream.fileno())
    return named == "%d:%d" % (st.st_dev, st.st_ino)
