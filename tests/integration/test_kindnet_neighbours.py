# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_neighbours as root in namespaces: two pods and a host between them whose FORWARD drops. The oracle is packets, iptables-save and the files.

What needs a daemon that runs is the Molecule scenario of the same name.
"""

from __future__ import annotations

import functools
import json
import os
import re

import pytest
from nat_sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

FLAVOURS = ("nft", "legacy")
TOOLS = ("iptables", "ip6tables")
CIDRS = ["10.244.0.0/16", "fd00:10:244::/56"]
CIDR_OF = dict(zip(TOOLS, CIDRS))
MARK = '-m comment --comment "kindnet.host: packets from and to pods are forwarded" -j ACCEPT'

# Two pods and two that are none, all of them behind this host.
PODS = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
end() { # name, IPv4 net, IPv6 net
  ip netns add $1
  ip netns exec $1 sysctl -qw net.ipv6.conf.default.accept_dad=0
  ip link add name $1 type veth peer name eth0 netns $1
  ip link set $1 up; ip address add $2.1/24 dev $1; ip -6 address add $3::1/64 dev $1 nodad
  ip -n $1 link set eth0 up; ip -n $1 address add $2.2/24 dev eth0; ip -n $1 -6 address add $3::2/64 dev eth0 nodad
  ip -n $1 route add default via $2.1; ip -n $1 -6 route add default via $3::1
}
end pod1 10.244.1 fd00:10:244:1
end pod2 10.244.2 fd00:10:244:2
end out1 192.0.2 2001:db8
end out2 198.51.100 2001:db8:1
"""
ADDRESS = {
    "pod1": ("10.244.1.2", "fd00:10:244:1::2"),
    "pod2": ("10.244.2.2", "fd00:10:244:2::2"),
    "out1": ("192.0.2.2", "2001:db8::2"),
    "out2": ("198.51.100.2", "2001:db8:1::2"),
}

# As dockerd does when it finds forwarding off.
DOCKER = """
{t} -N DOCKER; {t} -N DOCKER-ISOLATION-STAGE-1; {t} -N DOCKER-ISOLATION-STAGE-2
{t} -A DOCKER-ISOLATION-STAGE-1 -j RETURN; {t} -A DOCKER-ISOLATION-STAGE-2 -j RETURN
{t} -P FORWARD DROP
{t} -I FORWARD -o docker0 -j DOCKER; {t} -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{t} -I FORWARD -i docker0 ! -o docker0 -j ACCEPT; {t} -I FORWARD -i docker0 -o docker0 -j ACCEPT
{t} -I FORWARD -j DOCKER-ISOLATION-STAGE-1
{t} -N DOCKER-USER; {t} -A DOCKER-USER -j RETURN; {t} -I FORWARD -j DOCKER-USER
"""
POLICY = "{t} -A FORWARD -s {net} -m mark --mark 0x99 -j DROP; {t} -P FORWARD DROP"
LAST_RULE = "{t} -A FORWARD -i docker0 -j ACCEPT; {t} -A FORWARD -j REJECT"


@functools.cache
def legacy_lacks():
    """Why this kernel cannot do iptables-legacy; empty when it can."""
    sandbox = Sandbox()
    try:
        return "".join(sandbox.run(["%s-legacy" % tool, "-t", "filter", "-S"], check=False).stderr for tool in TOOLS)
    finally:
        sandbox.close()


@pytest.fixture
def sandbox(request):
    if "legacy" in getattr(getattr(request.node, "callspec", None), "params", {}).values() and legacy_lacks():
        pytest.skip("this kernel has no legacy iptables: " + legacy_lacks())
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture
def pods(sandbox):
    sandbox.run(PODS)
    return sandbox


def neighbours(sandbox, check=False, **options):
    return sandbox.module("kindnet_neighbours", check=check, **options)


def drop(sandbox, flavour, script):
    for tool in TOOLS:
        sandbox.run(script.replace("{t}", "%s-%s" % (tool, flavour)).replace("{net}", CIDR_OF[tool]))


