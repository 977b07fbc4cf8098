# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kindnet_idle on a converged host, and on one that differs in one point: who is idle changes nothing when it is run, and nobody else counts as idle."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Iterator

import pyroute2
import pytest
from reconcile_sandbox import Sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

PREFIX = "kindnet.host."
LIBRARY = "/usr/local/lib/kindnet"
NODES = [
    {"name": "me", "node_ips": ["172.18.0.2"], "pod_cidrs": ["10.244.0.0/24"]},
    {"name": "peer", "node_ips": ["172.18.0.3"], "pod_cidrs": ["10.244.1.0/24"]},
]
MODULES: dict[str, dict[str, Any]] = {
    "kindnet_sysctl": {"sysctls": {"net.ipv4.ip_forward": 1}},
    "cni_plugin_links": {"plugins": ["ptp"], "source_dirs": ["/opt/plugins"], "bin_dir": "/opt/cni/bin"},
    "kindnet_neighbours": {"cluster_cidrs": ["10.244.0.0/16"]},
    "kindnet_masq": {"cluster_cidrs": ["10.244.0.0/16"], "backend": "iptables-nft"},
    "cni_conflist": {"pod_cidrs": ["10.244.0.0/24"], "mtu": 1500, "plugin_dirs": ["/opt/plugins"], "peer_ips": ["172.18.0.3"]},
    "kindnet_reconcile": {},
    "kindnet_route": {"nodes": json.dumps(NODES), "node_name": "me", "max_removals": 0},
}
# What the code of this host runs when it looks; a second look must leave no trace, not even a time.
TRACES = "find /etc/kindnet /etc/cni /opt /run/kindnet /var/lib/kindnet /usr/local/lib /etc/systemd /etc/sysctl.d -printf '%p %y %m %l %T@ %C@\\n' | sort"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("idle"))
    sandbox.sh(
        "ip link add node type veth peer name net; ip link set node up; ip link set net up; ip address add 172.18.0.2/16 dev node\n"
        "mkdir /opt/plugins; for p in ptp host-local portmap loopback; do ln -s /usr/lib/cni/$p /opt/plugins/$p; done"
    )
    brought = Path(pyroute2.__file__).parent
    sandbox.sh(f"mkdir -p {LIBRARY}/pyroute2; cp -r {brought} {LIBRARY}/pyroute2; rm -rf $(find {LIBRARY}/pyroute2 -name __pycache__)")
    converge(sandbox)
    yield sandbox
    sandbox.close()


def converge(host: Sandbox, *names: str) -> None:
    for name in names or MODULES:
        host.module(name=PREFIX + name, **MODULES[name])


def look(host: Sandbox, *flags: str, **changed: dict[str, Any]) -> dict[str, Any]:
    result = host.adhoc(PREFIX + "kindnet_idle", {"modules": {name: {**options, **changed.get(name, {})} for name, options in MODULES.items()}}, *flags)
    assert result["changed"] is False
    assert sorted([*result["idle"], *result["busy"]]) == sorted(MODULES)
    return result


def test_a_converged_host_is_idle_in_all_and_stays_as_it_is(host: Sandbox) -> None:
    before = host.sh(TRACES), host.sh("ip -json route"), host.sh("iptables-save -t nat | grep -v '^#'")
    assert look(host)["busy"] == {}
    assert look(host, "--check")["busy"] == {}
    assert (host.sh(TRACES), host.sh("ip -json route"), host.sh("iptables-save -t nat | grep -v '^#'")) == before


@pytest.mark.parametrize("name", MODULES)
def test_what_is_idle_would_change_nothing(host: Sandbox, name: str) -> None:
    result = host.module(name=PREFIX + name, **MODULES[name])
    assert (result["changed"], result["notes"], result["problems"]) == (False, [], [])


