# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The concern ``neighbours``: what a host's daemons and filter tables make of it. The host is a table; a write that no test allowed is an error."""

from __future__ import annotations

import re

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _before, _daemons, _files, _neighbours
from ansible_collections.kindnet.host.plugins.module_utils._daemons import Daemon
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._neighbours import FIREWALLD_FILE, NETWORKD_FILE, NETWORKMANAGER_FILE
from ansible_collections.kindnet.host.plugins.module_utils._plan_forward import Forward, wanted_rules

CIDR = "10.244.0.0/16"
ON, OFF, NEXT_BOOT = Daemon(True, True), Daemon(False, False), Daemon(False, True)
POLICY = frozenset({("source", CIDR), ("destination", CIDR)})


class Host:
    """What the concern sees and does, in memory."""

    def __init__(self):
        self.daemons = {"systemd-networkd": OFF, "NetworkManager": OFF, "firewalld": OFF}
        self.networkd = ""
        self.policies = {}  # in force, by name: what each accepts
        self.before = {}  # what is recorded to have been at a path
        self.tables = {}  # (flavour, family) -> Forward or KindnetError
        self.files = {}
        self.folders = {"/etc/systemd", "/etc/NetworkManager/conf.d", "/etc/firewalld/policies", "/run/kindnet"}
        self.done = []
        self.interfaces = {"lo", "eth0"}
        self.params = {
            "state": "present",
            "cluster_cidrs": [CIDR],
            "lock_wait": 5,
            "manage_networkd": True,
            "manage_networkmanager": True,
            "manage_firewalld": True,
            "manage_forward": True,
        }

    @property
    def policy(self):
        return self.policies.get("kindnet", frozenset())

    @policy.setter
    def policy(self, rules):
        self.policies["kindnet"] = rules

    def write(self, path, content, *owner_and_mode):
        self.files[path] = content.decode()
        self.done.append("write " + path)

    def remember(self, group, things):
        assert group == _before.FILES
        for path, entry in things.items():
            self.before.setdefault(path, entry)
            self.done.append("remember " + path)

    def forget(self, group, things):
        assert group == _before.FILES
        for path in things:
            del self.before[path]
            self.done.append("forget " + path)

    def remove(self, path):
        self.files.pop(path, None)
        self.done.append("remove " + path)

    def reload_firewalld(self):
        self.done.append("reload firewalld")
        self.policies = {}
        for path, text in self.files.items():
            if path.startswith("/etc/firewalld/policies/"):
                name = path.rpartition("/")[2].partition(".")[0]
                self.policies[name] = frozenset(re.findall(r'<(source|destination) address="([^"]+)"', text))

    def look(self, path):
        return _files.Found("file", self.files[path].encode(), 0o644, 0, 0) if path in self.files else None

    def names_in(self, folder):
        if folder == "/sys/class/net":
            return tuple(self.interfaces)
        return tuple(path.rpartition("/")[2] for path in self.files if path.startswith(folder + "/"))

    def backend(self, flavour):
        host = self

        class Backend:
            def installed(self, family):
                return True

            def read_forward(self, family, lock_wait):
                found = host.tables.get((flavour, family))
                if isinstance(found, KindnetError):
                    raise found
                return found

            def commit(self, family, edits, lock_wait, table):
                assert table == "filter"
                host.done.append("%s %s %s" % (flavour, family, " ".join(e.verb for e in edits)))

        return Backend()

    def plan(self, recorded=None, **params):
        """Section and plan of a run of the module."""
        section = _neighbours.resolve(dict(self.params, **params), recorded)
        return section, _neighbours.plan(section, _neighbours.read(section, recorded or {}))

    def run(self, recorded=None, **params):
        section, plan = self.plan(recorded, **params)
        _before.remember_all(plan)
        assert _neighbours.apply(section, plan) == ()
        return section, plan


