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


def test_clean_pass():
    command = [sys.executable, str(BENCHMARKS / "clean_pass.py")]
    done = subprocess.run(command, env=dict(os.environ, KINDNET_BENCH="small"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0].isdigit()] == ["2", "10", "10", "2"]
