# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern "sysctl": kernel settings that routing between pods needs, live and over a reboot.

Its section of desired.json::

    sysctls   [["net/ipv4/ip_forward", "1"], ...]: in the order in which they are set

Forwarding is a switch: when it changes, the kernel sets other settings anew. Those are no part of the section, but what they were is recorded.

kindnetd relies on kind's node image for forwarding and never looks again.
"""

from __future__ import annotations

__metaclass__ = type

import re
from collections import namedtuple

from . import _before, _files
from ._errors import KindnetError
from ._plan import Change, Plan, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Tuple

    Section = Dict[str, Any]

    class Actual(NamedTuple):
        values: Dict[str, Optional[str]]  # by key; None: the kernel does not know it
        file: Optional[str]
        before: Optional[Dict[str, _before.Entry]]  # prior values; None in a pass, which leaves them alone
        priors: Optional[_before.Priors] = None  # what was at FILE, when that matters
        following: Optional[Dict[str, str]] = None  # values of what the kernel sets anew with a switch of which no prior value is known
else:
    Actual = namedtuple("Actual", "values file before priors following", defaults=(None, None))

__all__ = ["SECTION", "apply", "plan", "read", "resolve"]

SECTION = "sysctl"
# Of all files in sysctl.d/ the last one by name wins.
FILE = "/etc/sysctl.d/zz-kindnet.conf"
HEAD = "# Written by kindnet.host, which also restores it. Undo: playbooks/teardown.yml.\n"
PROC = "/proc/sys/"

FORWARDING_6 = "net/ipv6/conf/all/forwarding"
ACCEPT_REDIRECTS = "net/ipv4/conf/all/accept_redirects"
# Settings that are switches: the kernel sets others anew when one changes (inet_forward_change, addrconf_fixup_forwarding).
SWITCHES = {
    "net/ipv4/ip_forward": "net/ipv4/conf/",
    "net/ipv4/conf/all/forwarding": "net/ipv4/conf/",
    FORWARDING_6: "net/ipv6/conf/",
}
IPV6_ROUTES = "/proc/net/ipv6_route"
RTF_ADDRCONF = 0x00040000  # linux/ipv6_route.h: from a router advertisement

SET, WRITE, REMOVE = "set", "write", "remove"


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """See :class:`_converge.Concern`."""
    if params["state"] == "absent":
        return {"state": "absent"}
    wanted: Dict[str, str] = {}
    for key, value in (params.get("sysctls") or {}).items():
        path = parse_key(key)
        if path in wanted:
            raise KindnetError("sysctls", key, "is given twice", "Write each key once.")
        wanted[path] = parse_value(key, value)
    if not wanted:
        raise KindnetError("sysctls", "{}", "names no setting", "Give at least one, such as net.ipv4.ip_forward: 1, or state: absent.")
    # Switches first: what somebody wants beside them is not to be set anew by them.
    sysctls = sorted(wanted.items(), key=lambda pair: _rank(pair[0]))
    if wanted.get(FORWARDING_6, "0") != "0" and params.get("keep_ra_routes", True):
        sysctls = [(k, v) for k, v in _router_advertisements(recorded) if k not in wanted] + sysctls
    return {"sysctls": [list(pair) for pair in sysctls]}


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """See :class:`_converge.Concern`."""
    before = None if recorded is None else _before.load(SECTION)
    keys = [key for key, _value in section.get("sysctls", ())] or list(before or ())
    content = _files.read_bytes(FILE)
    priors = None
    if section.get("state") == "absent":
        priors = _before.recorded([FILE])
    elif recorded == {} and content is not None and not content.startswith(HEAD.encode()):
        priors = _before.unrecorded([FILE])
    values = {key: live(key) for key in keys}
    following = _following([key for key in SWITCHES if key in keys and key not in before]) if before is not None else None
    return Actual(values, None if content is None else content.decode("utf-8", "replace"), before, priors, following)


def plan(section: Section, actual: Actual) -> Plan:
    """See :class:`_converge.Concern`."""
    if section.get("state") == "absent":
        return _plan_absent(actual)
    changes: List[Change] = []
    problems: List[Problem] = []
    notes: List[str] = []
    wanted = dict(section["sysctls"])
    changes += _before.remembering(actual.priors)
    if actual.before is not None:
        entries = _before.merged(actual.before, actual.values, wanted)
        entries.update(_lost_with_switches(actual, wanted))
        if entries != actual.before:
            changes.append(_remember(actual.before, entries))
        left = sorted(key for key in actual.before if key not in wanted and not any(_set_by(switch, "1", key) for switch in actual.before))
        if left:
            notes.append("%s: no longer wanted, left as it is; teardown brings the prior value back" % ", ".join(dotted(k) for k in left))
    text = file_text(section["sysctls"])
    if actual.file != text:
        reason = "settings survive a reboot"
        changes.append(Change(FILE, "add" if actual.file is None else "replace", actual.file or "", text, reason, (WRITE, text)))
    switched: Dict[str, str] = {}
    for key, value in section["sysctls"]:
        now = _after(switched, key, actual.values[key])
        if now is None:
            # What belongs to an interface goes and comes back with it; systemd-udevd then applies the file.
            if not of_interface(key):
                problems.append(Problem("sysctl " + dotted(key), "this kernel does not know it; is the module or protocol turned off?"))
        elif now != value:
            changes.append(Change("sysctl " + dotted(key), "replace", now, value, "routing between pods needs it", (SET, key, value)))
            switched[key] = value
    return Plan(tuple(changes), tuple(problems), tuple(notes))


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """See :class:`_converge.Concern`."""
    failures: List[Problem] = []
    for change in plan.changes:
        what, argument = change.op[:2]
        try:
            if isinstance(change.op, _before.Op):
                if not failures:
                    _before.apply(change.op)
            elif what == WRITE:
                _files.write_atomic(FILE, argument.encode())
            elif what == SET:
                set_live(argument, change.op[2])
            elif what == REMOVE:
                _files.remove(argument)
        except KindnetError as e:
            failures.append(Problem(change.subject, str(e)))
    return tuple(failures)


def parse_key(key: Any) -> str:
    """The path below /proc/sys of a key in either notation of sysctl.d: net.ipv4.ip_forward, net/ipv6/conf/eth0.7/accept_ra."""
    text = key if isinstance(key, str) else repr(key)
    first = re.search(r"[./]", text)
    # As systemd-sysctl has it: after a first dot, dots separate and slashes are dots of a name.
    path = text.translate({ord("."): "/", ord("/"): "."}) if first and first.group() == "." else text
    parts = path.split("/")
    if len(parts) < 3 or parts[0] != "net" or not all(re.match(r"[A-Za-z0-9_@:.+-]+\Z", p) and p.strip(".") for p in parts):
        raise KindnetError("sysctls", text[:80], "is not a network setting", "Write a key below net, such as net.ipv4.ip_forward.")
    return path


def parse_value(key: str, value: Any) -> str:
    """One line of text, with blanks as the kernel's own output has them after :func:`live`."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or "\n" in str(value).strip() or not str(value).split():
        raise KindnetError("sysctls", "%s: %r" % (key, value), "is not a value", "Write a number, or one line of text.")
    return " ".join(str(value).split())


