# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger's file: found, read, refused, locked, replaced."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import textwrap

import pytest
import yaml
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Host, plan_free, plan_ledger

CLUSTERS = ("10.244.0.0/16", "fd00:10:244::/48")


def give(*names, clusters=CLUSTERS):
    """What the node table does with the ledger."""
    return lambda ledger: plan_ledger(ledger, [Host(n) for n in names], clusters)


def write(tmp_path, variables, name="kindnet-ledger.yml"):
    path = tmp_path / name
    path.write_text("kindnet_ledger:\n  vars:\n" + textwrap.indent(textwrap.dedent(variables), "    "))
    return str(path)


def test_the_file_is_for_people_and_a_host_is_a_line(tmp_path):
    path = str(tmp_path / "kindnet-ledger.yml")
    _ledger_file.update(path, give("node-1", "10.0.0.9", "no"), False, 0)
    assert (tmp_path / "kindnet-ledger.yml").read_text() == textwrap.dedent("""\
        ---
        # The ledger of kindnet.host: which host holds which pod CIDR. The playbooks
        # write it; commit it together with the inventory. A host that is listed keeps
        # what it holds; only playbooks/remove_node.yml frees it. This is the form of an
        # inventory without hosts, so that it may lie in an inventory directory.
        kindnet_ledger:
          vars:
            schema: 1
            cluster_name: kindnet
            pod_cidrs:
              "10.0.0.9": [10.244.1.0/24, "fd00:10:244:1::/64"]
              "no": [10.244.2.0/24, "fd00:10:244:2::/64"]
              node-1: [10.244.0.0/24, "fd00:10:244::/64"]
            freed_pod_cidrs: []
        """)
    before = (tmp_path / "kindnet-ledger.yml").read_text().splitlines()
    _ledger_file.update(path, give("z", "node-1", "10.0.0.9", "no"), False, 0)
    after = (tmp_path / "kindnet-ledger.yml").read_text().splitlines()
    assert [line for line in after if line not in before] == ['      z: [10.244.3.0/24, "fd00:10:244:3::/64"]']
    assert [line for line in before if line not in after] == []
    _ledger_file.update(path, lambda ledger: plan_free(ledger, "z"), False, 0)
    assert yaml.safe_load((tmp_path / "kindnet-ledger.yml").read_text())["kindnet_ledger"]["vars"]["freed_pod_cidrs"] == [
        "10.244.3.0/24",
        "fd00:10:244:3::/64",
    ]
    assert os.listdir(tmp_path) == ["kindnet-ledger.yml"], "nothing is left beside it"


def test_it_may_lie_in_an_inventory_directory(tmp_path):
    (tmp_path / "hosts.yml").write_text("kindnet_nodes:\n  hosts:\n    a:\n    b:\n")
    _ledger_file.update(str(tmp_path / "kindnet-ledger.yml"), give("a", "b"), False, 0)
    (tmp_path / "kindnet-ledger.yml").write_text((tmp_path / "kindnet-ledger.yml").read_text().replace("freed_pod_cidrs: []", "freed_pod_cidrs: [10.9.0.0/24]"))
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-inventory"), "-i", str(tmp_path), "--graph"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["@all:", "  |--@ungrouped:", "  |--@kindnet_nodes:", "  |  |--a", "  |  |--b", "  |--@kindnet_ledger:"]


def test_check_mode_and_a_run_without_a_change_write_nothing(tmp_path):
    path = tmp_path / "kindnet-ledger.yml"
    predicted = _ledger_file.update(str(path), give("a"), True, 0)
    assert os.listdir(tmp_path) == []
    real = _ledger_file.update(str(path), give("a"), False, 0)
    assert real == predicted
    before = os.stat(path)
    assert _ledger_file.update(str(path), give("a"), False, 0).plan.changes == ()
    assert os.stat(path) == before
    _ledger_file.update(str(path), give("a", "b"), True, 0)
    assert os.stat(path) == before


def test_an_inventory_that_says_everything_gets_no_ledger(tmp_path):
    _ledger_file.update(str(tmp_path / "kindnet-ledger.yml"), lambda ledger: plan_ledger(ledger, [Host("a", "10.244.0.0/24")], CLUSTERS), False, 0)
    assert os.listdir(tmp_path) == []


