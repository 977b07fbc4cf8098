# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the routes' part of a clean pass costs, and what adding routes costs, beside `ip` and pyroute2 doing the same.

Run as root from the root of the checkout: .venv/bin/python tests/benchmarks/routes.py
Works in a network namespace of its own. Prints; it passes no judgement, since the machine may be busy.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from route_host import RouteHost, table_of

ROUNDS = 9
PYTHON = "/usr/bin/python3"  # of the node, started as its timer starts it
FOREIGN = 100_000

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


def measure(command, rounds=ROUNDS, stdin=""):
    """Medians of milliseconds on the clock and of CPU, children included."""
    figures = []
    for _each in range(rounds):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures.append((wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000))
    return "%7.1f ms on the clock, %7.1f ms of CPU" % tuple(statistics.median(column) for column in zip(*figures))


def clean_looks(host, where):
    plugins = os.path.abspath("plugins")
    for what, command in (
        ("python3 -I -S alone", [PYTHON, "-I", "-S", "-c", "pass"]),
        ("clean pass of routes", [PYTHON, "-I", "-S", "-c", PASS, plugins]),
        ("ip -j route, parsed", [PYTHON, "-I", "-S", "-c", IP]),
        ("pyroute2", [sys.executable, "-c", PYROUTE2]),
    ):
        print("%s %-22s %s" % (where, what, measure(host.command(*command))), flush=True)


def main():
    host = RouteHost()
    try:
        for peers in (100, 1000, 5000):
            host.fresh()
            host.module(nodes=table_of(peers), node_name="me")
            clean_looks(host, "%4d peers:                        " % peers)
        others = "".join("route add 11.%d.%d.%d/32 via 172.18.0.9 proto bgp\n" % (i >> 16, i >> 8 & 255, i & 255) for i in range(FOREIGN))
        subprocess.run(host.command("ip", "-batch", "-"), input=others, text=True, check=True)
        clean_looks(host, "%4d peers, %d foreign routes:" % (peers, FOREIGN))

        host.fresh()
        started = time.perf_counter()
        result = host.module(nodes=table_of(peers), node_name="me")
        print("%d routes added by kindnet_route, Ansible imported: %.2f s" % (len(result["routes"]), time.perf_counter() - started))
        section = json.loads(host.desired())["sections"]["routes"]
        host.module(state="absent")
        batch = "".join("route add %s via %s proto 107\n" % (cidr, hop) for _name, cidr, hop in section["peers"])
        print("the same by ip -batch:                               %s" % measure(host.command("ip", "-batch", "-"), 1, batch))
    finally:
        host.close()


if __name__ == "__main__":
    main()