@pytest.fixture
def host(monkeypatch):
    host = Host()
    monkeypatch.setattr(_daemons, "look", lambda: host.daemons)
    monkeypatch.setattr(_daemons, "networkd_setting", lambda key, without="": host.networkd)
    monkeypatch.setattr(_daemons, "firewalld_policy", lambda: host.policy)
    monkeypatch.setattr(_daemons, "firewalld_accepts", lambda but="": frozenset().union(*(rules for name, rules in host.policies.items() if name != but)))
    monkeypatch.setattr(_before, "load", lambda group: dict(host.before))
    monkeypatch.setattr(_before, "remember", host.remember)
    monkeypatch.setattr(_before, "forget", host.forget)
    monkeypatch.setattr(_daemons, "reload_firewalld", host.reload_firewalld)
    monkeypatch.setattr(_daemons, "reload_networkmanager", lambda: host.done.append("reload NetworkManager"))
    monkeypatch.setattr(_neighbours, "_lay_masquerade_anew", lambda: host.done.append("masquerade"))
    monkeypatch.setattr(_neighbours, "BACKENDS", {flavour: host.backend(flavour) for flavour in ("nft", "legacy")})
    monkeypatch.setattr(_neighbours.os.path, "exists", lambda path: path in host.files)
    monkeypatch.setattr(_files, "look", host.look)
    monkeypatch.setattr(_files, "write_atomic", host.write)
    monkeypatch.setattr(_files, "remove", host.remove)
    monkeypatch.setattr(_files, "remove_folder", lambda path: host.done.append("rmdir " + path))
    monkeypatch.setattr(_files, "missing_folders", lambda folder: [] if folder in host.folders else [folder])
    monkeypatch.setattr(_files, "names_in", host.names_in)
    return host


def subjects(plan):
    return [change.subject for change in plan.changes]


def test_a_host_without_neighbours_is_not_changed_and_records_nothing(host):
    section, plan = host.run()
    assert (section["state"], plan.changes, plan.problems, plan.notes, plan.details, host.done) == ("absent", (), (), (), {}, [])


@pytest.mark.parametrize("state", [ON, NEXT_BOOT])
def test_networkd_gets_a_file_and_is_not_told(host, state):
    host.daemons["systemd-networkd"] = state
    section, plan = host.run()
    assert host.done == ["write " + NETWORKD_FILE] and "\nManageForeignRoutes=no\n" in host.files[NETWORKD_FILE]
    assert "ManageForeignRoutingPolicyRules" not in host.files[NETWORKD_FILE]
    assert (section["folders"], plan.details) == (["/etc/systemd/networkd.conf.d"], {"networkd": "handled"})
    assert host.plan(section)[1].changes == ()
    assert host.plan(section)[0] == section


def test_networkd_that_keeps_foreign_routes_already_is_left_alone(host):
    host.daemons["systemd-networkd"], host.networkd = ON, "no"
    assert host.run()[1].changes == ()


def test_networkmanager_is_told_only_if_it_runs(host):
    host.daemons["NetworkManager"] = NEXT_BOOT
    section, _plan = host.run()
    assert host.done == ["write " + NETWORKMANAGER_FILE] and "\nunmanaged-devices+=" in host.files[NETWORKMANAGER_FILE]
    host.daemons["NetworkManager"] = ON
    assert host.plan(section)[1].changes == ()


def test_networkmanager_is_told_after_a_run_that_was_killed_before_it_did(host):
    host.daemons["NetworkManager"] = ON
    section, _plan = host.run()
    mark = _neighbours.RELOAD_DUE
    assert host.done == ["write " + mark, "write " + NETWORKMANAGER_FILE, "reload NetworkManager", "remove " + mark]
    host.files[mark] = ""
    assert subjects(host.plan(section)[1]) == ["NetworkManager"]


@pytest.mark.parametrize("interface, told", [("veth0a1b2c3d", False), ("veth-lan", True), ("vethuplink", True)])
def test_networkmanager_is_not_told_to_take_interfaces_of_pods_that_run(host, interface, told):
    host.daemons["NetworkManager"] = ON
    host.interfaces.add(interface)
    recorded, _plan = host.run()
    assert "reload NetworkManager" in host.done  # to leave them alone it is told in any case
    host.done.clear()
    _section, plan = host.run(recorded, state="absent")
    assert NETWORKMANAGER_FILE not in host.files
    assert ("reload NetworkManager" in host.done, plan.notes == ()) == (told, told)
    assert host.plan(None, state="absent")[1].changes == host.plan(None, state="absent")[1].notes == ()