DAMAGE = {
    "kindnet_sysctl": "sysctl -qw net.ipv4.ip_forward=0",
    "cni_plugin_links": "rm /opt/cni/bin/ptp",
    "kindnet_masq": "iptables -t nat -D KIND-MASQ-AGENT 1",
    "cni_conflist": "rm /etc/cni/net.d/10-kindnet.conflist",
    "kindnet_reconcile": "systemctl stop kindnet-reconcile.timer",
    "kindnet_route": "ip route del 10.244.1.0/24",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_whose_work_is_undone_is_busy_and_nobody_else(host: Sandbox, name: str) -> None:
    host.sh(DAMAGE[name])
    try:
        assert set(look(host)["busy"]) == {name}
    finally:
        assert host.module(name=PREFIX + name, **MODULES[name])["changed"]


def test_who_would_refuse_is_busy(host: Sandbox) -> None:
    host.sh("ip route replace 10.244.1.0/24 via 172.18.0.9 proto static")
    try:
        assert set(look(host)["busy"]) == {"kindnet_route"}
    finally:
        host.sh("ip route del 10.244.1.0/24 proto static")
        converge(host, "kindnet_route")


def test_who_would_warn_is_busy(host: Sandbox) -> None:
    host.sh("echo '{}' >/etc/cni/net.d/00-first.conflist")
    try:
        assert set(look(host)["busy"]) == {"cni_conflist"}
    finally:
        host.sh("rm /etc/cni/net.d/00-first.conflist")


ASKED_OTHERWISE: dict[str, dict[str, Any]] = {
    "kindnet_sysctl": {"sysctls": {"net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 0}},
    "cni_plugin_links": {"plugins": ["ptp", "portmap"]},
    "kindnet_neighbours": {"cluster_cidrs": []},
    "kindnet_masq": {"cluster_cidrs": ["10.244.0.0/16", "10.245.0.0/16"]},
    "cni_conflist": {"mtu": 1400},
    "kindnet_reconcile": {"interval": 20},
    # Records nothing else than before, but refuses: a peer more goes than may.
    "kindnet_route": {"nodes": json.dumps(NODES[:1])},
}


@pytest.mark.parametrize("name", ASKED_OTHERWISE)
def test_who_is_asked_for_something_else_is_busy(host: Sandbox, name: str) -> None:
    assert set(look(host, **{name: ASKED_OTHERWISE[name]})["busy"]) == {name}


@pytest.mark.parametrize("options", [{"cluster_name": "another"}, {"nodes": "[]"}, {"nodes": [{"name": "me"}]}, {"max_removals": "many"}, {"unknown": 1}])
def test_what_the_module_would_refuse_is_its_to_tell(host: Sandbox, options: dict[str, Any]) -> None:
    assert set(look(host, kindnet_route=options)["busy"]) == {"kindnet_route"}


def test_a_template_that_does_not_render_is_its_to_tell(host: Sandbox) -> None:
    assert set(look(host, cni_conflist={"template": "/nowhere.j2"})["busy"]) == {"cni_conflist"}


@pytest.mark.parametrize(
    "damage",
    [
        "echo >>%s/_routes.py",
        "rm %s/_routes.py",
        "echo raise SystemExit >%s/_more.py",
        "chmod go+w %s/_routes.py",
        "chown nobody %s",
        "rm -rf %s",
    ],
)
def test_code_that_is_not_to_the_letter_plans_nothing(host: Sandbox, damage: str) -> None:
    folder = host.sh("realpath %s/current" % LIBRARY).strip()
    host.sh(damage % (folder + "/kindnet_host"))
    try:
        result = look(host)
        assert result["idle"] == []
        assert set(result["busy"].values()) == {"the code of this version is not installed"}
    finally:
        converge(host, "kindnet_reconcile")
    assert look(host)["busy"] == {}


def test_a_host_that_was_never_converged_is_idle_in_nothing(host: Sandbox) -> None:
    host.sh("mv /usr/local/lib/kindnet /run/aside")
    try:
        assert look(host)["idle"] == []
    finally:
        host.sh("mv /run/aside /usr/local/lib/kindnet")


def test_what_it_is_given_is_in_no_result(host: Sandbox) -> None:
    said = json.dumps(look(host, "-vvv"))
    assert "172.18.0.3" not in said


def test_unknown_modules_are_refused(host: Sandbox) -> None:
    result = host.adhoc(PREFIX + "kindnet_idle", {"modules": {"ping": {}}}, expect=2)
    assert "kindnet_route" in result["msg"]


def test_without_module_defaults_it_cannot_know_what_a_module_would_be_given(host: Sandbox) -> None:
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "/usr/bin/python3", "ansible_connection": "local"},
            "module_defaults": {PREFIX + "kindnet_masq": {"random_fully": True}},
            "tasks": [
                {PREFIX + "kindnet_idle": {"modules": {"kindnet_sysctl": MODULES["kindnet_sysctl"]}}, "register": "look"},
                {"ansible.builtin.assert": {"that": "look.idle == []"}},
            ],
        }
    ]
    host.write("/run/play.yml", json.dumps(play))
    host.run("env", "ANSIBLE_COLLECTIONS_PATH=%s" % host.collections, str(Path(sys.executable).parent / "ansible-playbook"), "/run/play.yml")


def test_it_leaves_no_bytecode_of_its_own(host: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # on a host nobody sets it
    folder = host.sh("realpath %s/current" % LIBRARY).strip() + "/kindnet_host"
    host.sh("mv %s/__pycache__ /run/compiled" % folder)
    try:
        assert set(look(host, "--check")["busy"]) == {"kindnet_reconcile"}
        assert host.sh("ls %s" % folder).count("__pycache__") == 0
    finally:
        host.sh(f"rm -rf {folder}/__pycache__; mv /run/compiled {folder}/__pycache__")
    assert look(host)["busy"] == {}


def test_code_in_a_folder_that_others_may_write_is_not_run(host: Sandbox) -> None:
    host.sh("chmod go+w %s" % LIBRARY)
    try:
        assert look(host)["idle"] == []
    finally:
        host.sh("chmod go-w %s" % LIBRARY)
    assert look(host)["busy"] == {}


def test_what_only_the_module_itself_requires_is_its_to_tell(host: Sandbox) -> None:
    assert set(look(host, kindnet_route={"non_l2": "via"})["busy"]) == {"kindnet_route"}


@pytest.mark.parametrize("options", [{"kindnet_masq": {"cluster_cidrs": ["10.244.0.0/16"], "ip_masq_agent_config": {"a": "b"}}}, {"kindnet_sysctl": ["a"]}])
def test_what_no_module_foresees_is_its_to_tell_as_well(host: Sandbox, options: dict[str, Any]) -> None:
    asked = {"cni_plugin_links": MODULES["cni_plugin_links"], **options}
    result = host.adhoc(PREFIX + "kindnet_idle", {"modules": asked})
    assert result["idle"] == ["cni_plugin_links"] and set(result["busy"]) == set(options)
