# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes did since boot, for other programs: /run/kindnet/status.json, whose fields docs/monitoring.md explains.

Written by a pass that has news: it repaired something, or its problems are not those of the pass before. Any other leaves it as it is.
"""

from __future__ import annotations

__metaclass__ = type

import json

from . import _desired, _files, _history
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Sequence, Tuple

    from ._plan import Change
    from ._problem_memory import Memory

    Status = Dict[str, Any]

SCHEMA = 1
FILE = "/run/kindnet/status.json"
LOCK = "/run/kindnet/status.lock"
LOCK_TIMEOUT = 2.0  # seconds; a pass by hand may have news at the same moment


def load() -> Status:
    """The file as it is, with every field in its type; as before the first pass with news if there is none, or it is damaged."""
    status: Status = {
        "schema": SCHEMA,
        "since": "",
        "at": "",
        "version": "",
        "digest": "",
        "repairs": {},
        "failures": 0,
        "last_repair": None,
        "problems": [],
        "history_error": "",
    }
    try:
        found = json.loads(_files.read_bytes(FILE) or b"{}")
    except (KindnetError, ValueError, RecursionError):
        return status
    return found if is_sound(found, status) else status


def is_sound(found: Any, empty: Status) -> bool:
    """Pure. Whether this is what :func:`update` writes, as far as it is counted on."""
    return (
        isinstance(found, dict)
        and set(found) == set(empty)
        and found["schema"] == SCHEMA
        and all(isinstance(found[name], type(value)) for name, value in empty.items() if value is not None)
        and all(isinstance(count, int) for count in found["repairs"].values())
        and all(isinstance(p, dict) and {"section", "subject", "message", "since"} == set(p) for p in found["problems"])
    )


def updated(
    old: Status, at: str, build: Dict[str, str], repairs: Sequence[Tuple[str, Change]], problems: Optional[Memory], history_error: str
) -> Status:
    """Pure. ``old`` with what a pass has done and found.

    :param problems: those that there are now; None if nothing is known of them but that they are not new.
    :param history_error: why ``repairs`` could not be recorded; "" if they were.
    """
    new: Status = dict(old, repairs=dict(old["repairs"]), since=old["since"] or at, **build)
    for section, _change in repairs:
        new["repairs"][section] = new["repairs"].get(section, 0) + 1
    if repairs:
        new["last_repair"] = _history.entries_of(repairs[-1:], at)[0]
        new["history_error"] = history_error
    if problems is not None:
        known = {(p["subject"], p["message"]) for p in old["problems"]}
        since = {p["subject"]: p["since"] for p in old["problems"]}
        new["problems"] = [
            {"section": p["section"], "subject": subject, "message": p["message"], "since": since.get(subject, at)} for subject, p in problems.items()
        ]
        new["failures"] += any((p["subject"], p["message"]) not in known for p in new["problems"])
    return dict(new, at=at) if new != old else old


def update(build: Dict[str, str], repairs: Sequence[Tuple[str, Change]], problems: Optional[Memory], history_error: str) -> None:
    with _desired.lock(LOCK_TIMEOUT, LOCK):
        old = load()
        new = updated(old, _history.now(), build, repairs, problems, history_error)
        if new != old:
            _files.write_atomic(FILE, json.dumps(new, indent=1).encode() + b"\n", lasting=False)