def passes(sandbox, *pairs):
    """Between which of ``pairs`` pings pass, side by side: (start, end, family)."""
    script = ""
    for start, end in pairs:
        for family, address in zip((4, 6), ADDRESS[end]):
            script += "(ip netns exec %s ping -n -q -c 3 -i 0.4 -W 1 %s >/dev/null && echo %s %s %d) &\n" % (start, address, start, end, family)
    rows = [line.split() for line in sandbox.out(script + "wait").splitlines()]
    return {(start, end, int(family)) for start, end, family in rows}


def both(*pairs):
    return {pair + (family,) for pair in pairs for family in (4, 6)}


PODS_PAIR, FROM_POD, TO_POD, OTHERS = ("pod1", "pod2"), ("pod1", "out1"), ("out1", "pod2"), ("out1", "out2")
EVERY_PAIR = (PODS_PAIR, FROM_POD, TO_POD, OTHERS)


def rules(sandbox, flavour, tool="iptables"):
    """The filter table, less comments and the counters of policies."""
    lines = sandbox.out(["%s-%s-save" % (tool, flavour), "-t", "filter"]).splitlines()
    return [re.sub(r" \[\d+:\d+\]$", "", line) for line in lines if not line.startswith("#")]


def ours(sandbox, flavour, tool="iptables"):
    return [line for line in rules(sandbox, flavour, tool) if "kindnet" in line]


def everything(sandbox):
    loaded = sandbox.out("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names").split()
    legacy = [rules(sandbox, "legacy", tool) for tool in TOOLS] if "filter" in loaded else []
    files = sandbox.out("find /etc/kindnet /etc/systemd /etc/NetworkManager /etc/firewalld -type f -exec sha256sum {} + 2>/dev/null | sort || true")
    return sandbox.out(["nft", "-j", "list", "ruleset"]), sorted(loaded), legacy, files


def do_pass(sandbox):
    return sandbox.python("import sys; from ansible_collections.kindnet.host.plugins.module_utils import _reconcile; sys.exit(_reconcile.run_pass())")


def test_a_host_without_neighbours_is_as_it_was(sandbox):
    before = everything(sandbox)
    for check in (True, False):
        result = neighbours(sandbox, check=check, cluster_cidrs=CIDRS)
        assert (result["changed"], result["neighbours"], result["notes"]) == (False, {}, []), result
        assert everything(sandbox) == before


@pytest.mark.parametrize(
    "flavour, state, chain",
    [
        pytest.param("nft", DOCKER, "DOCKER-USER", id="docker-nft"),
        pytest.param("legacy", DOCKER, "DOCKER-USER", id="docker-legacy"),
        pytest.param("nft", POLICY, "FORWARD", id="policy-nft"),
        pytest.param("legacy", LAST_RULE, "FORWARD", id="last-rule-legacy"),
    ],
)
def test_pods_pass_where_others_do_not(pods, flavour, state, chain):
    assert passes(pods, *EVERY_PAIR) == both(*EVERY_PAIR)
    drop(pods, flavour, state)
    assert passes(pods, *EVERY_PAIR) == set()
    before = everything(pods)

    predicted = neighbours(pods, check=True, cluster_cidrs=CIDRS)
    assert predicted["changed"] and everything(pods) == before, predicted
    real = neighbours(pods, cluster_cidrs=CIDRS)
    assert {k: real[k] for k in ("changes", "diff", "neighbours")} == {k: predicted[k] for k in ("changes", "diff", "neighbours")}
    assert real["neighbours"] == {"forward": "handled"}
    for tool in TOOLS:
        assert ours(pods, flavour, tool) == ["-A %s -%s %s %s" % (chain, flag, CIDR_OF[tool], MARK) for flag in "sd"]
    assert passes(pods, *EVERY_PAIR) == both(PODS_PAIR, FROM_POD, TO_POD)
    after = everything(pods)
    for check in (False, True):
        again = neighbours(pods, check=check, cluster_cidrs=CIDRS)
        assert again["changed"] is False and everything(pods) == after, again
    assert do_pass(pods) == "" and everything(pods) == after

    undo = neighbours(pods, check=True, state="absent")
    assert undo["changed"] and everything(pods) == after
    assert neighbours(pods, state="absent")["changes"] == undo["changes"]
    assert neighbours(pods, state="absent")["changed"] is False
    assert everything(pods)[1:] == before[1:] and ours(pods, flavour) == []
    assert strip_handles(everything(pods)[0]) == strip_handles(before[0])
    assert passes(pods, PODS_PAIR) == set()


