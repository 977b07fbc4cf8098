# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measurements still work. What they measure on a machine that does much else is nobody's business."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

# Of each, what its rows begin with.
TABLES = {
    "changes": [["20 IPv4"] * 2 + ["20 IPv6"] * 2 + ["40 dual-stack"] * 2, ["20 IPv4", "20 IPv6", "40 dual-stack"]],
    "clean_pass": [["2", "10"], ["10", "2"]],
    "controller": [["3", "6"], ["3", "6"]],
    "fleet": [["3"]],
    "masq": [["iptables-nft"] * 2 + ["iptables-legacy"] * 2 + ["nftables"] * 2],
    "membership": [["as before"] * 2 + ["one joins"] * 2],
    "routes": [["3"] * 4 + ["10"] * 8],
    "watch": [["2"], ["100 foreign routes come", "20 foreign rules come at once", "all routes of ours go at once"]],
}


@pytest.mark.parametrize("name", TABLES)
def test_prints_tables(name):
    command = [sys.executable, str(BENCHMARKS / (name + ".py"))]
    done = subprocess.run(command, env=dict(os.environ, KINDNET_BENCH="small"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("## ") and " Linux " in done.stdout, done.stdout
    assert tables(done.stdout) == TABLES[name], done.stdout


def test_no_other_one_is_forgotten():
    # That of playbooks needs the nodes of the lab.
    assert {path.stem for path in BENCHMARKS.glob("[!_]*.py")} - {"playbook"} == set(TABLES)


def tables(text):
    """The first cells of each table's rows."""
    found, rows = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            rows = None
        elif set(line) <= set("|-"):
            rows = []
            found.append(rows)
        elif rows is not None:
            rows.append(cells[0])
            assert len(cells) > 3 and all(cells[:3]), line
    return found
