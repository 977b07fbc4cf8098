# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a planner returns: changes to make and problems to report. Everything else is derived from it.

``changed``, the diff, the journal's lines and the operations that an adapter applies all come from one :class:`Plan`,
so that check mode cannot say something else than a real run does.
"""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

    class Change(NamedTuple):
        """One change to the host."""

        subject: str  # what is changed, unique within a plan: "route 10.244.1.0/24", "chain ip/nat/KIND-MASQ-AGENT"
        action: str  # "add", "replace" or "remove"
        before: str  # the live state as a person would read it; "" when there is none
        after: str  # the state after the change; "" when it is removed
        reason: str  # why, as half a sentence
        op: Any = None  # what the adapter of this concern needs to make the change

    class Problem(NamedTuple):
        """Something wanted that is not, or will not be, so; the rest of the plan is applied all the same."""

        subject: str
        message: str  # what is wrong, and the remedy

    class Plan(NamedTuple):
        changes: Tuple[Change, ...] = ()
        problems: Tuple[Problem, ...] = ()
        notes: Tuple[str, ...] = ()  # worth telling an operator, wrong for nobody
        details: Any = None  # what the concern's module returns beside this, as the planner saw it
else:
    # The same tuples without typing, whose import would be the largest single cost of a clean pass.
    Change = namedtuple("Change", "subject action before after reason op", defaults=(None,))
    Problem = namedtuple("Problem", "subject message")
    Plan = namedtuple("Plan", "changes problems notes details", defaults=((), (), (), None))


def diff_of(plan: Plan) -> Dict[str, str]:
    """The plan in the form of Ansible's ``--diff``: a line per changed thing on either side."""
    before = "".join("%s: %s\n" % (c.subject, c.before) for c in plan.changes if c.before)
    after = "".join("%s: %s\n" % (c.subject, c.after) for c in plan.changes if c.after)
    return {"before": before, "after": after}


def as_data(changes: Sequence[Change]) -> List[Dict[str, str]]:
    """Changes for the result of a module. What an adapter makes of them is none of anybody else's business."""
    return [{"subject": c.subject, "action": c.action, "before": c.before, "after": c.after, "reason": c.reason} for c in changes]


def line_of(change: Change) -> str:
    """One line for the journal: what was done, from what, to what, and why."""
    return "%s %s: %s -> %s (%s)" % (
        change.action,
        change.subject,
        " ".join(change.before.split()) or "absent",
        " ".join(change.after.split()) or "absent",
        change.reason,
    )