def test_what_another_run_wrote_meanwhile_is_heeded(tmp_path):
    path, calls, narrow = str(tmp_path / "kindnet-ledger.yml"), [], ["10.244.0.0/24"]

    def too_late(ledger):
        calls.append(ledger)
        if len(calls) == 1:
            _ledger_file.update(path, give("b", clusters=narrow), False, 0)
        return plan_ledger(ledger, [Host("a")], narrow)

    with pytest.raises(KindnetError, match="is full"):
        _ledger_file.update(path, too_late, False, 0)
    assert len(calls) == 2
    assert list(_ledger_file.load(path).pod_cidrs) == ["b"]


def test_an_error_under_the_lock_leaves_no_empty_file(tmp_path, monkeypatch):
    def full_disk(ledger, path):
        raise KindnetError(path, "ENOSPC", "the ledger cannot be written", "Make room.")

    monkeypatch.setattr(_ledger_file, "_store", full_disk)
    with pytest.raises(KindnetError, match="ENOSPC"):
        _ledger_file.update(str(tmp_path / "kindnet-ledger.yml"), give("a"), False, 0)
    assert os.listdir(tmp_path) == []


def test_a_file_left_empty_by_a_kill_is_no_ledger_yet(tmp_path):
    path = tmp_path / "kindnet-ledger.yml"
    path.write_text("")
    _ledger_file.update(str(path), give("a"), False, 0)
    assert "a: [10.244.0.0/24" in path.read_text()


def test_mode_and_link_are_kept(tmp_path):
    real, link = tmp_path / "real.yml", tmp_path / "kindnet-ledger.yml"
    link.symlink_to("real.yml")
    _ledger_file.update(str(link), give("a"), False, 0)
    real.chmod(0o664)
    _ledger_file.update(str(link), give("a", "b"), False, 0)
    assert link.is_symlink()
    assert stat.S_IMODE(os.stat(real).st_mode) == 0o664
    assert "b: " in real.read_text()


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_read_only_ledger_serves_until_something_is_to_be_given(tmp_path, check_mode):
    path = tmp_path / "kindnet-ledger.yml"
    _ledger_file.update(str(path), give("a"), False, 0)
    path.chmod(0o444)
    assert _ledger_file.update(str(path), give("a"), check_mode, 0).pod_cidrs["a"][0] == "10.244.0.0/24"
    with pytest.raises(KindnetError, match="it is read-only: the ledger cannot be written, so nothing is given out"):
        _ledger_file.update(str(path), give("a", "b"), check_mode, 0)
    assert "b: " not in path.read_text()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(KindnetError, match="there is no folder .*/nowhere"):
        _ledger_file.update(str(tmp_path / "nowhere" / "ledger.yml"), give("a"), False, 0)


def test_a_held_lock_is_waited_for_and_then_named(tmp_path):
    path = tmp_path / "kindnet-ledger.yml"
    _ledger_file.update(str(path), give("a"), False, 0)
    with open(path) as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(KindnetError, match="another run of kindnet.host holds the ledger"):
            _ledger_file.update(str(path), give("a", "b"), False, 0.1)
        assert _ledger_file.update(str(path), give("a"), False, 0).plan.changes == (), "reading needs no lock"
    _ledger_file.update(str(path), give("a", "b"), False, 0)


RUN = """
import sys
sys.path.insert(0, {paths!r})
from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Host, plan_ledger
name, path, names = sys.argv[1], sys.argv[2], []
for i in range(15):
    names.append(Host("%s%d" % (name, i)))
    _ledger_file.update(path, lambda ledger: plan_ledger(ledger, names, ["10.0.0.0/16"]), False, 60)
"""


def test_runs_at_the_same_time_give_no_block_twice_and_lose_no_host(tmp_path):
    path = tmp_path / "kindnet-ledger.yml"
    script = RUN.format(paths=os.path.abspath(".ansible/collections"))
    runs = [subprocess.Popen([sys.executable, "-c", script, name, str(path)]) for name in "wxyz"]
    assert [run.wait() for run in runs] == [0, 0, 0, 0]
    held = yaml.safe_load(path.read_text())["kindnet_ledger"]["vars"]["pod_cidrs"]
    assert len(held) == 60
    assert len({c for cidrs in held.values() for c in cidrs}) == 60