def test_firewalld_gets_a_policy_and_is_reloaded_until_it_is_in_force(host):
    host.daemons["firewalld"] = ON
    section, plan = host.run()
    assert host.done == ["write " + FIREWALLD_FILE, "reload firewalld", "masquerade"]
    assert subjects(plan) == [FIREWALLD_FILE, "firewalld policy kindnet"]
    assert host.plan(section)[1].changes == ()
    host.policy = frozenset({("source", CIDR)})
    assert [(c.subject, c.action) for c in host.plan(section)[1].changes] == [("firewalld policy kindnet", "replace")]


def test_a_policy_that_does_not_come_into_force_is_a_problem(host, monkeypatch):
    host.daemons["firewalld"] = ON
    monkeypatch.setattr(_daemons, "reload_firewalld", lambda: None)
    section, plan = host.plan()
    (problem,) = _neighbours.apply(section, plan)
    assert "not in force" in problem.message and "kindnet_manage_firewalld" in problem.message


def test_a_firewalld_that_does_not_answer_costs_nobody_else(host, monkeypatch):
    host.daemons.update({"firewalld": ON, "systemd-networkd": ON})

    def broken():
        raise KindnetError("busctl", "exit code 1", "failed", "Run it by hand.")

    monkeypatch.setattr(_daemons, "firewalld_policy", broken)
    _section, plan = host.plan()
    assert [p.subject for p in plan.problems] == ["firewalld"] and NETWORKD_FILE in subjects(plan)


def test_what_drops_is_recorded_and_stays_so(host):
    host.tables["nft", "ipv4"] = Forward("DROP", ())
    host.tables["legacy", "ipv6"] = Forward("DROP", ())  # no cluster CIDR is IPv6
    section, plan = host.run()
    assert (section["forward"], plan.details) == ([["nft", "ipv4"]], {"forward": "handled"})
    assert host.done == ["nft ipv4 append append"]
    host.tables["nft", "ipv4"] = None  # after a reboot, Docker not yet there
    again, plan = host.plan(section)
    assert again == section and plan.changes == ()


def test_a_pass_keeps_the_rules_and_asks_no_daemon(host, monkeypatch):
    host.tables["nft", "ipv4"] = Forward("DROP", ())
    section, _plan = host.run()
    monkeypatch.setattr(_daemons, "look", lambda: pytest.fail("asked"))
    assert subjects(_neighbours.plan(section, _neighbours.read(section, None))) == ["iptables-nft rules filter/FORWARD of pods"]
    host.tables["nft", "ipv4"] = Forward("DROP", wanted_rules([CIDR]))
    assert _neighbours.plan(section, _neighbours.read(section, None)).changes == ()
    host.tables["nft", "ipv4"] = KindnetError("lock", "5 s", "held", "Try again.")
    (problem,) = _neighbours.plan(section, _neighbours.read(section, None)).problems
    assert "held" in problem.message


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_pass_reports_a_file_and_writes_none(host, damage):
    host.daemons["systemd-networkd"] = ON
    section, _plan = host.run()
    if damage == "gone":
        del host.files[NETWORKD_FILE]
    else:
        host.files[NETWORKD_FILE] += "#"
    plan = _neighbours.plan(section, _neighbours.read(section, None))
    assert plan.changes == () and [p.subject for p in plan.problems] == [NETWORKD_FILE]
    assert plan.problems[0].message.startswith("is %s. Run playbooks/kindnet.yml" % damage)


def test_what_others_accept_needs_no_rules(host):
    host.tables["nft", "ipv4"] = Forward("DROP", ("-s %s -j ACCEPT" % CIDR, "-d %s -j ACCEPT" % CIDR))
    section, plan = host.run()
    assert section["state"] == "absent" and plan.changes == () and plan.details == {}