def dotted(path: str) -> str:
    """The usual notation of a key."""
    return path.translate({ord("."): "/", ord("/"): "."})


def of_interface(path: str) -> bool:
    """True of a setting that exists as long as its interface does."""
    return bool(re.match(r"net/ipv[46]/(conf|neigh)/(?!(all|default)/)", path))


def file_text(sysctls: Any) -> str:
    return HEAD + "".join("%s = %s\n" % (dotted(key), value) for key, value in sysctls)


def live(path: str) -> Optional[str]:
    """The kernel's value; None if it has no such setting."""
    try:
        with open(PROC + path, "rb") as f:
            return " ".join(f.read().decode().split())
    except FileNotFoundError:
        return None
    except OSError as e:
        raise KindnetError("sysctl " + dotted(path), e.strerror, "cannot be read", "Run as root.")


def set_live(path: str, value: str) -> None:
    try:
        with open(PROC + path, "wb", buffering=0) as f:
            f.write(value.encode())
    except FileNotFoundError:
        raise KindnetError("sysctl " + dotted(path), value, "is gone, this kernel no longer knows it", "Look what became of its interface or module.")
    except OSError as e:
        raise KindnetError(
            "sysctl " + dotted(path), value, "cannot be set (%s)" % e.strerror, "Run as root; in a container /proc/sys must be writable."
        )