def strip_handles(ruleset):
    rows = json.loads(ruleset)["nftables"]
    for row in rows:
        for value in row.values():
            value.pop("handle", None)
            for part in value.get("expr", ()):
                if isinstance(part, dict):
                    part.pop("counter", None)
    return rows


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_pass_repairs_and_leaves_others_alone(pods, flavour):
    drop(pods, flavour, DOCKER)
    tool = "iptables-%s" % flavour
    pods.run("%s -I DOCKER-USER -s 10.244.1.2 -d 192.0.2.2 -j DROP" % tool)
    assert neighbours(pods, cluster_cidrs=CIDRS)["changed"]
    right = rules(pods, flavour)
    # What somebody said of this pod stays said.
    assert passes(pods, PODS_PAIR, FROM_POD) == both(PODS_PAIR, FROM_POD) - {FROM_POD + (4,)}
    first = right[right.index("-A DOCKER-USER -s 10.244.0.0/16 " + MARK)]
    for damage in (
        "{t} " + first.replace("-A", "-D", 1),
        "{t} " + first,
        "{t} -D DOCKER-USER -j RETURN; {t} -I DOCKER-USER 2 -j RETURN",
        "{t} -F DOCKER-USER; {t} -A DOCKER-USER -s 10.244.1.2/32 -d 192.0.2.2/32 -j DROP; {t} -A DOCKER-USER -j RETURN",
        "{t} -I FORWARD -s 10.99.0.0/16 " + MARK,
    ):
        pods.run(damage.replace("{t}", tool))
        assert rules(pods, flavour) != right, damage
        said = do_pass(pods)
        assert len(said.splitlines()) == 1 and "rules filter/FORWARD of pods" in said, (damage, said)
        assert rules(pods, flavour) == right, damage
        assert do_pass(pods) == ""


def test_docker_that_starts_later_and_goes_again(pods):
    drop(pods, "nft", POLICY)
    neighbours(pods, cluster_cidrs=CIDRS)
    # After a reboot: nothing is there yet, and the pass lays nothing.
    pods.run("nft flush ruleset")
    assert do_pass(pods) == "" and ours(pods, "nft") == []
    drop(pods, "nft", DOCKER)
    assert passes(pods, PODS_PAIR) == set()
    assert len(do_pass(pods).splitlines()) == 2
    assert passes(pods, PODS_PAIR) == both(PODS_PAIR)
    assert ours(pods, "nft")[0].startswith("-A DOCKER-USER ")


def test_what_others_accept_is_left_at_that(pods):
    drop(pods, "nft", POLICY)
    for tool, cidr in CIDR_OF.items():
        pods.run(f"{tool}-nft -I FORWARD -s {cidr} -j ACCEPT; {tool}-nft -I FORWARD -d {cidr} -j ACCEPT")
    before = everything(pods)
    result = neighbours(pods, cluster_cidrs=CIDRS)
    assert (result["changed"], result["neighbours"]) == (False, {}) and everything(pods) == before, result


def test_opted_out_it_tells_what_to_do_and_that_helps(pods):
    drop(pods, "nft", DOCKER)
    before = everything(pods)
    result = neighbours(pods, cluster_cidrs=CIDRS, manage_forward=False)
    assert (result["changed"], result["neighbours"]) == (False, {"forward": "left alone"}) and everything(pods) == before
    assert len(result["notes"]) == 2
    for note in result["notes"]:
        pods.run(note.partition("so that it lasts: ")[2])
    assert passes(pods, PODS_PAIR) == both(PODS_PAIR)
    assert neighbours(pods, cluster_cidrs=CIDRS, manage_forward=False)["notes"] == []


