# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass costs that makes routes, takes them out, or mends one among many, beside `ip -batch` of the same. Needs root.

Each round does all of it once, so that both sides see the same machine. "The changes alone" is the part from the plan to the kernel's last answer,
with pyroute2 loaded: a pass begins with an interpreter, its modules, a look at what is there, a plan, and the import of pyroute2.

KINDNET_BENCH=small makes it a matter of seconds, in which nothing is measured but that it works.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _meter import Cost, cost, joined
from _table import NODES_PYTHON, SMALL, Table, ratio, spread, title, verdict
from reconcile_sandbox import ROOT, Sandbox

PEERS = 20 if SMALL else 5000
ROUNDS = 1 if SMALL else 7
MOST = 2.5  # times `ip -batch`
WIDE = (16, 17, 20, 4, 20, 20)

LIBRARY = "/usr/local/lib/kindnet/pyroute2"
# As a pass does that began with -S.
IMPORT = (
    """
import site, sys
sys.path.insert(0, "%s")
for folder in site.getsitepackages():
    site.addsitedir(folder)
"""
    % LIBRARY
)
# What a pass does about routes; the last step is measured. Prints ms of CPU.
ALONE = """
import sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, "/usr/local/lib/kindnet/current")
from kindnet_host import _desired, _pyroute2_dep, _route_writer, _routes
section = _desired.load().sections["routes"]
plan = _routes.plan(section, _routes.read(section, None))
_pyroute2_dep.load()
start = time.process_time()
problems = _routes.apply(section, plan)
print((time.process_time() - start) * 1000)
assert plan.changes and not problems, problems
"""


class Family(NamedTuple):
    me: str
    cidr: str  # of the number of a peer
    next_hop: str


FOUR = Family("172.18.255.2/16", "10.{1}.{2}.0/24", "172.18.{1}.{2}")
SIX = Family("fd00:18::1:2/64", "fd01:0:0:{0:x}::/64", "fd00:18::{0:x}")


class Node(Sandbox):
    """One with an address in the network of all next hops, kindnet-reconcile, and pyroute2."""

    def prepare(self) -> None:
        self.sh("ip link add node type veth peer name net; ip link set node up; ip link set net up")
        self.sh("ip address add %s dev node; ip address add %s dev node nodad" % (FOUR.me, SIX.me))
        self.module()
        if self.run(NODES_PYTHON, "-c", "import pyroute2", check=False).returncode:
            # The one that the role prerequisites brings along.
            with tempfile.TemporaryDirectory() as folder:
                wanted = ["--require-hashes", "--requirement", ROOT / "roles/prerequisites/files/pyroute2.txt"]
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
                subprocess.run([*pip, *wanted], check=True, stderr=subprocess.DEVNULL)
                (wheel,) = Path(folder).iterdir()
                self.sh("umask 022; python=%s; $python -m zipfile -e %s %s; $python -m compileall -q %s" % (NODES_PYTHON, wheel, LIBRARY, LIBRARY))
        self.pyroute2 = self.run(NODES_PYTHON, "-ISc", IMPORT + "import importlib.metadata; print(importlib.metadata.version('pyroute2'))").stdout.strip()

    def record(self, peers: list[list[str]]) -> None:
        self.desired(routes={"protocol": 107, "table": 254, "node_name": "me", "peers": peers})

    def flush(self) -> None:
        self.sh("ip -4 route flush proto 107; ip -6 route flush proto 107")

    def batch(self, command: str, peers: list[list[str]]) -> Cost:
        self.write("/run/batch", "".join("route %s %s via %s proto 107\n" % (command, cidr, hop) for _name, cidr, hop in peers))
        return cost(self.command, "/sbin/ip", "-batch", "/run/batch")

    def a_pass(self, expected: int) -> Cost:
        """One that leaves so many routes."""
        taken = cost(self.command, "/usr/local/sbin/kindnet-reconcile")
        found = sum(len(json.loads(self.sh("ip -%d -json route show proto 107" % family) or "[]")) for family in (4, 6))
        assert found == expected, (found, expected)
        return taken

    def changes_alone(self) -> float:
        return float(self.run(NODES_PYTHON, "-ISc", ALONE).stdout)

    def python(self, script: str) -> Cost:
        return cost(self.command, NODES_PYTHON, "-ISBc", script)


def peers_of(*families: Family) -> list[list[str]]:
    return [["n%d" % i, *(text.format(i, *divmod(i, 250)) for text in (f.cidr, f.next_hop))] for f in families for i in range(1, PEERS + 1)]


def measure(node: Node, peers: list[list[str]]) -> dict[str, list[Any]]:
    """What each thing took in each round."""
    taken: dict[str, list[Any]] = {}

    def note(what: str, figure: Any) -> None:
        taken.setdefault(what, []).append(figure)

    for _round in range(ROUNDS):
        node.record(peers)
        note("first, ours", node.a_pass(len(peers)))
        node.flush()
        note("first, alone", node.changes_alone())
        node.flush()
        note("first, ip", node.batch("add", peers))
        note("clean", node.a_pass(len(peers)))
        node.sh("ip route change %s via %s proto 107" % (peers[-1][1], peers[-2][2]))
        note("one", node.a_pass(len(peers)))
        note("import", node.python(IMPORT + "import pyroute2"))
        note("no import", node.python(IMPORT))
        node.record([])
        note("removal, ours", node.a_pass(0))
        node.batch("add", peers)
        note("removal, alone", node.changes_alone())
        node.batch("add", peers)
        note("removal, ip", node.batch("del", peers))
    return taken


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        try:
            node.prepare()
            title(
                "Changes",
                "Medians of %d rounds (lowest-highest) of CPU, from exec to exit, children included. MB is the highest peak of a process. pyroute2 is %s."
                % (ROUNDS, node.pyroute2),
            )
            many = Table("routes", "change", "a pass", "MB", "the changes alone", "`ip -batch`", "pass / ip", "alone / ip", "limit", wide=WIDE)
            one = Table("routes", "one peer changed", "MB", "clean pass", "import of pyroute2", "limit", wide=WIDE[:1])
            rows = []
            for name, families in (("IPv4", (FOUR,)), ("IPv6", (SIX,)), ("dual-stack", (FOUR, SIX))):
                peers = peers_of(*families)
                routes = "%d %s" % (len(peers), name)
                taken = measure(node, peers)
                cpu = {what: [f.cpu[0] if isinstance(f, Cost) else f for f in figures] for what, figures in taken.items()}
                for change in ("first", "removal"):
                    ours, alone, ip = (cpu["%s, %s" % (change, whose)] for whose in ("ours", "alone", "ip"))
                    peak = max(joined(taken[change + ", ours"]).peak)
                    many.row(
                        routes,
                        {"first": "first application"}.get(change, change),
                        spread(ours, "ms"),
                        "%.1f" % peak,
                        spread(alone, "ms"),
                        spread(ip, "ms"),
                        "%.1f" % ratio(ours, ip),
                        "%.1f" % ratio(alone, ip),
                        verdict(ratio(ours, ip), MOST),
                    )
                imported = [a - b for a, b in zip(cpu["import"], cpu["no import"])]
                most = statistics.median(cpu["clean"]) + statistics.median(imported)
                peak = max(joined(taken["one"]).peak)
                cells = spread(cpu["one"], "ms"), "%.1f" % peak, spread(cpu["clean"], "ms"), spread(imported, "ms")
                rows.append((routes, *cells, verdict(statistics.median(cpu["one"]), most, "ms")))
            many.end()
            for row in rows:
                one.row(*row)
            one.end()
        finally:
            node.close()


if __name__ == "__main__":
    main()
