# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a clean look at the masquerade chain costs, beside iptables-save (nft list ruleset), which is what a script would compare.

Needs root; works in a network namespace of its own. KINDNET_BENCH=small makes it a matter of seconds, in which nothing is measured but that it works.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _meter import cost
from _table import SMALL, Table, spread, title
from nat_sandbox import Sandbox

ROUNDS = 1 if SMALL else 15
FOREIGN = 20 if SMALL else 20_000
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


def main() -> None:
    title(
        "A look at the masquerade chain",
        "Medians of %d rounds (lowest-highest), what was run for it included. The look is one of a process that runs already; a whole pass is in"
        " clean_pass.py." % ROUNDS,
    )
    table = Table("backend", "foreign rules", "clean look: CPU", "time", "script", "CPU", "time", wide=(15, 13, 22, 22, 20, 22, 22))
    for backend in ("iptables-nft", "iptables-legacy", "nftables"):
        others = "iptables-nft" if backend == "nftables" else backend  # whose rules are beside ours
        save = ["nft", "-j", "list", "ruleset"] if backend == "nftables" else [backend + "-save", "-t", "nat"]
        for rules in (0, FOREIGN):
            sandbox = Sandbox()
            try:
                sandbox.run([others + "-restore"], stdin=foreign(rules))
                section = dict(SECTION, backend=backend)
                sandbox.module("kindnet_masq", cluster_cidrs=section["cluster_cidrs"], backend=backend)
                clock, cpu = zip(*(map(float, line.split()) for line in sandbox.python(LOOK, json.dumps(section), str(ROUNDS)).splitlines()))
                saving = cost(lambda *command: sandbox.inside([*command]), "/usr/bin/env", *save, rounds=ROUNDS)  # noqa: B023
                cells = spread(cpu, "ms"), spread(clock, "ms"), save[0], spread(saving.cpu, "ms"), spread(saving.clock, "ms")
                table.row(backend, str(rules), *cells)
            finally:
                sandbox.close()
    table.end()


if __name__ == "__main__":
    main()
