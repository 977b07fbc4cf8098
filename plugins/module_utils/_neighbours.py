# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern "neighbours": what else runs on a host and would take the pods' network apart: systemd-networkd, NetworkManager, firewalld, Docker.

Its section of desired.json, which a host that has none of them lacks::

    cluster_cidrs, lock_wait
    forward   [["nft", "ipv4"], ...]: filter tables in which packets of pods have to be accepted explicitly; a pass keeps these rules
    files     {path: text}: configuration of the daemons; a pass may not write there, and says so if one is gone
    folders   those made for these files
    left      neighbours that an operator wants to handle, by the name of the option

kindnetd has none of this: kind's nodes run nothing else.
"""

from __future__ import annotations

__metaclass__ = type

import os
import re
from collections import namedtuple

from . import _before, _files
from ._errors import Killed, KindnetError
from ._firewall import BACKENDS, LOCK
from ._plan import Change, Plan, Problem
from ._plan_chain import FAMILIES, FLAVOURS, Place, family_of
from ._plan_forward import accepted_by_others, drops, plan_forward, plan_forward_removal, remedy, subject_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Tuple, Union

    from ._converge import Section
    from ._daemons import Daemon
    from ._files import Found
    from ._plan_chain import Edit, Op
    from ._plan_forward import Forward

    class Actual(NamedTuple):
        forward: Dict[Place, Union[Optional[Forward], KindnetError]]
        files: Dict[str, Optional[Found]]
        folders: Dict[str, Optional[Tuple[str, ...]]]  # names in each folder that was made
        # None in a pass, which neither asks nor tells the daemons; what follows it is then empty, too.
        daemons: Optional[Dict[str, Daemon]]
        keeps_foreign_routes: bool  # systemd-networkd would, by configuration that is not ours
        policy: Union[FrozenSet[Tuple[str, str]], KindnetError, None]  # of ours, in force in firewalld; None unless that runs
        reload_due: bool  # NetworkManager has not read what an earlier run wrote
        pods: bool  # there are interfaces of pods
        accepted: FrozenSet[Tuple[str, str]] = frozenset()  # by policies of firewalld, whosever; looked at if an operator sees to that
        replaced: Optional[_before.Priors] = None  # what somebody has where we are about to write
        priors: Optional[_before.Priors] = None  # what was where we have nothing to write any more
else:
    Actual = namedtuple(
        "Actual",
        "forward files folders daemons keeps_foreign_routes policy reload_due pods accepted replaced priors",
        defaults=(frozenset(), None, None),
    )

SECTION = "neighbours"

# Of all files of a folder the last one by name wins.
NETWORKD_FILE = "/etc/systemd/networkd.conf.d/zz-kindnet.conf"
NETWORKMANAGER_FILE = "/etc/NetworkManager/conf.d/zz-kindnet.conf"
FIREWALLD_FILE = "/etc/firewalld/policies/kindnet.xml"
FILES = (NETWORKD_FILE, NETWORKMANAGER_FILE, FIREWALLD_FILE)
RELOAD_DUE = "/run/kindnet/networkmanager-reload"

MARK = "Written by kindnet.host."
HEAD = "# %s Undo: playbooks/teardown.yml.\n" % MARK
NETWORKD_TEXT = HEAD + "[Network]\n# Routes to the pods of other nodes are not systemd-networkd's, and not its to drop.\nManageForeignRoutes=no\n"
# The names that the CNI plugins give a pod's end on the host. NetworkManager knows no ranges.
VETH = re.compile(r"veth[0-9a-f]{8}\Z")
NETWORKMANAGER_TEXT = HEAD + "[keyfile]\nunmanaged-devices+=interface-name:veth????????\n"

NETWORKD, NETWORKMANAGER, FIREWALLD, FORWARD = "networkd", "networkmanager", "firewalld", "forward"
ITEMS = (NETWORKD, NETWORKMANAGER, FIREWALLD, FORWARD)
UNITS = {NETWORKD: "systemd-networkd", NETWORKMANAGER: "NetworkManager", FIREWALLD: "firewalld"}

# Not the name of ours: what an operator makes is the operator's.
ADVISED_POLICY = "allow-pods"

WRITE, REMOVE, REMOVE_FOLDER, RELOAD = "write", "remove", "remove folder", "reload"
LONGEST_LOCK_WAIT = 60


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """See :class:`_converge.Concern`. A host with no neighbour to handle gets the section of one that is taken out."""
    from . import _daemons
    from ._masq_options import cluster_networks

    lock_wait = params["lock_wait"]
    if not 1 <= lock_wait <= LONGEST_LOCK_WAIT:
        raise KindnetError("lock_wait", lock_wait, "is not between 1 and %d seconds" % LONGEST_LOCK_WAIT, "Leave it at 5.")
    folders = list((recorded or {}).get("folders", ()))
    if params["state"] == "absent":
        return {"state": "absent", "lock_wait": lock_wait, "folders": folders}
    cidrs = cluster_networks(params["cluster_cidrs"] or [])
    left = [item for item in ITEMS if not params["manage_" + item]]
    files = {}
    daemons = _daemons.look()
    if daemons[UNITS[NETWORKD]].used and NETWORKD not in left and not _keeps_foreign_routes():
        files[NETWORKD_FILE] = NETWORKD_TEXT
    if daemons[UNITS[NETWORKMANAGER]].used and NETWORKMANAGER not in left:
        files[NETWORKMANAGER_FILE] = NETWORKMANAGER_TEXT
    if daemons[UNITS[FIREWALLD]].used and FIREWALLD not in left:
        files[FIREWALLD_FILE] = policy_text(cidrs)
    for path in files:
        folders += [folder for folder in _files.missing_folders(os.path.dirname(path)) if folder not in folders]
    forward = [] if FORWARD in left else _places_that_drop(cidrs, recorded or {}, lock_wait)
    section: Section = {"cluster_cidrs": cidrs, "lock_wait": lock_wait, "folders": folders, "left": left, "files": files, "forward": forward}
    if not files and not forward:
        section["state"] = "absent"
    return section


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """See :class:`_converge.Concern`."""
    forward: Dict[Place, Union[Optional[Forward], KindnetError]] = {}
    for place in _places(section) if recorded is None else [Place(f, family) for f in FLAVOURS for family in FAMILIES]:
        backend = BACKENDS[place.flavour]
        if recorded is not None and place not in _places(section) and not backend.installed(place.family):
            continue
        try:
            forward[place] = backend.read_forward(place.family, section["lock_wait"])
        except KindnetError as e:
            forward[place] = e
    files = {path: _files.look(path) for path in (section["files"] if recorded is None else FILES)}
    if recorded is None:
        return Actual(forward, files, {}, None, False, None, False, False)
    from . import _daemons

    daemons = _daemons.look()
    policy: Union[FrozenSet[Tuple[str, str]], KindnetError, None] = None
    accepted: FrozenSet[Tuple[str, str]] = frozenset()
    if daemons[UNITS[FIREWALLD]].active:
        try:
            policy = _daemons.firewalld_policy()
            if FIREWALLD in section.get("left", ()):
                # Ours goes in this very run.
                accepted = _daemons.firewalld_accepts(_daemons.POLICY if _is_ours(files[FIREWALLD_FILE]) else "")
        except KindnetError as e:
            policy = e
    wanted = section.get("files", {})
    # One that was ours and is not as we wrote it was changed since, and is not what was there before us.
    others = [path for path in wanted if path not in recorded.get("files", {}) and files[path] is not None and not _is_ours(files[path])]
    return Actual(
        forward,
        files,
        {folder: _files.names_in(folder) for folder in section["folders"]},
        daemons,
        daemons[UNITS[NETWORKD]].used and _keeps_foreign_routes(),
        policy,
        os.path.exists(RELOAD_DUE),
        any(VETH.match(name) for name in _files.names_in("/sys/class/net") or ()),
        accepted,
        _before.unrecorded(others),
        _before.recorded([path for path in FILES if path not in wanted]),
    )


def plan(section: Section, actual: Actual) -> Plan:
    """See :class:`_converge.Concern`."""
    changes: List[Change] = []
    problems: List[Problem] = []
    if actual.daemons is None:
        problems += _missing_files(section, actual)
    else:
        file_changes = _plan_files(section, actual)
        changes += file_changes
        changes += _plan_reloads(section, actual, [change.subject for change in file_changes], problems)
    wanted = _places(section)
    for place, found in actual.forward.items():
        if isinstance(found, KindnetError):
            if place in wanted:
                problems.append(Problem(subject_of(place), str(found)))
        elif place in wanted:
            changes += plan_forward(place, section["cluster_cidrs"], found).changes
        else:
            changes += plan_forward_removal(place, found, "no rule of ours belongs here").changes
    if actual.daemons is None:
        return Plan(tuple(changes), tuple(problems))
    return _before.putting_back(Plan(tuple(changes), tuple(problems), _notes(section, actual), _details(section, actual)), actual.priors)


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """See :class:`_converge.Concern`."""
    failures: List[Problem] = []
    if any(change.op == (RELOAD, NETWORKMANAGER) for change in plan.changes):
        _files.write_atomic(RELOAD_DUE, b"")  # so that a run that is killed between file and reload is made up for
    flushed = False
    for change in plan.changes:
        try:
            if isinstance(change.op, _before.Op):
                if change.op.kind != _before.FORGET or not failures:
                    _before.apply(change.op)
                continue
            if isinstance(change.op[0], Place):
                _commit(section, change.op, flushed)
                continue
            what, argument = change.op
            if what == WRITE:
                _files.write_atomic(argument, section["files"][argument].encode())
            elif what == REMOVE:
                _files.remove(argument)
            elif what == REMOVE_FOLDER:
                _files.remove_folder(argument)
            elif what == RELOAD:
                flushed = flushed or argument == FIREWALLD
                _reload(argument, section)
        except KindnetError as e:
            failures.append(Problem(change.subject, str(e)))
    return tuple(failures)


def policy_text(cidrs: Sequence[str]) -> str:
    """A policy of firewalld about forwarded packets alone: it opens no port of the host, and leaves everybody's zones as they are."""
    rules = [
        '  <rule family="%s">\n    <%s address="%s"/>\n    <accept/>\n  </rule>\n' % (family_of(cidr), end, cidr)
        for cidr in cidrs
        for end in ("source", "destination")
    ]
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        "<!-- " + MARK + " Undo: playbooks/teardown.yml. -->\n"
        '<policy priority="-100" target="CONTINUE">\n'
        "  <short>kindnet</short>\n"
        "  <description>Packets from and to pods are forwarded.</description>\n"
        '  <ingress-zone name="ANY"/>\n'
        '  <egress-zone name="ANY"/>\n' + "".join(rules) + "</policy>\n"
    )