def _plan_absent(actual: Actual) -> Plan:
    changes: List[Change] = []
    notes: List[str] = []
    before = actual.before or {}
    switched: Dict[str, str] = {}
    # Switches go first, so that accept_ra is never what it was while the host still forwards, and what they set anew comes after them.
    for key in sorted(before, key=lambda k: (k.endswith("/accept_ra"), _rank(k), k)):
        prior, ours, now = before[key]["before"], before[key]["ours"], actual.values.get(key)
        by_then = _after(switched, key, now)
        if now is not None and now == ours and prior != by_then:
            changes.append(Change("sysctl " + dotted(key), "replace", by_then or "", prior, "as it was before", (SET, key, prior)))
            switched[key] = prior
        elif now is not None and now not in (ours, prior):
            notes.append("%s: is %s and not ours (%s), left as it is" % (dotted(key), now, ours))
    if actual.file is not None and actual.file.startswith(HEAD):
        changes.append(Change(FILE, "remove", actual.file, "", "no setting of ours is left", (REMOVE, FILE)))
    elif actual.file is not None:
        notes.append("%s: is not as we wrote it, left as it is" % FILE)
    if before:
        op = _before.Op(_before.FORGET, SECTION, sorted(before))
        changes.append(Change(_before.FILE, "remove", _entries_text(before), "", "prior values are back", op))
    return _before.putting_back(Plan(tuple(changes), (), tuple(notes)), actual.priors)


def _rank(key: str) -> int:
    """accept_ra is set ahead of the switches, which would drop the route that it keeps, and everything else after them."""
    return 0 if key.endswith("/accept_ra") else 1 if key in SWITCHES else 2


def _set_by(switch: str, value: str, key: str) -> Optional[str]:
    """What the kernel makes of ``key`` when ``switch`` changes to ``value``; None: it leaves it."""
    conf = SWITCHES.get(switch)
    if conf is None or not key.startswith(conf):
        return None
    if key == ACCEPT_REDIRECTS:
        return "1" if value == "0" else "0"
    return value if key.endswith("/forwarding") and key != conf + "all/forwarding" else None


def _after(switched: Dict[str, str], key: str, now: Optional[str]) -> Optional[str]:
    """What ``key`` is once ``switched`` have been set."""
    for switch, value in switched.items():
        if now is not None:
            now = _set_by(switch, value, key) or now
    return now


def _following(switches: List[str]) -> Dict[str, str]:
    """The live values of what the kernel sets anew with ``switches``."""
    found: Dict[str, Optional[str]] = {}
    for conf in sorted({SWITCHES[switch] for switch in switches}):
        keys = ["%s%s/forwarding" % (conf, name) for name in _files.names_in(PROC + conf) or ()] + [ACCEPT_REDIRECTS]
        found.update((key, live(key)) for key in keys if any(_set_by(s, "1", key) for s in switches))
    return {key: value for key, value in found.items() if value is not None}


def _lost_with_switches(actual: Actual, wanted: Dict[str, str]) -> Dict[str, _before.Entry]:
    """What would not be as it is now when a switch is set back: the kernel knows one value for all."""
    lost: Dict[str, _before.Entry] = {}
    known = actual.before or {}
    for switch in SWITCHES:
        prior = actual.values.get(switch)
        if switch not in wanted or switch in known or prior is None:
            continue
        for key, now in (actual.following or {}).items():
            if key not in wanted and key not in known and _set_by(switch, prior, key) not in (None, now):
                lost[key] = {"before": now, "ours": _set_by(switch, wanted[switch], key)}
    return lost


def _remember(recorded: Dict[str, _before.Entry], entries: Dict[str, _before.Entry]) -> Change:
    return Change(
        _before.FILE,
        "replace" if recorded else "add",
        _entries_text(recorded),
        _entries_text(entries),
        "teardown brings prior values back",
        _before.Op(_before.REMEMBER, SECTION, entries),
    )


def _entries_text(entries: Dict[str, _before.Entry]) -> str:
    return ", ".join("%s was %s" % (dotted(k), entries[k]["before"]) for k in sorted(entries))


def _router_advertisements(recorded: Optional[Section]) -> List[Tuple[str, str]]:
    """accept_ra=2 for each interface that has a route by router advertisement.

    A host that forwards drops such a default route otherwise, and lets the other routes and addresses that came with it expire. For these
    interfaces alone: on a pod's veth, or as the default of new ones, it would let a pod give the host a default route.
    """
    keys = {key for key, value in (recorded or {}).get("sysctls", ()) if key.endswith("/accept_ra") and value == "2"}
    try:
        with open(IPV6_ROUTES) as f:
            routes = [line.split() for line in f]
    except FileNotFoundError:  # no IPv6 at all
        routes = []
    except OSError as e:
        raise KindnetError(IPV6_ROUTES, e.strerror, "cannot be read", "Run as root.")
    for route in routes:
        if len(route) == 10 and int(route[8], 16) & RTF_ADDRCONF:
            key = "net/ipv6/conf/%s/accept_ra" % route[9]
            # 0: somebody in user space, such as systemd-networkd, keeps the route, whether the host forwards or not. 2 may be of an earlier
            # converge, or of somebody who has not made it last.
            if live(key) in ("1", "2"):
                keys.add(key)
    return [(key, "2") for key in sorted(keys)]
