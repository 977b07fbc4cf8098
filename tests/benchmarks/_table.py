# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How every measurement tells its figures: tables that can be pasted into docs/costs.md, below a line about the machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence

SMALL = os.environ.get("KINDNET_BENCH") == "small"  # a matter of seconds, in which nothing is measured but that it works
NODES_PYTHON = "/usr/bin/python3"


def title(text: str, *paragraphs: str) -> None:
    print("## %s\n" % text)
    for paragraph in (*paragraphs, machine()):
        print(paragraph + "\n", flush=True)


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.partition(":")[2].strip() for line in f if line.startswith("model name")), platform.machine())
    version = subprocess.run([NODES_PYTHON, "-ISc", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=True)
    return "%d x %s, Linux %s; Python of nodes %s, of the controller %s; load %.1f at the start." % (
        os.cpu_count() or 1,
        model,
        platform.release(),
        version.stdout.strip(),
        platform.python_version(),
        os.getloadavg()[0],
    )


class Table:
    """Rows are shown as they come. A column is as wide as its name, or as its place in ``wide`` says."""

    def __init__(self, *columns: str, wide: Sequence[int] = ()) -> None:
        self._widths = [max(len(column), width) for column, width in zip(columns, [*wide, *[0] * len(columns)])]
        self._open = False
        self._columns = columns

    def row(self, *cells: str) -> None:
        if not self._open:
            self._show(self._columns)
            print("|%s|" % "|".join("-" * (width + 2) for width in self._widths))
            self._open = True
        assert len(cells) == len(self._columns), cells
        self._show(cells)

    def _show(self, cells: Sequence[str]) -> None:
        print("| %s |" % " | ".join(cell.ljust(width) for cell, width in zip(cells, self._widths)), flush=True)

    def end(self) -> None:
        print()


def spread(values: Sequence[float], unit: str) -> str:
    """The median, and the lowest and highest."""
    return "%s %s (%s-%s)" % (_figure(statistics.median(values)), unit, _figure(min(values)), _figure(max(values)))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs)


def verdict(value: float, most: float, unit: str = "") -> str:
    return "%s: %s of at most %s%s" % ("kept" if value <= most else "exceeded", _figure(value), _figure(most), " " + unit if unit else "")


def _figure(value: float) -> str:
    """Three digits, and no more than one behind the point."""
    return "%.0f" % value if value >= 100 or value == int(value) else "%.1f" % value if value >= 10 else "%.2f" % value
