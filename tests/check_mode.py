# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run in check mode says, held against what the same run then does, and what the host's files and tools show of it.

Nothing here imports the code under test: what a result says is read as a person would, out of its diff and its list of changes.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

from route_host import RouteHost

DESIRED, BEFORE = "/etc/kindnet/desired.json", "/var/lib/kindnet/before.json"
# Below these, and nowhere else, a module writes; /run also holds what of /etc and /var/lib was ever changed here.
PLACES = ("/run", "/etc/cni", "/etc/kindnet", "/var/lib/kindnet")
# Work of the overlays of the host; and the lock of iptables, which even its listing makes.
NOT_LOOKED_AT = ("/run/work", "/run/xtables.lock")
RUN_KINDNET = ("/run/kindnet", "/run/kindnet/lock")
# Of a result, what check mode has to foresee.
FORESEEN = ("changed", "changes", "diff", "problems", "notes", "failed", "msg", "routes", "unchanged", "families", "backend", "mtu_interfaces")


class File(NamedTuple):
    kind: str  # "file", "folder", "link" or "other"
    content: bytes  # of a file, or where a link leads
    mode: int
    owner: tuple[int, int]
    identity: tuple[int, int]  # inode and time of its last change: what was written anew differs in it, also with the same content


class Said(NamedTuple):
    """One change, as a result tells it."""

    subject: str
    action: str
    before: str
    after: str


class State(NamedTuple):
    """All that a run could change."""

    files: dict[str, File]
    kernel: Any  # as the kind of test looks at it


def files(host: RouteHost) -> dict[str, File]:
    found: dict[str, File] = {}
    root = Path("/proc/%d/root" % host.process.pid)

    def look(path: str) -> None:
        place = str(root) + path
        try:
            st = os.lstat(place)
        except FileNotFoundError:
            return
        kind, content = "other", b""
        if stat.S_ISDIR(st.st_mode):
            kind = "folder"
        elif stat.S_ISLNK(st.st_mode):
            kind, content = "link", os.fsencode(os.readlink(place))
        elif stat.S_ISREG(st.st_mode):
            kind, content = "file", Path(place).read_bytes()
        changed = 0 if kind == "folder" else st.st_mtime_ns  # of a folder, its entries say more
        found[path] = File(kind, content, stat.S_IMODE(st.st_mode), (st.st_uid, st.st_gid), (st.st_ino, changed))
        if kind == "folder":
            for name in sorted(os.listdir(place)):
                if os.path.join(path, name) not in NOT_LOOKED_AT:
                    look(os.path.join(path, name))

    for place in PLACES:
        look(place)
    return found


def said(result: dict[str, Any]) -> list[Said]:
    """The changes with their two sides of the diff, in their order. Each line of the diff belongs to one."""
    changes = result.get("changes", [])
    sides = {}
    for side, absent in (("before", "add"), ("after", "remove")):
        texts: list[str | None] = [None] * len(changes)
        rest = result.get("diff", {}).get(side, "")
        expected = [i for i, c in enumerate(changes) if c["action"] != absent]
        for number, i in enumerate(expected):
            start = changes[i]["subject"] + ": "
            assert rest.startswith(start), (side, changes[i], rest)
            following = [changes[k]["subject"] + ": " for k in expected[number + 1 : number + 2]]
            end = rest.find("\n" + following[0]) + 1 if following else len(rest)
            assert end > 0, (side, changes[i], rest)
            texts[i], rest = rest[len(start) : end].rstrip("\n"), rest[end:]
        assert rest == "", (side, rest)
        sides[side] = texts
    told = [Said(c["subject"], c["action"], sides["before"][i] or "", sides["after"][i] or "") for i, c in enumerate(changes)]
    assert len({one.subject for one in told}) == len(told), told
    return told