def test_a_table_that_iptables_cannot_read_is_told_and_fails_nobody(host):
    host.tables["nft", "ipv4"] = KindnetError("iptables-nft", "x", "holds rules made by nft itself", "Look.")
    section, plan = host.plan()
    assert section["state"] == "absent" and not plan.problems and "cannot tell" in plan.notes[0]


def test_a_lock_that_is_held_is_a_failure_and_not_a_table_that_drops_nothing(host):
    host.tables["nft", "ipv4"] = KindnetError(_neighbours.LOCK, "5 s", "held", "Try again.")
    with pytest.raises(KindnetError, match="held"):
        host.plan()


OPT_OUTS = {
    "networkd": ("systemd-networkd", "ManageForeignRoutes=no"),
    "networkmanager": ("NetworkManager", "unmanaged-devices+="),
    "firewalld": ("firewalld", "--new-policy allow-pods"),
    "forward": (None, "iptables-nft -I FORWARD -s 10.244.0.0/16 -j ACCEPT"),
}


@pytest.mark.parametrize("item", OPT_OUTS)
def test_opted_out_is_reported_with_the_remedy_and_what_was_done_is_undone(host, item):
    unit, remedy = OPT_OUTS[item]
    if unit:
        host.daemons[unit] = ON
    else:
        host.tables["nft", "ipv4"] = Forward("DROP", ())
    out = {"manage_" + item: False}
    section, plan = host.run(**out)
    assert section["state"] == "absent" and plan.changes == () and host.done == []
    assert len(plan.notes) == 1 and remedy in plan.notes[0]
    assert plan.details == {item: "left alone"}

    recorded, _plan = host.run()
    assert host.done
    if not unit:
        host.tables["nft", "ipv4"] = Forward("DROP", wanted_rules([CIDR]))
    _section, plan = host.run(recorded, **out)
    assert plan.changes and {c.action for c in plan.changes} <= {"remove", "replace"}
    assert not set(_neighbours.FILES) & set(host.files) and host.policy == frozenset()


def operators_policy(advice):
    """The name and the text of the policy that ``advice`` has an operator make, as firewall-cmd writes it."""
    (name,) = re.findall(r"--new-policy (\S+?)'", advice)
    assert "--policy=%s)" % name in advice and "--add-ingress-zone=ANY" in advice and "--add-egress-zone=ANY" in advice
    rules = re.findall(r"'rule family=(\S+) (source|destination) address=(\S+) accept'", advice)
    text = "".join('<rule family="%s"><%s address="%s"/><accept/></rule>' % rule for rule in rules)
    return name, '<policy target="CONTINUE"><ingress-zone name="ANY"/><egress-zone name="ANY"/>%s</policy>' % text


@pytest.mark.parametrize("name", ["", "kindnet"])  # as advised, and in our place
def test_the_policy_that_an_operator_makes_as_told_stays(host, name):
    host.daemons["firewalld"] = ON
    _section, plan = host.run(manage_firewalld=False)
    advised, text = operators_policy(plan.notes[0])
    path = "/etc/firewalld/policies/%s.xml" % (name or advised)
    assert path != FIREWALLD_FILE or name
    host.files[path] = text
    host.reload_firewalld()
    host.done.clear()
    before = dict(host.files), dict(host.policies)
    for params in ({"manage_firewalld": False}, {"state": "absent"}):
        _section, plan = host.run(**params)
        assert (plan.changes, host.done, (host.files, host.policies)) == ((), [], before)
    assert host.plan(manage_firewalld=False)[1].notes == ()

    # It comes back after ours was in its place.
    recorded, _plan = host.run()
    assert "Written by kindnet.host" in host.files[FIREWALLD_FILE]
    assert host.plan(recorded)[1].changes == ()
    host.run(recorded, state="absent")
    assert (host.files, host.policies, host.before) == (*before, {})
    assert host.plan(None, state="absent")[1].changes == ()


def test_a_policy_that_does_less_is_not_enough(host):
    host.daemons["firewalld"] = ON
    host.policies["somebody"] = frozenset({("source", CIDR)})
    assert "rejects forwarded packets" in host.plan(manage_firewalld=False)[1].notes[0]