DAMAGED = {
    "conflict markers": ("pod_cidrs:\n<<<<<<< HEAD\n  a: [10.244.0.0/24]\n", "the ledger is damaged, it is not YAML"),
    "a host twice": ("schema: 1\ncluster_name: k\npod_cidrs:\n  a: [10.244.0.0/24]\n  a: [10.244.1.0/24]\nfreed_pod_cidrs: []\n", "a is there twice"),
    "a block twice": (
        "schema: 1\ncluster_name: k\npod_cidrs:\n  a: [10.244.0.0/24]\n  b: [10.244.0.0/24]\nfreed_pod_cidrs: []\n",
        r"10.244.0.0/24 \(a\), 10.244.0.0/24 \(b\): the ledger has one block twice, as two branches",
    ),
    "a freed block that is held": (
        "schema: 1\ncluster_name: k\npod_cidrs:\n  a: [10.244.0.0/25]\nfreed_pod_cidrs: [10.244.0.0/24]\n", "the ledger has one block twice"
    ),
    "another schema": ("schema: 2\n", "schema 2: the ledger is of a schema that this version does not know; it knows 1"),
    "no schema": ("pod_cidrs: {}\n", "is not a ledger"),
    "a key missing": ("schema: 1\ncluster_name: k\npod_cidrs: {}\n", "its keys are not"),
    "an unknown key": ("schema: 1\ncluster_name: k\npod_cidrs: {}\nfreed_pod_cidrs: []\nmore: 1\n", "its keys are not"),
    "a key that is no string": ("schema: 1\ncluster_name: k\npod_cidrs: {}\nfreed_pod_cidrs: []\n1: 1\n", "its keys are not"),
    "no mapping of hosts": ("schema: 1\ncluster_name: k\npod_cidrs: []\nfreed_pod_cidrs: []\n", "the ledger is damaged"),
    "a name that is no string": ("schema: 1\ncluster_name: k\npod_cidrs:\n  1: [10.244.0.0/24]\nfreed_pod_cidrs: []\n", "Put it into quotes"),
    "no list of CIDRs": ("schema: 1\ncluster_name: k\npod_cidrs:\n  a: 10.244.0.0/24\nfreed_pod_cidrs: []\n", "this is not a list of CIDRs"),
    "no CIDR": ("schema: 1\ncluster_name: k\npod_cidrs:\n  a: [10.244.0/24]\nfreed_pod_cidrs: []\n", "is not a CIDR"),
    "host bits": ("schema: 1\ncluster_name: k\npod_cidrs:\n  a: [10.244.0.1/24]\nfreed_pod_cidrs: []\n", "has host bits set"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_ledger_is_named_and_left_alone(tmp_path, case):
    content, problem = DAMAGED[case]
    path = write(tmp_path, content)
    before = (tmp_path / "kindnet-ledger.yml").read_text()
    with pytest.raises(KindnetError, match=problem) as error:
        _ledger_file.update(path, give("a", "b"), False, 0)
    assert path in str(error.value)
    assert (tmp_path / "kindnet-ledger.yml").read_text() == before


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"[]", b"a", b"kindnet_ledger: []", b"kindnet_ledger:", b"$ANSIBLE_VAULT;1.1;AES256\n3138\n", b"? [a]\n: b"]
)
def test_anything_else_is_no_ledger(tmp_path, content):
    path = tmp_path / "ledger.yml"
    path.write_bytes(content)
    with pytest.raises(KindnetError, match="ledger"):
        _ledger_file.load(str(path))


def test_where_it_lies(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "hosts.yml").write_text("")
    find = _ledger_file.find
    assert find([str(one / "hosts.yml")]) == str(one / "kindnet-ledger.yml")
    assert find([str(one)]) == str(one / "kindnet-ledger.yml"), "the same for a directory and a file in it"
    assert find(["a,b,", "/dev/null", str(two / "hosts.yml"), str(one)]) == str(two / "kindnet-ledger.yml")
    (one / "kindnet-ledger.yml").write_text("")
    assert find([str(two), str(one)]) == str(one / "kindnet-ledger.yml"), "an existing one wins, in whatever order the sources come"
    (two / "kindnet-ledger.yml").write_text("")
    with pytest.raises(KindnetError, match="several inventory sources have a ledger"):
        find([str(two), str(one)])
    assert find([str(two), str(one)], "../blocks.yml") == str(two / "../blocks.yml")
    assert find([str(two), str(one)], "/srv/blocks.yml") == "/srv/blocks.yml"
    with pytest.raises(KindnetError, match="no inventory source is a file or a directory"):
        find(["a,b,"])
    assert find(["a,b,"], "blocks.yml") == os.path.join(os.getcwd(), "blocks.yml")