def policy_rules(cidrs: Sequence[str]) -> FrozenSet[Tuple[str, str]]:
    """What the policy of ``policy_text`` accepts, in the form of :func:`_daemons.firewalld_policy`."""
    return frozenset((end, cidr) for cidr in cidrs for end in ("source", "destination"))


def advice(item: str, cidrs: Sequence[str] = ()) -> str:
    """What is wrong with a neighbour as it is, and what to do about it by hand."""
    if item == NETWORKD:
        return (
            "drops routes that are not its own whenever it starts, those to the pods of other nodes included. "
            "Write ManageForeignRoutes=no into the section [Network] of a file in /etc/systemd/networkd.conf.d/"
        )
    if item == NETWORKMANAGER:
        return (
            "may configure the pods' interfaces, by DHCP even. "
            "Write unmanaged-devices+=interface-name:veth* into the section [keyfile] of a file in /etc/NetworkManager/conf.d/, "
            "and run 'nmcli general reload'"
        )
    rules = " and ".join("--add-rich-rule='rule family=%s %s address=%s accept'" % (family_of(c), end, c) for end, c in sorted(policy_rules(cidrs)))
    return (
        "rejects forwarded packets of pods. Make a policy with 'firewall-cmd --permanent --new-policy %s', give it --add-ingress-zone=ANY, "
        "--add-egress-zone=ANY and %s (each with --permanent --policy=%s), and run 'firewall-cmd --reload'" % (ADVISED_POLICY, rules, ADVISED_POLICY)
    )