THEIRS = {NETWORKD_FILE: "[Network]\nSpeedMeter=yes\n", NETWORKMANAGER_FILE: "[main]\ndns=none\n", FIREWALLD_FILE: "<policy/>\n"}


def test_files_of_somebody_else_in_our_places(host):
    host.files.update(THEIRS)
    section, plan = host.run(state="absent")
    assert (plan.changes, host.files) == ((), THEIRS) and len(plan.notes) == 3
    assert all(path in " ".join(plan.notes) for path in THEIRS)
    assert host.run()[1].changes == ()  # no daemon needs one of ours

    host.daemons.update({"systemd-networkd": ON, "NetworkManager": ON, "firewalld": ON})
    recorded, _plan = host.run()
    assert all("Written by kindnet.host" in text for text in host.files.values())
    host.files[NETWORKD_FILE] += "# by hand"  # ours still, and not what was there before
    host.run(recorded)
    assert {path: entry["before"]["text"] for path, entry in host.before.items()} == THEIRS
    host.files[NETWORKMANAGER_FILE] = "[main]\ndns=default\n"  # somebody else's by now
    _section, plan = host.run(recorded, state="absent")
    assert host.files == dict(THEIRS, **{NETWORKMANAGER_FILE: "[main]\ndns=default\n"}) and host.before == {}
    assert host.done[-3:] == ["forget " + path for path in sorted(THEIRS)]


def test_a_run_that_was_cut_off_when_files_came_back_is_made_up_for(host):
    host.daemons["firewalld"] = ON
    host.files[FIREWALLD_FILE] = THEIRS[FIREWALLD_FILE]
    recorded, _plan = host.run()
    host.files[FIREWALLD_FILE] = THEIRS[FIREWALLD_FILE]
    host.done.clear()
    host.run(state="absent")
    assert host.done == ["reload firewalld", "masquerade", "forget " + FIREWALLD_FILE] and host.policy == frozenset()


def test_networkd_is_let_alone_by_what_somebody_has_in_our_place(host, monkeypatch):
    host.daemons["systemd-networkd"] = ON
    host.files[NETWORKD_FILE] = "[Network]\nManageForeignRoutes=no\n"
    monkeypatch.setattr(_daemons, "networkd_setting", lambda key, without="": "" if without == NETWORKD_FILE else "no")
    assert host.run()[1].changes == () and host.run(manage_networkd=False)[1].notes == ()


def test_absent_takes_all_out_and_only_folders_that_were_made(host):
    host.daemons.update({"systemd-networkd": ON, "NetworkManager": ON, "firewalld": ON})
    host.tables["nft", "ipv4"] = Forward("DROP", ())
    recorded, _plan = host.run()
    host.tables["nft", "ipv4"] = Forward("DROP", wanted_rules([CIDR]))
    host.tables["legacy", "ipv6"] = Forward("ACCEPT", wanted_rules(["fd00::/64"]))
    host.done.clear()
    section, plan = host.run(recorded, state="absent")
    assert plan.notes == () and host.files == {} and host.policy == frozenset()
    assert [d for d in host.done if d.startswith("rmdir")] == ["rmdir /etc/systemd/networkd.conf.d"]
    assert [d for d in host.done if "delete" in d] == ["nft ipv4 delete delete", "legacy ipv6 delete delete"]
    host.tables.clear()
    assert host.plan(None, state="absent")[1].changes == ()


@pytest.mark.parametrize("bad", [{"lock_wait": 0}, {"lock_wait": 61}, {"cluster_cidrs": []}, {"cluster_cidrs": ["10.244.0.1/16"]}])
def test_bad_input(host, bad):
    with pytest.raises(KindnetError):
        host.plan(**bad)


CONFIG = """# /etc/systemd/networkd.conf
[Network]
#ManageForeignRoutes=yes
%s

[DHCPv4]
ManageForeignRoutes=no

# /etc/systemd/networkd.conf.d/50-x.conf
%s
# /etc/systemd/networkd.conf.d/zz-kindnet.conf
# Written by kindnet.host.
[Network]
ManageForeignRoutes=no
"""