def test_a_table_that_iptables_cannot_work_on_is_told_of_and_left_alone(sandbox):
    """As with some chains of nft itself; others iptables shows as if they were its own."""
    sandbox.run("iptables-nft -P FORWARD DROP")
    sandbox.replace_tool("iptables-nft", "echo \"iptables v1.8.9 (nf_tables): table \\`filter' is incompatible, use 'nft' tool.\" >&2; exit 1")
    before = everything(sandbox)
    result = neighbours(sandbox, cluster_cidrs=CIDRS)
    assert not result.get("failed") and result["changed"] is False and everything(sandbox) == before, result
    assert "cannot tell" in result["notes"][0] and "nft list ruleset" in result["notes"][0]


@pytest.mark.parametrize("bad", [{"cluster_cidrs": ["10.244.0.1/16"]}, {"cluster_cidrs": []}, {"cluster_cidrs": CIDRS, "lock_wait": 0}])
def test_bad_input_changes_nothing(sandbox, bad):
    sandbox.run("iptables-nft -P FORWARD DROP")
    before = everything(sandbox)
    result = neighbours(sandbox, **bad)
    assert result["failed"] and result["remedy"] and everything(sandbox) == before


# Stand-ins for what asks and tells the daemons. Like firewalld, this one reads its files when told to, and keeps no comment of a file that it changes.
FIREWALLD = r"""
import json, os, re, shlex, sys
FOLDER, IN_FORCE = "/etc/firewalld/policies/", "/run/firewalld.json"
def policies():
    return json.load(open(IN_FORCE)) if os.path.exists(IN_FORCE) else {}
def say(kind, data):
    print(json.dumps({"type": kind, "data": [data]}))
command, *words = sys.argv[1:]
if command == "busctl":
    method, arguments = words[5], words[7:]
    if method == "getPolicies":
        say("as", sorted(policies()))
    else:
        text = policies()[arguments[0]]
        rules = re.findall(r'<rule family="(.*?)">\s*<(\S+) address="(.*?)"/>\s*<accept/>', text)
        zones = {end + "_zones": {"type": "as", "data": re.findall('<%s-zone name="(.*?)"/>' % end, text)} for end in ("ingress", "egress")}
        say("a{sv}", dict(zones, rich_rules={"type": "as", "data": ['rule family="%s" %s address="%s" accept' % rule for rule in rules]}))
elif words == ["--reload"]:
    texts = {name[:-4]: open(FOLDER + name).read() for name in os.listdir(FOLDER) if name.endswith(".xml")}
    json.dump(texts, open(IN_FORCE, "w"))
elif words[:2] == ["--permanent", "--new-policy"]:
    open(FOLDER + words[2] + ".xml", "x").write("<policy></policy>")
elif words[0] == "--permanent":
    (policy,) = (w[9:] for w in words if w.startswith("--policy="))
    (what, value), = (w[6:].split("=", 1) for w in words if w.startswith("--add-"))
    if what == "rich-rule":
        keys = dict(w.split("=") for w in value.split() if "=" in w)
        child = '<rule family="%s"><%s address="%s"/><accept/></rule>' % (keys["family"], value.split()[2], keys["address"])
    else:
        child = '<%s name="%s"/>' % (what, value)
    text = re.sub("<!--.*?-->", "", open(FOLDER + policy + ".xml").read()).replace("</policy>", child + "</policy>")
    open(FOLDER + policy + ".xml", "w").write(text)
elif words != ["--check-config"]:
    sys.exit("not known: %r" % words)
"""
SYSTEMCTL = """
for unit in systemd-networkd NetworkManager firewalld; do
  echo "Id=$unit.service"; echo LoadState=loaded; echo ActiveState=active; echo UnitFileState=enabled; echo
done
"""


@pytest.fixture
def daemons(sandbox):
    """With systemd-networkd, NetworkManager and firewalld."""
    for name in ("busctl", "firewall-cmd"):
        sandbox.replace_tool(name, "exec /usr/bin/python3 -I /run/firewalld.py %s \"$@\"" % name)
    sandbox.run("cat >/run/firewalld.py", stdin=FIREWALLD)
    sandbox.replace_tool("systemctl", SYSTEMCTL)
    sandbox.run("mkdir -p /run/systemd/system /etc/firewalld/policies /etc/systemd/networkd.conf.d /etc/NetworkManager/conf.d")
    sandbox.run("rm -f /etc/firewalld/policies/* /etc/systemd/networkd.conf.d/* /etc/NetworkManager/conf.d/*")
    return sandbox