def _plan_files(section: Section, actual: Actual) -> List[Change]:
    changes: List[Change] = list(_before.remembering(actual.replaced))
    wanted = section.get("files", {})
    for path in FILES:
        found = actual.files[path]
        if path in wanted and not _is(found, wanted[path]):
            action = "add" if found is None else "replace"
            changes.append(Change(path, action, _text(found), wanted[path], REASONS[path], (WRITE, path)))
        elif path not in wanted and _is_ours(found):
            changes.append(Change(path, "remove", _text(found), "", "nothing of ours is wanted there", (REMOVE, path)))
    removed = [change.subject for change in changes if change.action == "remove" and change.subject not in _known(actual)]
    if removed:
        touched = [folder for folder in section["folders"] if any(path.startswith(folder + "/") for path in removed)]
        for folder in _files.left_empty(touched, actual.folders, removed):
            changes.append(Change(folder, "remove", "empty folder", "", "it was made for these files", (REMOVE_FOLDER, folder)))
    return changes


REASONS = {
    # No restart: it reads this when it starts, and that is when it drops routes. A restart now would cost a host addresses that it has.
    NETWORKD_FILE: "systemd-networkd drops routes of others when it starts, and will read this then",
    NETWORKMANAGER_FILE: "NetworkManager is to leave the pods' interfaces alone",
    FIREWALLD_FILE: "firewalld rejects forwarded packets of pods",
}


