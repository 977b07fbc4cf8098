# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a clean look at the masquerade chain costs, beside iptables-save (nft list ruleset), which is what a script would compare.

Run as root from the root of the checkout: .venv/bin/python tests/benchmarks/masq.py
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

from nat_sandbox import Sandbox

ROUNDS = 15
SECTION = {"cluster_cidrs": ["10.244.0.0/16"], "chain": "KIND-MASQ-AGENT", "lock_wait": 5}

# Runs inside; what it prints is one round per line: milliseconds on the clock, and of CPU, its children's included.
LOOK = """
import json, resource, sys, time
from ansible_collections.kindnet.host.plugins.module_utils import _masq
section, rounds = json.loads(sys.argv[1]), int(sys.argv[2])
def cpu():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
for _unused in range(rounds):
    wall, used = time.perf_counter(), cpu()
    assert not _masq.plan(section, _masq.read(section, None)).changes
    print((time.perf_counter() - wall) * 1000, (cpu() - used) * 1000)
"""


def foreign(rules):
    """Chains of ten rules, as kube-proxy has them."""
    lines = ["*nat"] + [":SVC-%d - [0:0]" % n for n in range(rules // 10)]
    lines += ["-A SVC-%d -s 10.%d.%d.%d/32 -j ACCEPT" % (n // 10, n >> 16 & 255, n >> 8 & 255, n & 255) for n in range(rules)]
    return "\n".join(lines + ["COMMIT", ""])


def median(rounds):
    return "%6.1f ms on the clock, %6.1f ms of CPU" % tuple(statistics.median(column) for column in zip(*rounds))


def saving(sandbox, save):
    for _unused in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(sandbox.inside(save), stdout=subprocess.DEVNULL, check=True)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        yield wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def main():
    for backend in ("iptables-nft", "iptables-legacy", "nftables"):
        others = "iptables-nft" if backend == "nftables" else backend  # whose rules are beside ours
        save = ["nft", "-j", "list", "ruleset"] if backend == "nftables" else [backend + "-save", "-t", "nat"]
        for rules in (0, 20000):
            sandbox = Sandbox()
            try:
                sandbox.run([others + "-restore"], stdin=foreign(rules))
                section = dict(SECTION, backend=backend)
                sandbox.module("kindnet_masq", cluster_cidrs=section["cluster_cidrs"], backend=backend)
                looks = sandbox.python(LOOK, json.dumps(section), str(ROUNDS)).splitlines()
                where = "%-15s %6d foreign rules: " % (backend, rules)
                print(where + "clean look    " + median([tuple(map(float, line.split())) for line in looks]))
                print(where + "%-13s " % ("list ruleset" if backend == "nftables" else "iptables-save") + median(list(saving(sandbox, save))))
            finally:
                sandbox.close()


if __name__ == "__main__":
    main()