def prove(
    host: RouteHost, name: str, args: dict[str, Any], kernel: Callable[[RouteHost], Any], judge: Callable[[dict[str, Any], list[Said], State, State], None]
) -> dict[str, Any]:
    """Check, real, repeat, repeat in check mode, from the state that the host is in.

    :param kernel: looks at what is not a file.
    :param judge: raises unless the changes of the kind are those between the two states, and lead to what the arguments say.
    """

    def look() -> State:
        return State(files(host), kernel(host))

    before = look()
    predicted = host.module(check=True, name=name, **args)
    assert look() == before, "check mode changed something"
    real = host.module(name=name, **args)
    for key in FORESEEN:
        assert predicted.get(key) == real.get(key), (key, predicted.get(key), real.get(key))
    after = look()
    told = said(real)
    assert bool(told) == bool(real.get("changed")) == bool(real.get("diff", {}).get("before") or real.get("diff", {}).get("after")), real
    if "changes" not in real:  # refused as a whole
        assert real.get("failed"), real
        assert untouched(before) == untouched(after), "a refused run changed something"
    else:
        judge(real, told, before, after)
        judge_records(told, before.files, after.files)
    # Files that no change names are the same ones, not written anew.
    named = set(places_of(told)) | set(RUN_KINDNET)
    for path in before.files.keys() | after.files.keys():
        visible = path.replace("/run/etc/", "/etc/", 1).replace("/run/var/lib/", "/var/lib/", 1)
        assert visible in named or before.files.get(path) == after.files.get(path), ("changed, and not said", path, told)
    for check in (False, True):
        again = host.module(check=check, name=name, **args)
        assert not again.get("changed") and not again.get("changes"), (check, again)
        assert again.get("problems") == real.get("problems") and again.get("failed") == real.get("failed"), (again, real)
    assert look() == after, "a run that said it changed nothing changed something"
    return real


def untouched(state: State) -> State:
    """Less what taking the lock leaves."""
    return State({path: file for path, file in state.files.items() if path not in RUN_KINDNET}, state.kernel)


def places_of(told: list[Said]) -> Iterator[str]:
    """The paths that changes are about, and the folders that they are in."""
    for one in told:
        paths = []
        for start in ("file ", "folder "):
            if one.subject.startswith(start):
                paths.append(one.subject[len(start) :])
        if one.subject == DESIRED:
            paths.append(DESIRED)
        if one.subject.startswith(("what was at ", "folders made for ")) or one.subject.endswith(" that was set aside"):
            paths.append(BEFORE)
        for text in (one.before, one.after):
            if text.startswith("renamed to "):
                paths.append(text[len("renamed to ") :])
        for path in paths:
            yield path
            while path != "/":
                path = os.path.dirname(path)
                yield path


def judge_records(told: list[Said], before: dict[str, File], after: dict[str, File]) -> None:
    """What is said of the record of desired state is what became of it."""
    (name, was, now) = record_of(before, after)
    said_of_it = [one for one in told if one.subject == DESIRED]
    if was == now:
        assert not said_of_it, (said_of_it, was)
        return
    (one,) = said_of_it
    assert one.action == ("add" if was is None else "remove" if now is None else "replace"), (one, was, now)
    differing = sorted(key for key in {*(was or {}), *(now or {})} if (was or {}).get(key) != (now or {}).get(key))
    assert one.before == ("recorded" if was is not None else ""), one
    assert one.after == ("recorded: " + ", ".join(differing) if now is not None else ""), (name, one, differing)


def record_of(before: dict[str, File], after: dict[str, File]) -> tuple[str, Any, Any]:
    """The section that differs, before and after: a module has one, and leaves the others."""
    sections = [json.loads(found[DESIRED].content)["sections"] if DESIRED in found else {} for found in (before, after)]
    names = [name for name in {*sections[0], *sections[1]} if sections[0].get(name) != sections[1].get(name)]
    assert len(names) <= 1, names
    return (names[0], sections[0].get(names[0]), sections[1].get(names[0])) if names else ("", None, None)