def _plan_reloads(section: Section, actual: Actual, changed: Sequence[str], problems: List[Problem]) -> List[Change]:
    changes: List[Change] = []
    daemons = actual.daemons or {}
    if daemons[UNITS[NETWORKMANAGER]].active and (actual.reload_due or NETWORKMANAGER_FILE in changed) and not _would_take_pods(section, actual):
        before, after = "configuration as it was", "configuration as on disk"
        changes.append(Change("NetworkManager", "replace", before, after, "it reads its files when told to", (RELOAD, NETWORKMANAGER)))
    if isinstance(actual.policy, KindnetError):
        problems.append(Problem("firewalld", str(actual.policy)))
    elif actual.policy is not None:
        wanted = _wanted_policy(section)
        comes_back = not wanted and _comes_back(actual, FIREWALLD_FILE)
        found = actual.files[FIREWALLD_FILE]
        # Otherwise what is in force under this name is what a file of somebody else's says.
        ours = bool(wanted) or found is None or _is_ours(found)
        if comes_back or ours and actual.policy != wanted:
            after = "as it was before" if comes_back else _policy_shown(wanted)
            action = "remove" if not after else "replace" if actual.policy else "add"
            reason = "firewalld reads its files when told to"
            changes.append(Change("firewalld policy kindnet", action, _policy_shown(actual.policy), after, reason, (RELOAD, FIREWALLD)))
    return changes


def _would_take_pods(section: Section, actual: Actual) -> bool:
    """Told that it may have them again, NetworkManager flushes the addresses of interfaces that it finds without a connection of its own."""
    return actual.pods and NETWORKMANAGER_FILE not in section.get("files", {})


def _reload(item: str, section: Section) -> None:
    from . import _daemons

    if item == NETWORKMANAGER:
        _daemons.reload_networkmanager()
        _files.remove(RELOAD_DUE)
        return
    _daemons.reload_firewalld()
    _lay_masquerade_anew()
    wanted = _wanted_policy(section)
    if wanted and _daemons.firewalld_policy() != wanted:
        raise KindnetError(
            "firewalld",
            "policy kindnet",
            "is not in force although firewalld has read its files",
            "See 'journalctl -u firewalld'. Policies need firewalld 0.9 or newer; with an older one set kindnet_manage_firewalld: false.",
        )


def _lay_masquerade_anew() -> None:
    """firewalld has just flushed it with all that is in the tables of iptables. The next pass would do it; pods need not wait for that."""
    from . import _desired, _masq

    section = _desired.load().sections.get(_masq.SECTION)
    if section is not None and "cluster_cidrs" in section:
        _masq.apply(section, _masq.plan(section, _masq.read(section, None)))


def _commit(section: Section, op: Op, flushed: bool) -> None:
    place, edits = op
    if flushed:  # firewalld empties the tables of iptables when it reloads, so the plan is about rules that are gone
        edits = _edits_now(section, place)
        if not edits:
            return
    try:
        BACKENDS[place.flavour].commit(place.family, edits, section["lock_wait"], "filter")
    except Killed as e:
        try:
            is_done = not _edits_now(section, place)
        except KindnetError:
            is_done = False
        if not is_done:
            raise e


def _edits_now(section: Section, place: Place) -> Tuple[Edit, ...]:
    found = BACKENDS[place.flavour].read_forward(place.family, section["lock_wait"])
    wanted = place in _places(section)
    now = plan_forward(place, section["cluster_cidrs"], found) if wanted else plan_forward_removal(place, found, "")
    return now.changes[0].op.edits if now.changes else ()


def _missing_files(section: Section, actual: Actual) -> List[Problem]:
    return [
        Problem(path, "is %s. Run playbooks/kindnet.yml against this host; a pass may not write there." % ("gone" if found is None else "changed"))
        for path, found in actual.files.items()
        if not _is(found, section["files"][path])
    ]