@pytest.mark.parametrize(
    "main, drop_in, without, expected",
    [
        ("", "", "", "no"),
        ("", "", NETWORKD_FILE, ""),
        ("ManageForeignRoutes = false", "", NETWORKD_FILE, "false"),
        ("ManageForeignRoutes=no", "[Network]\nManageForeignRoutes=yes", NETWORKD_FILE, "yes"),
        ("ManageForeignRoutes=no", "ManageForeignRoutes=yes", NETWORKD_FILE, "no"),  # in no section
    ],
)
def test_networkd_setting(main, drop_in, without, expected):
    assert _daemons.setting_of(CONFIG % (main, drop_in), "ManageForeignRoutes", without) == expected


@pytest.mark.parametrize("value, expected", [("no", True), ("False", True), ("0", True), ("off", True), ("yes", False), ("", False)])
def test_is_no(value, expected):
    assert _daemons.is_no(value) is expected


UNITS = """Id=systemd-networkd.service
LoadState=loaded
ActiveState=%s
UnitFileState=%s

Id=NetworkManager.service
LoadState=not-found
ActiveState=inactive
UnitFileState=

Id=firewalld.service
LoadState=masked
ActiveState=inactive
UnitFileState=masked
"""


@pytest.mark.parametrize(
    "active, unit_file, expected",
    [
        ("active", "disabled", ON),
        ("activating", "enabled", ON),
        ("inactive", "enabled", NEXT_BOOT),
        ("failed", "enabled-runtime", NEXT_BOOT),
        ("inactive", "disabled", OFF),
    ],
)
def test_which_daemons_a_host_has(monkeypatch, active, unit_file, expected):
    monkeypatch.setattr(_daemons.os.path, "isdir", lambda path: True)
    monkeypatch.setattr(_daemons._systemd, "systemctl", lambda *arguments: UNITS % (active, unit_file))
    assert _daemons.look() == {"systemd-networkd": expected, "NetworkManager": OFF, "firewalld": OFF}


def test_without_systemd_there_is_none(monkeypatch):
    monkeypatch.setattr(_daemons.os.path, "isdir", lambda path: False)
    assert set(_daemons.look().values()) == {OFF}


RUNTIME = (
    '{"type":"a{sv}","data":[{"target":{"type":"s","data":"CONTINUE"},"rich_rules":{"type":"as","data":['
    '"rule family=\\"ipv4\\" source address=\\"10.244.0.0/16\\" accept","rule family=\\"ipv4\\" destination address=\\"10.244.0.0/16\\" accept",'
    '"rule service name=\\"ssh\\" accept"]},"ingress_zones":{"type":"as","data":["%s"]},"egress_zones":{"type":"as","data":["ANY"]}}]}'
)


@pytest.mark.parametrize("zone, expected", [("ANY", POLICY), ("public", frozenset())])
def test_policy_in_force(monkeypatch, zone, expected):
    answers = {"getPolicies": '{"type":"as","data":[["allow-host-ipv6","kindnet"]]}', "getPolicySettings": RUNTIME % zone}
    monkeypatch.setattr(_daemons._systemd, "run", lambda *command: answers[command[6]])
    assert _daemons.firewalld_policy() == expected


def test_no_policy_in_force(monkeypatch):
    monkeypatch.setattr(_daemons._systemd, "run", lambda *command: '{"type":"as","data":[["allow-host-ipv6"]]}')
    assert _daemons.firewalld_policy() == frozenset()


@pytest.mark.parametrize("said, old", [("Call failed: Unknown interface org.fedoraproject.FirewallD1.policy", True), ("Call failed: Access denied", False)])
def test_a_firewalld_without_policies(monkeypatch, said, old):
    def failing(*command):
        raise KindnetError("busctl", "exit code 1", "failed; it said: " + said, "Run it by hand on the host.")

    monkeypatch.setattr(_daemons._systemd, "run", failing)
    if old:
        assert _daemons.firewalld_policy() == frozenset()
    else:
        with pytest.raises(KindnetError, match="Access denied"):
            _daemons.firewalld_policy()
