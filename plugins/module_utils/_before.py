# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host was before the first converge: /var/lib/kindnet/before.json. A prior value is recorded once and never overwritten.

It is apart from the desired state, so that undoing does not depend on what became of that file. Prior values are written before the
desired state is recorded: from then on passes change things, and never look back.
"""

from __future__ import annotations

__metaclass__ = type

import json
import os
from collections import namedtuple

from . import _files
from ._errors import KindnetError
from ._plan import Change, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

    # {"before": the prior value, "ours": what we set; of a file or link, where ours leads, "" if it is none}
    Entry = Dict[str, Any]
    Image = Optional[Dict[str, Any]]  # as _files.image_of makes it

    class Op(NamedTuple):
        """What a change to the record of prior values asks for, in any concern's plan."""

        kind: str
        group: str  # of "put back": the path
        things: Any  # entries to remember, names to forget, or the image to put back

    class Priors(NamedTuple):
        """Files that a plan replaces or removes."""

        known: Dict[str, Image]  # what is recorded to have been there, by path
        now: Dict[str, Image]
        links: Dict[str, str] = {}  # where ours lead, by path
else:
    Op = namedtuple("Op", "kind group things")
    Priors = namedtuple("Priors", "known now links", defaults=({},))

SCHEMA = 1
FILE = "/var/lib/kindnet/before.json"
FILES = "files"  # the group of files and links in our places; other groups are named as their concern, with its folders in them
ASIDE = "set aside"  # the group of files of others that were renamed, by path: what they are called since is the prior value
REMEMBER, FORGET, PUT_BACK = "remember", "forget", "put back"


def load(concern: str) -> Dict[str, Entry]:
    """What is recorded for ``concern``, by the name of the thing; {} when there is nothing."""
    return dict(_load_all().get(concern, {}))


def merged(recorded: Dict[str, Entry], now: Dict[str, Any], ours: Dict[str, Any]) -> Dict[str, Entry]:
    """``recorded`` with what ``ours`` is about to change. Pure.

    :param now: the live values; they are the prior ones of what is not recorded yet. None: not there, nothing to go back to.
    """
    entries = dict(recorded)
    for thing, value in ours.items():
        prior = recorded[thing]["before"] if thing in recorded else now.get(thing)
        if prior is not None:
            entries[thing] = {"before": prior, "ours": value}
    return entries


def remember(concern: str, entries: Dict[str, Entry]) -> None:
    """Record ``entries`` for ``concern``. A prior value that the file has stays, whatever ``entries`` say."""
    everything = _load_all()
    recorded = everything.setdefault(concern, {})
    for thing, entry in entries.items():
        recorded[thing] = {"before": recorded.get(thing, entry)["before"], "ours": entry["ours"]}
    _store(everything)


def forget(concern: str, things: Iterable[str]) -> None:
    """Drop what has been brought back; with nothing left the file and its folder go."""
    everything = _load_all()
    recorded = everything.get(concern, {})
    for thing in things:
        recorded.pop(thing, None)
    if not recorded:
        everything.pop(concern, None)
    _store(everything)


def apply(op: Op) -> None:
    """Make one change. What is to be remembered has been by :func:`remember_all`."""
    if op.kind == PUT_BACK:
        _files.put_back(op.group, op.things)
    elif op.kind == FORGET:
        forget(op.group, op.things)


def remember_all(plan: Plan) -> None:
    """Before anything else of a plan is done."""
    for change in plan.changes:
        if isinstance(change.op, Op) and change.op.kind == REMEMBER:
            remember(change.op.group, change.op.things)


def unrecorded(paths: Iterable[str]) -> Priors:
    """What is at those of ``paths`` of which nobody has recorded what was there before us."""
    known = load(FILES)
    return Priors({}, {p: _files.image_of(p) for p in paths if p not in known})


def recorded(paths: Iterable[str]) -> Priors:
    """What was at ``paths`` before us, as far as it is recorded, and what is there now."""
    known = load(FILES)
    before = {p: known[p]["before"] for p in paths if p in known}
    return Priors(before, {p: _files.image_of(p) for p, image in before.items() if image is not None})


def remembering(priors: Optional[Priors]) -> Tuple[Change, ...]:
    """The changes that record what is in our places. Pure."""
    return tuple(
        Change(
            _subject(path),
            "add",
            "",
            "recorded: " + _in_words(image),
            "teardown brings it back",
            Op(REMEMBER, FILES, {path: {"before": image, "ours": priors.links.get(path, "") if priors else ""}}),
        )
        for path, image in sorted(priors.now.items() if priors else ())
    )