PLACES = {
    "/etc/systemd/networkd.conf.d/zz-kindnet.conf": "[Network]\nSpeedMeter=yes\n",
    "/etc/NetworkManager/conf.d/zz-kindnet.conf": "[main]\ndns=none\n",
    "/etc/firewalld/policies/kindnet.xml": '<policy><ingress-zone name="ANY"/></policy>\n',
}


def configuration(sandbox):
    """Files of the daemons, with owner, mode and content."""
    return sandbox.out(
        "for d in firewalld/policies systemd/networkd.conf.d NetworkManager/conf.d; do"
        " find /etc/$d -printf '%p %y %m %U:%G %l\n'; find /etc/$d -type f -exec sha256sum {} +; done | sort"
    )


def follow(sandbox, advice):
    """Do what it says."""
    (name,) = re.findall(r"'firewall-cmd --permanent --new-policy (\S+)'", advice)
    options = re.findall(r"--add-[a-z-]+=(?:'[^']+'|\w+)", advice)
    assert len(options) == 2 + 2 * len(CIDRS)
    sandbox.run("firewall-cmd --permanent --new-policy %s" % name)
    for option in options:
        sandbox.run("firewall-cmd --permanent --policy=%s %s" % (name, option))
    sandbox.run("firewall-cmd --reload")


def test_firewalld_as_the_operator_was_told_stays_so(daemons):
    left = {"cluster_cidrs": CIDRS, "manage_firewalld": False, "manage_networkd": False, "manage_networkmanager": False}
    assert neighbours(daemons, cluster_cidrs=CIDRS)["changed"]  # ours is in force, and goes in the run that gives the advice
    (advice,) = [note for note in neighbours(daemons, **left)["notes"] if note.startswith("firewalld ")]
    follow(daemons, advice)
    before = configuration(daemons)
    again = neighbours(daemons, **left)
    assert not again["changed"] and not [note for note in again["notes"] if note.startswith("firewalld ")], again
    gone = neighbours(daemons, state="absent")
    assert (gone["changed"], gone["notes"], configuration(daemons)) == (False, [], before), gone
    # Ours beside it comes and goes.
    assert neighbours(daemons, cluster_cidrs=CIDRS)["changed"] and neighbours(daemons, state="absent")["changed"]
    assert configuration(daemons) == before
    assert json.loads(daemons.out("cat /run/firewalld.json")).keys() == {"allow-pods"}


def test_files_in_our_places_come_back(daemons):
    for path, text in PLACES.items():
        daemons.run("umask 077; cat >%s; chown 1:2 %s" % (path, path), stdin=text)
    daemons.run("firewall-cmd --reload")
    before, in_force = configuration(daemons), daemons.out("cat /run/firewalld.json")
    for options in ({"state": "absent"}, {"cluster_cidrs": CIDRS, "manage_networkd": False, "manage_networkmanager": False, "manage_firewalld": False}):
        untouched = neighbours(daemons, **options)
        assert not untouched["changed"] and configuration(daemons) == before, untouched
    predicted = neighbours(daemons, check=True, cluster_cidrs=CIDRS)
    assert configuration(daemons) == before
    real = neighbours(daemons, cluster_cidrs=CIDRS)
    assert real["changes"] == predicted["changes"] and not real.get("failed"), real
    assert daemons.out("cat %s" % " ".join(PLACES)).count("Written by kindnet.host.") == 3
    assert neighbours(daemons, cluster_cidrs=CIDRS)["changed"] is False and do_pass(daemons) == ""
    predicted = neighbours(daemons, check=True, state="absent")
    gone = neighbours(daemons, state="absent")
    assert gone["changes"] == predicted["changes"] and not gone.get("failed"), gone
    assert (configuration(daemons), daemons.out("cat /run/firewalld.json")) == (before, in_force)
    assert daemons.run("test -e /var/lib/kindnet/before.json", check=False).returncode != 0
    assert neighbours(daemons, state="absent")["changed"] is False
