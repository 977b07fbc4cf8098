# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What remove_node.yml makes of peers that fail. The playbook itself, run beside a kindnet.yml in which hosts do as they are told."""

from __future__ import annotations

__metaclass__ = type

import os
import shutil
import subprocess
import sys

import pytest
import yaml

CONVERGE = [
    {
        "hosts": "{{ __kindnet_hosts }}",
        "gather_facts": False,
        "max_fail_percentage": 100,
        "tasks": [{"ansible.builtin.ping": None}, {"ansible.builtin.fail": {"msg": "as told"}, "when": "inventory_hostname in broken"}],
    }
]
TEARDOWN = [{"hosts": "{{ __kindnet_hosts }}", "gather_facts": False, "tasks": []}]
LEDGER = {"schema": 1, "cluster_name": "kindnet", "pod_cidrs": {n: ["10.244.%d.0/24" % i] for i, n in enumerate("abcx")}, "freed_pod_cidrs": []}
# Nobody listens there.
DOWN = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.fixture
def remove(tmp_path):
    shutil.copy("playbooks/remove_node.yml", tmp_path)
    (tmp_path / "kindnet.yml").write_text(yaml.safe_dump(CONVERGE))
    (tmp_path / "teardown.yml").write_text(yaml.safe_dump(TEARDOWN))
    (tmp_path / "kindnet-ledger.yml").write_text(yaml.safe_dump({"kindnet_ledger": {"vars": LEDGER}}))

    def run(broken=(), down=(), listed="abcx"):
        hosts = {n: {"ansible_connection": "local", "kindnet_node_ips": ["192.0.2.%d" % i]} for i, n in enumerate("abcx", 1) if n in listed}
        for name in {"x", *down} & set(hosts):
            hosts[name].update(DOWN)
        inventory = {"kindnet_nodes": {"hosts": hosts, "vars": {"kindnet_cluster_cidrs": ["10.244.0.0/16"], "broken": list(broken)}}}
        (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))
        command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "inventory.yml", "remove_node.yml"]
        env = dict(
            os.environ, ANSIBLE_COLLECTIONS_PATH=os.path.abspath(".ansible/collections"), ANSIBLE_PYTHON_INTERPRETER=sys.executable, LC_ALL="C.UTF-8"
        )
        done = subprocess.run(
            [*command, "-e", "node=x", "-e", "ansible_become=false"],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False,
        )  # fmt: skip
        return done.returncode, " ".join(done.stdout.split())

    run.book = lambda: yaml.safe_load((tmp_path / "kindnet-ledger.yml").read_text())["kindnet_ledger"]["vars"]
    return run


@pytest.mark.parametrize("listed", ["abcx", "abc"], ids=["listed", "left by its line alone"])
def test_peers_that_may_still_route_to_it_are_named_and_its_block_is_held(remove, listed):
    rc, output = remove(broken=["b"], down=["c"], listed=listed)
    assert rc != 0 and "x: may still be a peer of b, c, which" in output and "run this again" in output, output
    assert "is no peer any more" not in output
    assert remove.book() == LEDGER

    rc, output = remove(listed=listed)
    assert "x is no peer any more" in output and "may still be" not in output, output
    assert remove.book()["freed_pod_cidrs"] == ["10.244.3.0/24"] and "x" not in remove.book()["pod_cidrs"]