def unrecorded_links(links: Dict[str, str], ours: Iterable[str]) -> Priors:
    """What is at those of ``links``, path to target, of which it is not recorded that ours leads there.

    :param ours: those that an earlier converge made; nothing was there before.
    """
    known = load(FILES)
    missing = {p: target for p, target in links.items() if p not in known or known[p]["ours"] != target}
    return Priors({}, {p: None if p in ours or p in known else _files.image_of(p) for p in missing}, missing)


def links_of_ours() -> Dict[str, str]:
    """Path to target of each link that is recorded, whatever became of the desired state."""
    return {path: entry["ours"] for path, entry in load(FILES).items() if entry["ours"]}


def folders_of_ours(concern: str) -> List[str]:
    """The folders that ``concern`` is recorded to have made."""
    return sorted(load(concern))


def remembering_folders(concern: str, folders: Sequence[str]) -> Tuple[Change, ...]:
    """The change that records that there was none of ``folders``. Pure."""
    if not folders:
        return ()
    op = Op(REMEMBER, concern, {folder: {"before": None, "ours": ""} for folder in folders})
    return (Change(_folders_subject(concern), "add", "", "recorded: " + ", ".join(folders), "teardown removes those that are empty then", op),)


def forgetting_folders(concern: str, folders: Sequence[str]) -> Tuple[Change, ...]:
    """The change that drops the record of ``folders``. Pure."""
    if not folders:
        return ()
    op = Op(FORGET, concern, folders)
    return (Change(_folders_subject(concern), "remove", "recorded: " + ", ".join(folders), "", "it is of no more use", op),)


def _folders_subject(concern: str) -> str:
    return "folders made for " + concern


def putting_back(plan: Plan, priors: Optional[Priors]) -> Plan:
    """``plan``, which removes what is ours, so that what was there before comes back in its place. Pure.

    What the plan leaves alone is not ours any more, and stays.
    """
    known = priors.known if priors else {}
    changes: List[Change] = []
    for change in plan.changes:
        path = change.op[1] if change.action == "remove" and change.op[0] == "remove" else ""
        image = known.get(path)
        if image is None:
            changes.append(change)
        elif priors and image != priors.now.get(path):
            after = image.get("text", "").rstrip() or _in_words(image)
            changes.append(change._replace(action="replace", after=after, reason="as it was before", op=Op(PUT_BACK, path, image)))
    # Of a place that a later converge gave up, ours is gone already.
    for path, image in sorted(known.items()):
        if image is not None and priors and priors.now.get(path, image) is None and not any(c.op[1] == path for c in plan.changes if len(c.op) > 1):
            after = image.get("text", "").rstrip() or _in_words(image)
            changes.append(Change("file " + path, "add", "", after, "as it was before", Op(PUT_BACK, path, image)))
    for path in sorted(known):
        changes.append(Change(_subject(path), "remove", "recorded: " + _in_words(known[path]), "", "it is of no more use", Op(FORGET, FILES, [path])))
    return plan._replace(changes=tuple(changes))


def _subject(path: str) -> str:
    return "what was at %s" % path


def _in_words(image: Image) -> str:
    if image is None:
        return "nothing"
    if "link" in image:
        return "a link to %s" % ascii(image["link"])[1:-1]
    if "mode" not in image:
        return str(image["other"])
    size = len(image["text"].encode()) if "text" in image else len(image["hex"]) // 2
    return "a file of %d bytes, owner %d:%d, mode %s" % ((size,) + tuple(image["owner"]) + (image["mode"],))


def _load_all() -> Dict[str, Dict[str, Entry]]:
    try:
        _files.refuse_writable_by_others(FILE)
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise KindnetError(FILE, e.strerror, "cannot be looked at", "Run as root, and see what its folder is.")
    content = _files.read_bytes(FILE)
    try:
        data = json.loads(content or b"")
        if data["schema"] != SCHEMA:
            raise ValueError("schema %s, this code knows %d" % (data["schema"], SCHEMA))
        before: Dict[str, Dict[str, Entry]] = data["before"]
        if not all("before" in e and "ours" in e for entries in before.values() for e in entries.values()):
            raise ValueError("an entry lacks its values")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise KindnetError(
            FILE,
            "%d bytes" % len(content or b""),
            "is damaged (%s), so nobody knows what was there before" % e,
            "Restore it from a backup, or remove it: what is live now then counts as what was there before.",
        )
    return before


def _store(everything: Dict[str, Dict[str, Entry]]) -> None:
    if everything:
        content = json.dumps({"schema": SCHEMA, "before": everything}, indent=1, sort_keys=True) + "\n"
        _files.write_atomic(FILE, content.encode())
        return
    _files.remove(FILE)
    folder = os.path.dirname(FILE)
    if _files.names_in(folder) == ():
        _files.remove_folder(folder)