def _notes(section: Section, actual: Actual) -> Tuple[str, ...]:
    """What an operator wanted to see to, and has not."""
    notes: List[str] = []
    left = section.get("left", ())
    cidrs = section.get("cluster_cidrs", ())
    daemons = actual.daemons or {}
    if NETWORKD in left and daemons[UNITS[NETWORKD]].used and not actual.keeps_foreign_routes:
        notes.append("systemd-networkd %s" % advice(NETWORKD))
    if NETWORKMANAGER in left and daemons[UNITS[NETWORKMANAGER]].used:
        notes.append("NetworkManager %s" % advice(NETWORKMANAGER))
    if FIREWALLD in left and daemons[UNITS[FIREWALLD]].used and not policy_rules(cidrs) <= actual.accepted:
        notes.append("firewalld %s" % advice(FIREWALLD, cidrs))
    if _is_ours(actual.files[NETWORKMANAGER_FILE]) and daemons[UNITS[NETWORKMANAGER]].active and _would_take_pods(section, actual):
        notes.append("NetworkManager is not told that it may have the interfaces of pods again, as there are some; it will read so when it starts anew")
    for path, there in actual.files.items():
        if not cidrs and there is not None and not _is_ours(there) and path not in _known(actual):
            notes.append("%s: is not as we wrote it, left as it is" % path)
    for place, found in actual.forward.items():
        if place in _places(section) or not cidrs:
            continue
        if isinstance(found, KindnetError):
            notes.append("%s: cannot tell whether it drops packets of pods: %s" % (subject_of(place), found))
        elif found is not None and FORWARD in left and _needs_rules(place, cidrs, found):
            notes.append("%s: packets of pods are dropped. Add, so that it lasts: %s" % (subject_of(place), remedy(place, cidrs, found)))
    return tuple(notes)


def _details(section: Section, actual: Actual) -> Dict[str, str]:
    """The neighbours that are here, and what becomes of them."""
    details: Dict[str, str] = {}
    left = section.get("left", ())
    cidrs = section.get("cluster_cidrs", ())
    daemons = actual.daemons or {}
    for item, unit in UNITS.items():
        if daemons[unit].used:
            details[item] = "handled" if cidrs and item not in left else "left alone"
    for place, found in actual.forward.items():
        if found is not None and not isinstance(found, KindnetError) and drops(found):
            if place in _places(section):
                details[FORWARD] = "handled"
            elif _needs_rules(place, cidrs, found):
                details[FORWARD] = "left alone"
    return details


def _places(section: Section) -> List[Place]:
    return [Place(flavour, family) for flavour, family in section.get("forward", ())]


def _places_that_drop(cidrs: Sequence[str], recorded: Section, lock_wait: int) -> List[List[str]]:
    """Filter tables in which packets of pods need rules of their own, or once did: Docker need not have started yet."""
    places: List[List[str]] = []
    for flavour in FLAVOURS:
        for family in FAMILIES:
            if not any(family_of(cidr) == family for cidr in cidrs):
                continue
            if [flavour, family] in recorded.get("forward", ()):
                places.append([flavour, family])
                continue
            if not BACKENDS[flavour].installed(family):
                continue
            try:
                found = BACKENDS[flavour].read_forward(family, lock_wait)
            except KindnetError as e:
                if e.field == LOCK:
                    raise
                continue  # a table that iptables cannot read; a note says so
            if found is not None and _needs_rules(Place(flavour, family), cidrs, found):
                places.append([flavour, family])
    return places


def _needs_rules(place: Place, cidrs: Sequence[str], found: Forward) -> bool:
    mine = [cidr for cidr in cidrs if family_of(cidr) == place.family]
    return bool(mine) and drops(found) and not accepted_by_others(found, mine)


def _wanted_policy(section: Section) -> FrozenSet[Tuple[str, str]]:
    return policy_rules(section["cluster_cidrs"]) if FIREWALLD_FILE in section.get("files", {}) else frozenset()


def _policy_shown(policy: FrozenSet[Tuple[str, str]]) -> str:
    return ", ".join("%s %s" % rule for rule in sorted(policy))


def _keeps_foreign_routes() -> bool:
    from . import _daemons

    ours = _is_ours(_files.look(NETWORKD_FILE))
    return _daemons.is_no(_daemons.networkd_setting("ManageForeignRoutes", NETWORKD_FILE if ours else ""))


def _known(actual: Actual) -> Dict[str, _before.Image]:
    """What was there before us, of the files that are wanted no more."""
    return actual.priors.known if actual.priors else {}


def _comes_back(actual: Actual, path: str) -> bool:
    """Whether what was there before us does, or has in a run that was cut off before it was told."""
    known = _known(actual)
    return path in known and (_is_ours(actual.files[path]) or bool(actual.priors and actual.priors.now[path] == known[path]))


def _is_ours(found: Optional[Found]) -> bool:
    return found is not None and found.kind == "file" and MARK.encode() in found.content


def _is(found: Optional[Found], text: str) -> bool:
    return found is not None and found.kind == "file" and found.content == text.encode()


def _text(found: Optional[Found]) -> str:
    if found is None:
        return ""
    return found.content.decode("utf-8", "replace") if found.kind == "file" else found.kind
