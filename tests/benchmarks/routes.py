# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the routes' part of a clean pass costs, beside `ip` and pyroute2 looking at the same. Needs root. What changes cost is in changes.py.

KINDNET_BENCH=small makes it a matter of seconds, in which nothing is measured but that it works.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _meter import cost
from _table import NODES_PYTHON, SMALL, Table, spread, title
from route_host import RouteHost, table_of

ROUNDS = 1 if SMALL else 9
SIZES = (3, 10) if SMALL else (100, 1000, 5000)
FOREIGN = 100 if SMALL else 100_000

PASS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from module_utils import _routes
section = json.load(open("/etc/kindnet/desired.json"))["sections"]["routes"]
live = _routes.read(section, None)
assert live.everything is None and not _routes.plan(section, live).changes
"""
IP = """
import json, os, sys
with os.popen("ip -j route show proto 107") as f:
    found = json.load(f)
wanted = {(cidr, hop) for _name, cidr, hop in json.load(open("/etc/kindnet/desired.json"))["sections"]["routes"]["peers"]}
assert {(r["dst"], r["gateway"]) for r in found} == wanted
"""
PYROUTE2 = """
import json, pyroute2
with pyroute2.IPRoute() as ipr:
    found = {("%s/%d" % (r.get_attr("RTA_DST"), r["dst_len"]), r.get_attr("RTA_GATEWAY")) for r in ipr.get_routes(family=2, proto=107, table=254)}
assert found == {(cidr, hop) for _name, cidr, hop in json.load(open("/etc/kindnet/desired.json"))["sections"]["routes"]["peers"]}
"""


def clean_looks(table: Table, host: RouteHost, peers: int, foreign: int) -> None:
    plugins = os.path.abspath("plugins")
    for what, command in (
        ("python3 -I -S alone", [NODES_PYTHON, "-I", "-S", "-c", "pass"]),
        ("clean pass of routes", [NODES_PYTHON, "-I", "-S", "-c", PASS, plugins]),
        ("ip -j route, parsed", [NODES_PYTHON, "-I", "-S", "-c", IP]),
        ("pyroute2", [sys.executable, "-c", PYROUTE2]),
    ):
        taken = cost(host.command, *command, rounds=ROUNDS)
        table.row(str(peers), str(foreign), what, spread(taken.cpu, "ms"), spread(taken.clock, "ms"), "%.1f" % statistics.median(taken.peak))


def main() -> None:
    title("A look at the routes", "Medians of %d rounds (lowest-highest). This part alone, from exec to exit; a whole pass is in clean_pass.py." % ROUNDS)
    table = Table("peers", "foreign routes", "what", "CPU", "time", "MB", wide=(5, 14, 20, 22, 22))
    host = RouteHost()
    try:
        for peers in SIZES:
            host.fresh()
            host.module(nodes=table_of(peers), node_name="me")
            clean_looks(table, host, peers, 0)
        others = "".join("route add 11.%d.%d.%d/32 via 172.18.0.9 proto bgp\n" % (i >> 16, i >> 8 & 255, i & 255) for i in range(FOREIGN))
        subprocess.run(host.command("ip", "-batch", "-"), input=others, text=True, check=True)
        clean_looks(table, host, SIZES[-1], FOREIGN)
    finally:
        host.close()
    table.end()


if __name__ == "__main__":
    main()
