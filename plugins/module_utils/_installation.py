# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet-reconcile on a node: its code under its digest, its command, its units. Planned and applied like a concern.

The code is switched by one rename, so a pass runs the old version or the new one, never some of each. A pass holds a shared
lock on the folder of the code it runs, and what is locked is not removed before a later run finds it idle.
"""

from __future__ import annotations

__metaclass__ = type

import os
import re
from collections import namedtuple

from . import _before, _code_folder, _files, _history, _metrics, _systemd
from ._code_folder import LIBRARY
from ._errors import KindnetError
from ._plan import Change, Plan
from ._reconcile import TEXTFILE_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple

    from ._code_folder import Code
    from ._converge import Section
    from ._files import Found
    from ._plan import Problem

    class Actual(NamedTuple):
        """What is on the node of what we install."""

        files: Dict[str, Optional[Found]]  # by path
        code: Code
        drop_ins: Dict[str, str]  # their content by path
        timer: str  # "active", "inactive", ...
        enabled: bool
        reload_needed: bool
        watch: str = "inactive"  # as timer
        watch_enabled: bool = False
        # When that matters: files of others in our places, and folders that were not there
        priors: Optional[_before.Priors] = None
        missing_folders: Tuple[str, ...] = ()
        # Of files with metrics that are recorded as ours and not wanted any more, what was there before
        metrics: Optional[_before.Priors] = None
        history: bool = False  # whether passes have a folder for what they repair

    class Op(NamedTuple):
        kind: str
        path: str = ""  # or unit
else:
    Actual = namedtuple(
        "Actual",
        "files code drop_ins timer enabled reload_needed watch watch_enabled priors missing_folders metrics history",
        defaults=("inactive", False, None, (), None, False),
    )
    Op = namedtuple("Op", "kind path", defaults=("",))  # path: or unit

UNIT_FOLDER = "/etc/systemd/system"
TIMER = "kindnet-reconcile.timer"
SERVICE = "kindnet-reconcile.service"
PATHS_SERVICE = "kindnet-writable-paths.service"
WATCH = "kindnet-watch.service"
ENABLED_LINKS = {
    TIMER: "%s/timers.target.wants/%s" % (UNIT_FOLDER, TIMER),
    WATCH: "%s/multi-user.target.wants/%s" % (UNIT_FOLDER, WATCH),
}
CURRENT = LIBRARY + "/current"
FOLDERS = "folders"  # the group of those that we made, in the record of what was before
MARK = b"Managed by kindnet.host"  # in each file of FILES
UNITS = (PATHS_SERVICE, SERVICE, TIMER, WATCH)
TMPFILES = "/etc/tmpfiles.d/kindnet.conf"

OPTIONS: Dict[str, Dict[str, Any]] = {
    "cluster_name": {"type": "str", "default": "kindnet"},
    "interval": {"type": "int", "default": 10},
    "protocol": {"type": "int", "default": 107},
    "writable_paths": {"type": "list", "elements": "path", "default": ["/etc/cni/net.d", "/opt/cni/bin"]},
    "watch": {"type": "bool", "default": False},
    "textfile_dir": {"type": "path", "default": ""},
    "lock_timeout": {"type": "float", "default": 30.0},
    "rendered": {"type": "dict"},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
}

# Where each rendered template goes, and its mode. The command comes before the units that start it.
FILES = {
    "kindnet-tmpfiles.conf": (TMPFILES, 0o644),
    "kindnet-rt-protos.conf": ("/etc/iproute2/rt_protos.d/kindnet.conf", 0o644),
    "kindnet-reconcile": ("/usr/local/sbin/kindnet-reconcile", 0o755),
}
FILES.update((unit, ("%s/%s" % (UNIT_FOLDER, unit), 0o644)) for unit in UNITS)

# Where drop-ins for our own units may be. Those for all units of a type are the host's own affair.
DROP_IN_FOLDERS = tuple(
    "%s/%s.d" % (folder, unit)
    for folder in (UNIT_FOLDER, "/run/systemd/system", "/etc/systemd/system.control", "/run/systemd/system.control")
    for unit in UNITS
)

WRITE, REMOVE, REMOVE_FOLDER, REMOVE_CODE, REMOVE_IDLE = "write", "remove", "remove folder", "remove code", "remove idle code"
INSTALL, REPAIR, COMPILE, SWITCH = "install", "repair", "compile", "switch"
RELOAD, ENABLE, START, STOP, DISABLE = "reload", "enable", "start", "stop", "disable"


class Installation:
    """The concern. It is never recorded in desired.json: it is what reads that file."""

    SECTION = "reconcile"

    def __init__(self, sources: Dict[str, bytes], rendered: Optional[Dict[str, str]]) -> None:
        """
        :param sources: the files of the package that a pass runs, by name.
        :param rendered: the files of FILES, by name. The action plugin renders them on the controller.
        """
        self.rendered = rendered
        self.sources = dict(sources, **{"__init__.py": b""})
        self.digest = _code_folder.digest_of(self.sources)

    def resolve(self, params: Dict[str, Any], recorded: Optional[Section]) -> Section:
        if params["state"] == "absent":
            return {"state": "absent"}
        validate(params)
        rendered = self.rendered
        if not rendered or set(rendered) != set(FILES) or not all(isinstance(text, str) for text in rendered.values()):
            raise KindnetError(
                "rendered",
                "(not shown)",
                "is not what the action plugin of this module makes",
                "Leave the option out, and run the module by its full name, kindnet.host.kindnet_reconcile.",
            )
        files = {path: rendered[name] for name, (path, _mode) in FILES.items() if name != WATCH or params["watch"]}
        return {"digest": self.digest, "files": files, "textfile_dir": params["textfile_dir"]}

    def read(self, section: Section, recorded: Optional[Section]) -> Actual:
        drop_ins: Dict[str, str] = {}
        for folder in DROP_IN_FOLDERS:
            for name in _files.names_in(folder) or ():
                found = _files.look(os.path.join(folder, name))
                drop_ins[os.path.join(folder, name)] = text_of(found) if found else ""
        shown = {unit: _systemd.show(unit, "ActiveState", "SubState", "NeedDaemonReload") for unit in UNITS}
        timer = shown[TIMER]
        files = {path: _files.look(path) for path, _mode in FILES.values()}
        code = _code_folder.read(self.digest)
        is_absent = section.get("state") == "absent"
        folder = section.get("textfile_dir", "")
        metrics, metrics_before = _metrics.file_in(folder), _metrics.file_in(textfile_dir_of(files[FILES[SERVICE][0]]))
        places: List[str] = []  # of ours, of which it is to be recorded what was there before
        missing: List[str] = _files.missing_folders(folder) if folder else []
        if not (is_absent or code.current or code.installed):
            # Nothing is ours yet: the code comes before the files.
            places = [path for path, found in files.items() if found]
            missing += [above for path in files for above in _files.missing_folders(os.path.dirname(path))]
        known = {path: entry["before"] for path, entry in _before.load(_before.FILES).items() if os.path.basename(path) == _metrics.NAME}
        if metrics_before:
            known.setdefault(metrics_before, None)  # also when the record is lost
        if metrics and metrics not in known:
            places.append(metrics)
        known.pop(metrics, None)
        return Actual(
            files,
            code,
            drop_ins,
            # A timer that has nothing to wait for any more is called active all the same.
            "elapsed" if timer.get("SubState") == "elapsed" else timer.get("ActiveState", ""),
            is_enabled(TIMER),
            any(unit.get("NeedDaemonReload") == "yes" for unit in shown.values()),
            shown[WATCH].get("ActiveState", ""),
            is_enabled(WATCH),
            _before.recorded(files) if is_absent else _before.unrecorded(places),
            tuple(sorted(set(missing) - set(_before.load(FOLDERS)))),
            _before.Priors(known, {path: _files.image_of(path) for path, image in known.items() if image is not None}),
            os.path.lexists(_history.FOLDER),
        )

    def plan(self, section: Section, actual: Actual) -> Plan:
        if section.get("state") == "absent":
            return plan_removal(actual)
        return plan_installation(section, self.sources, actual)

    def apply(self, section: Section, plan: Plan) -> Tuple[Problem, ...]:
        """Make the changes in their order. The first that fails ends it; the next run goes on from there."""
        os.umask(0o022)
        ops = [change.op for change in plan.changes]
        unread = False  # whether units on disk have changed since systemd read them
        try:
            for op in ops:
                if unread and (op.kind in (ENABLE, START) or is_metrics(op)):
                    _systemd.systemctl("daemon-reload")
                    unread = False
                if isinstance(op, _before.Op):
                    _before.apply(op)
                    if (op.kind, op.group) == (_before.REMEMBER, FOLDERS):
                        for folder in sorted(op.things):
                            _files.make_folder(folder)
                    unread = unread or is_of_unit(op.group)
                    continue
                self._apply(section, op)
                unread = unread or op.kind == RELOAD or is_of_unit(op.path)
            if unread:
                _systemd.systemctl("daemon-reload")
            if section.get("state") == "absent":
                remove_traces()
            # So that a new interval counts from now, and what runs is what the unit says.
            for unit in (TIMER, WATCH):
                is_wanted = FILES[unit][0] in section.get("files", ())
                if is_wanted and Op(START, unit) not in ops and any(unit in op.path for op in ops if isinstance(op, Op) and is_of_unit(op.path)):
                    _systemd.systemctl("restart", unit)
        except OSError as e:
            raise KindnetError(e.filename or LIBRARY, e.strerror, "cannot be changed", "Run as root on a writable file system.")
        return ()

    def _apply(self, section: Section, op: Op) -> None:
        if op.kind == WRITE:
            _files.write_atomic(op.path, section["files"][op.path].encode(), MODES[op.path])
            if op.path == TMPFILES:
                _systemd.run("systemd-tmpfiles", "--create", TMPFILES)
        elif op.kind == REMOVE:
            if is_metrics(op):
                end_pass()  # it would write them once more
                _files.remove(_files.temporary_name(op.path))
            _files.remove(op.path)
            if os.path.dirname(op.path) in DROP_IN_FOLDERS:
                remove_if_empty(os.path.dirname(op.path))
        elif op.kind == REMOVE_FOLDER:
            for name in _files.names_in(op.path) or ():
                _files.remove(os.path.join(op.path, name))
            _files.remove_folder(op.path)
        elif op.kind == REMOVE_CODE:
            _code_folder.remove(op.path)
        elif op.kind == REMOVE_IDLE:
            _code_folder.remove_idle(op.path)
        elif op.kind == INSTALL:
            _code_folder.install(self.digest, self.sources)
        elif op.kind == REPAIR:
            _code_folder.repair(self.digest, self.sources)
        elif op.kind == COMPILE:
            _code_folder.recompile(self.digest)
        elif op.kind == SWITCH:
            _files.link_atomic(CURRENT, self.digest)
        elif op.kind in (STOP, DISABLE, ENABLE):
            _systemd.systemctl(op.kind, op.path)
            if op.kind == STOP:
                forget_failure(op.path)
        elif op.kind == START:
            _systemd.systemctl("restart", op.path)


MODES = dict(FILES.values())


def validate(params: Dict[str, Any]) -> None:
    """Refuse what would make a unit, or an entry for iproute2, that is not what was meant."""
    if not 1 <= params["interval"] <= 3600:
        raise KindnetError("interval", params["interval"], "is not between 1 and 3600 seconds", "Leave it at 10, as kindnetd has it.")
    if not 5 <= params["protocol"] <= 255:
        raise KindnetError("protocol", params["protocol"], "is not between 5 and 255; those below are the kernel's", "Leave it at 107.")
    for path in params["writable_paths"]:
        if not is_plain_path(path):
            raise KindnetError("writable_paths", path, "is not a plain absolute path", "Write it like /etc/cni/net.d.")
    if params["textfile_dir"] and not is_plain_path(params["textfile_dir"]):
        remedy = "Write it like /var/lib/prometheus/node-exporter, or leave it empty for no metrics."
        raise KindnetError("textfile_dir", params["textfile_dir"], "is not a plain absolute path", remedy)


def is_plain_path(path: str) -> bool:
    """Whether a unit takes it as it is: systemd expands % and $, and splits at blanks."""
    plain = path.startswith("/") and all(c.isascii() and (c.isalnum() or c in "_.,+@/-") for c in path)
    return plain and os.path.normpath(path) == path != "/"


def plan_installation(section: Section, sources: Dict[str, bytes], actual: Actual) -> Plan:
    """Pure. The code first, then the command, the units, the timer: killed in between, nothing starts what is not there."""
    changes: List[Change] = list(_before.remembering(actual.priors))
    for missing in actual.missing_folders:
        op = _before.Op(_before.REMEMBER, FOLDERS, {missing: {"before": None, "ours": ""}})
        changes.append(Change("folder " + missing, "add", "", "mode 0755", "files of ours are in it", op))
    code, folder = actual.code, os.path.join(LIBRARY, section["digest"])
    for path in code.leftovers:
        changes.append(Change(path, "remove", "incomplete", "", "an earlier run was cut off", Op(REMOVE_CODE, path)))
    if code.tree is None:
        changes.append(Change(folder, "add", "", "%d files" % len(sources), "this version is not installed", Op(INSTALL)))
    else:
        damaged = _code_folder.damaged(code.tree, sources)
        if damaged:
            before = "not as installed: " + ", ".join(damaged)
            changes.append(Change(folder, "replace", before, "%d files" % len(sources), "somebody changed it", Op(REPAIR)))
        elif not _code_folder.is_compiled(code, sources):
            before, after = "bytecode missing, or of another Python", "bytecode of %s" % code.python_tag
            changes.append(Change(folder, "replace", before, after, "each pass would compile it again", Op(COMPILE)))
    if code.current != section["digest"]:
        action = "replace" if code.current else "add"
        changes.append(Change(CURRENT, action, code.current, section["digest"], "what a pass runs", Op(SWITCH)))
    for path in code.idle:
        changes.append(Change(path, "remove", "installed", "", "another version is in its place", Op(REMOVE_IDLE, path)))
    watch_file = FILES[WATCH][0]
    is_watched = watch_file in section["files"]
    if not is_watched:
        changes += stopping(WATCH, actual.watch, actual.watch_enabled, "watch: false")
        found = actual.files[watch_file]
        if found is not None:
            changes.append(Change(watch_file, "remove", text_of(found) or found.kind, "", "watch: false", Op(REMOVE, watch_file)))
    for path, text in section["files"].items():
        change = plan_file(path, text, actual.files[path])
        if change is not None:
            changes.append(change)
    changes += without_metrics(actual.metrics, "textfile_dir is %s" % (section["textfile_dir"] or "empty"))
    for path, text in sorted(actual.drop_ins.items()):
        reason = "it changes a unit of ours; options of the module do that"
        changes.append(Change(path, "remove", text or "empty", "", reason, Op(REMOVE, path)))
    if actual.reload_needed and not any(is_of_unit(c.op.path) for c in changes if isinstance(c.op, Op)):
        changes.append(Change("systemd", "replace", "older units than on disk", "units as on disk", "it was not reloaded", Op(RELOAD)))
    changes += starting(TIMER, actual.timer, actual.enabled, "passes go on")
    if is_watched:
        changes += starting(WATCH, actual.watch, actual.watch_enabled, "passes start on events")
    return Plan(tuple(changes))


def plan_file(path: str, text: str, found: Optional[Found]) -> Optional[Change]:
    if found is None:
        return Change(path, "add", "", text, "missing", Op(WRITE, path))
    is_ours = found.kind == "file" and (found.uid, found.gid) == (0, 0) and found.mode == MODES[path]
    if is_ours and found.content == text.encode():
        return None
    before, after = text_of(found), text
    if not is_ours:
        before = "%s, owner %d:%d, mode %04o\n%s" % (found.kind, found.uid, found.gid, found.mode, before)
        after = "file, owner 0:0, mode %04o\n%s" % (MODES[path], after)
    return Change(path, "replace", before, after, "not as this version has it", Op(WRITE, path))


def plan_removal(actual: Actual) -> Plan:
    """Pure. Nothing is started any more before anything is taken away."""
    changes: List[Change] = []
    reason = "state: absent"
    changes += stopping(WATCH, actual.watch, actual.watch_enabled, reason)
    changes += stopping(TIMER, actual.timer, actual.enabled, reason)
    changes += without_metrics(actual.metrics, reason)
    if actual.history:
        changes.append(Change(_history.FOLDER, "remove", "what passes repaired", "", reason, Op(REMOVE_FOLDER, _history.FOLDER)))
    installed = actual.code.current or actual.code.installed
    for path, found in reversed(tuple(actual.files.items())):
        # Without our code only what says that it is ours: the file of somebody else may be back in its place.
        if found is not None and (installed or MARK in found.content):
            changes.append(Change(path, "remove", text_of(found), "", reason, Op(REMOVE, path)))
    for path, text in sorted(actual.drop_ins.items()):
        changes.append(Change(path, "remove", text or "empty", "", reason, Op(REMOVE, path)))
    if actual.code.current:
        changes.append(Change(CURRENT, "remove", actual.code.current, "", reason, Op(REMOVE, CURRENT)))
    for path in actual.code.leftovers + actual.code.installed:
        changes.append(Change(path, "remove", "installed", "", reason, Op(REMOVE_CODE, path)))
    return _before.putting_back(Plan(tuple(changes)), actual.priors)


def without_metrics(priors: Optional[_before.Priors], reason: str) -> Tuple[Change, ...]:
    """Take out the files that passes write no more, whether or not one has written there yet. They would look as if no pass came any more."""
    gone = tuple(Change(path, "remove", "metrics of passes", "", reason, Op(REMOVE, path)) for path in (priors.known if priors else ()))
    return _before.putting_back(Plan(gone), priors).changes


def textfile_dir_of(service: Optional[Found]) -> str:
    """Pure. The folder that an installed service writes metrics into; "" if it writes none."""
    found = re.search(r"^Environment=%s=(/.*)$" % TEXTFILE_DIR, text_of(service), re.MULTILINE) if service else None
    return found.group(1) if found else ""


def is_metrics(op: Any) -> bool:
    return isinstance(op, Op) and os.path.basename(op.path) == _metrics.NAME


def starting(unit: str, state: str, enabled: bool, reason: str) -> Iterable[Change]:
    if not enabled:
        yield Change(unit + " at boot", "replace", "disabled", "enabled", reason + " after a reboot", Op(ENABLE, unit))
    if state != "active":
        yield Change(unit, "replace", state, "active", reason, Op(START, unit))


def stopping(unit: str, state: str, enabled: bool, reason: str) -> Iterable[Change]:
    if state not in ("inactive", ""):
        yield Change(unit, "replace", state, "inactive", reason, Op(STOP, unit))
    if enabled:
        yield Change(unit + " at boot", "replace", "enabled", "disabled", reason, Op(DISABLE, unit))


def is_enabled(unit: str) -> bool:
    link = ENABLED_LINKS[unit]
    return os.path.islink(link) and os.path.basename(os.readlink(link)) == unit


def is_of_unit(path: str) -> bool:
    return path in (FILES[unit][0] for unit in UNITS) or os.path.dirname(path) in DROP_IN_FOLDERS


def text_of(found: Found) -> str:
    return found.content.decode("utf-8", "replace")


def remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # somebody else's things are in it, or it is gone


def forget_failure(unit: str) -> None:
    """What systemd keeps of a unit that failed, also when there is no such unit any more."""
    if _systemd.show(unit, "ActiveState").get("ActiveState") == "failed":
        _systemd.systemctl("reset-failed", unit)


def end_pass() -> None:
    """One at work would hold the lock that is ours now; this one waits for it, or ends by itself."""
    if _systemd.show(SERVICE, "ActiveState").get("ActiveState") == "activating":
        _systemd.systemctl("stop", SERVICE)
    forget_failure(SERVICE)


def remove_traces() -> None:
    """What is left when everything is taken out: a pass that waits for our lock, what passes remembered, empty folders of ours."""
    end_pass()
    for name in _files.names_in("/run/kindnet") or ():
        _files.remove(os.path.join("/run/kindnet", name))
    made = sorted(_before.load(FOLDERS), reverse=True)  # the innermost first
    for folder in ["/run/kindnet", "/etc/kindnet", LIBRARY, os.path.dirname(_history.FOLDER)] + made:
        remove_if_empty(folder)
    if made:
        _before.forget(FOLDERS, made)
