# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record, then apply, under one lock: the one way in which a module or the pass changes a host."""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from . import _before, _desired
from ._plan import Change, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, NamedTuple, Optional, Protocol, Tuple

    from ._plan import Problem

    Section = Dict[str, Any]

    class Concern(Protocol):
        """One thing the collection keeps true on a node. Each concern is a Python module with these names.

        A section is the concern's arguments as JSON-able data in canonical form: everything validated, every ``auto``
        decided. It is what is recorded, and all that a pass has to go by.
        """

        SECTION: str  # its key in desired.json

        def resolve(self, params: Dict[str, Any], recorded: Optional[Section]) -> Section:
            """Validate a module's parameters, decide what is ``auto``, guard what would be lost. Converge only.

            May look at the host, changes nothing. ``recorded`` is the section of the previous converge, if any.
            """

        def read(self, section: Section, recorded: Optional[Section]) -> Any:
            """The live state that ``plan`` needs. ``recorded`` is None in a pass, and {} in the first converge."""

        def plan(self, section: Section, actual: Any) -> Plan:
            """Pure. What it takes to make ``actual`` what ``section`` says; ``section`` is {"state": "absent"} to take out
            what is ours, with whatever ``resolve`` put beside it to find it by."""

        def apply(self, section: Section, plan: Plan) -> Tuple[Problem, ...]:
            """Make the plan's changes; what failed comes back by name, one problem each, and does not stop the others."""

    class Outcome(NamedTuple):
        plan: Plan
        record: Optional[Change]  # the change to desired.json, if there is one
        failures: Tuple[Problem, ...]  # changes of the plan that could not be made
        section: Section
else:
    Outcome = namedtuple("Outcome", "plan record failures section")


def is_absent(section: Section) -> bool:
    return section.get("state") == "absent"


def plan_record(recorded: Optional[Section], section: Section) -> Optional[Change]:
    """The change to desired.json that recording ``section`` makes. Long node tables are not repeated in it."""
    wanted = None if is_absent(section) else section
    if recorded == wanted:
        return None
    action = "add" if recorded is None else "remove" if wanted is None else "replace"
    differing = sorted(k for k in set(recorded or ()) | set(wanted or ()) if (recorded or {}).get(k) != (wanted or {}).get(k))
    return Change(
        _desired.FILE,
        action,
        "recorded" if recorded is not None else "",
        "recorded: " + ", ".join(differing) if wanted is not None else "",
        "desired state of this host",
    )


def converge(
    concern: Concern,
    params: Dict[str, Any],
    cluster_name: str,
    persist: bool,
    check_mode: bool,
    lock_timeout: float,
) -> Outcome:
    """What a module does. In check mode everything up to the first write, and nothing after it."""
    if check_mode:
        outcome, _unused = _prepare(concern, params, cluster_name, persist)
        return outcome
    with _desired.lock(lock_timeout):
        outcome, desired = _prepare(concern, params, cluster_name, persist)
        _before.remember_all(outcome.plan)
        if outcome.record:
            sections = dict(desired.sections)
            sections.pop(concern.SECTION, None)
            if not is_absent(outcome.section):
                sections[concern.SECTION] = outcome.section
            _desired.store(_desired.Desired(cluster_name, sections))
        failures = concern.apply(outcome.section, outcome.plan)
        if failures and outcome.record and _stays_recorded(concern, outcome.section):
            _desired.store(desired)
        return outcome._replace(failures=failures)


def _prepare(concern: Concern, params: Dict[str, Any], cluster_name: str, persist: bool) -> Tuple[Outcome, _desired.Desired]:
    # Also with persist off: a run that records nothing must not take another cluster's routes away either.
    desired = _desired.load()
    _desired.refuse_other_cluster(desired, cluster_name)
    recorded = desired.sections.get(concern.SECTION)
    section = concern.resolve(params, recorded)
    plan = concern.plan(section, concern.read(section, recorded or {}))
    stays = plan.problems and _stays_recorded(concern, section)
    record = plan_record(recorded, section) if persist and not stays else None
    return Outcome(plan, record, (), section), desired


def _stays_recorded(concern: Concern, section: Section) -> bool:
    """Whether what cannot be taken out is still to be recorded: nothing else would tell the next run whose it is."""
    return is_absent(section) and getattr(concern, "KNOWN_BY_RECORD", False)
