# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/table.yml: what it writes is what a part of the inventory needs. The hosts do not exist: one that was asked for anything is unreachable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ANSIBLE_PLAYBOOK = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES = ("node-a", "node-b", "node-c")
VARIABLES = {"kindnet_cluster_name": "production", "kindnet_cluster_cidrs": ["10.244.0.0/16"], "ansible_ssh_common_args": "-o ConnectTimeout=1"}
TABLE = [{"name": name, "node_ips": ["192.0.2.%d" % i], "pod_cidrs": ["10.244.%d.0/24" % i]} for i, name in enumerate(NAMES, 11)]


def inventory(folder: Path, hosts: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "inventory.yml").write_text(yaml.safe_dump({"kindnet_nodes": {"hosts": hosts, "vars": VARIABLES}}))
    return folder / "inventory.yml"


def run(playbook: str, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [ANSIBLE_PLAYBOOK, "-i", str(place), os.path.join(ROOT, "playbooks", playbook), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PWD"}
    environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_CONFIG=os.path.join(ROOT, "ansible.cfg"))
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment, cwd=place.parent.parent)


def written(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())
    assert list(data) == ["kindnet_node_table"]
    found = json.loads(data["kindnet_node_table"])
    return [{key: node[key] for key in ("name", "node_ips", "pod_cidrs")} for node in found]


def test_it_is_written_beside_the_inventory_and_a_part_of_it_has_the_whole_table_by_it(tmp_path: Path) -> None:
    whole = inventory(tmp_path / "whole", {n["name"]: {"kindnet_node_ips": n["node_ips"], "kindnet_pod_cidrs": n["pod_cidrs"]} for n in TABLE})
    done = run("table.yml", whole, "--limit", "node-b", "-e", "kindnet_table_file=here.json")
    assert done.returncode == 0 and written(tmp_path / "here.json") == TABLE, done.stdout + done.stderr
    assert run("table.yml", whole.parent).returncode == 0 and written(tmp_path / "kindnet-node-table.json") == TABLE  # beside a folder
    done = run("table.yml", whole, "--limit", "node-b")
    assert done.returncode == 0, done.stdout + done.stderr
    path = whole.parent / "kindnet-node-table.json"
    assert written(path) == TABLE and path.stat().st_mode & 0o777 == 0o644
    assert "changed=0" in run("table.yml", whole).stdout

    part = inventory(tmp_path / "part", {"node-a": {"ansible_host": "192.0.2.11"}})
    again = tmp_path / "again.json"
    for arguments in (["-e", f"@{path}"], []):
        if not arguments:  # as a file of the group's variables
            (part.parent / "group_vars" / "kindnet_nodes").mkdir(parents=True)
            path.rename(part.parent / "group_vars" / "kindnet_nodes" / "table.json")
        done = run("table.yml", part, *arguments, "-e", f"kindnet_table_file={again}")
        assert done.returncode == 0 and written(again) == TABLE, done.stdout + done.stderr


def test_pod_cidrs_of_the_ledger_are_in_it(tmp_path: Path) -> None:
    place = inventory(tmp_path / "whole", {n["name"]: {"kindnet_node_ips": n["node_ips"]} for n in TABLE})
    ledger = {"schema": 1, "cluster_name": "production", "pod_cidrs": {n["name"]: n["pod_cidrs"] for n in TABLE}, "freed_pod_cidrs": []}
    (place.parent / "kindnet-ledger.yml").write_text(yaml.safe_dump({"kindnet_ledger": {"vars": ledger}}))
    done = run("table.yml", place)
    assert done.returncode == 0 and written(place.parent / "kindnet-node-table.json") == TABLE, done.stdout + done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    place = inventory(tmp_path / "whole", {n["name"]: {"kindnet_node_ips": n["node_ips"], "kindnet_pod_cidrs": n["pod_cidrs"]} for n in TABLE})
    done = run("table.yml", place, "-e", f"kindnet_table_file={tmp_path}/nowhere/table.json")
    assert done.returncode == 2 and f"{tmp_path}/nowhere" in done.stdout, done.stdout
