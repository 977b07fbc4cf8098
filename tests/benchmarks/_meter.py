# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a command costs, from exec to exit, its children included."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from typing import NamedTuple

from _table import NODES_PYTHON

# Small, since what a child has used is at least what its parent had when it was made. Prints ms of CPU, ms, and kB at the peak of each round.
METER = """
import os, sys, time
for _round in range(int(sys.argv[1])):
    start = time.monotonic()
    child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _pid, status, used = os.wait4(child, 0)
    assert status == 0, status
    print((used.ru_utime + used.ru_stime) * 1000, (time.monotonic() - start) * 1000, used.ru_maxrss)
"""


class Cost(NamedTuple):
    """Of each round."""

    cpu: list[float]  # ms
    clock: list[float]  # ms
    peak: list[float]  # MB, of the largest process


def cost(inside: Callable[..., list[str]], *command: str, rounds: int = 1) -> Cost:
    """
    :param inside: to the command that runs another one where it belongs.
    """
    done = subprocess.run(inside(NODES_PYTHON, "-IBS", "-c", METER, str(rounds), *command), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(rows) == rounds, done.stdout
    cpu, clock, peak = ([*column] for column in zip(*rows))
    return Cost(cpu, clock, [kilobytes / 1000 for kilobytes in peak])


def joined(costs: Iterable[Cost]) -> Cost:
    """Those of several calls as one."""
    return Cost(*([figure for each in column for figure in each] for column in zip(*costs)))
