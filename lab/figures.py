# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab of many nodes takes: of the machine, of each node, of the controller. Run by make up NODES=20, with the seconds of its first converge.

Fails if a run without changes changes something, if a node lacks a route, if a pass finds something to do, or if pods of the first and the last
node do not reach each other.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
POD = "pod-far"

# Of all processes of a container, in kB; and the CPU, in ms, and peak, in kB, of a pass. A process is asked for by its share of what is mapped.
LOOK = r"""
import json, os, resource, subprocess
total = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open("/proc/%s/smaps_rollup" % pid) as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    except OSError:
        pass  # it has ended, or is the kernel's
done = subprocess.run(["/usr/local/sbin/kindnet-reconcile"], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"memory": total, "said": done.stdout + done.stderr, "cpu": (used.ru_utime + used.ru_stime) * 1000, "peak": used.ru_maxrss}))
"""


def on(node: str, *command: str) -> str:
    done = subprocess.run([ROOT / "lab/nodes", "exec", node, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit("%s: %s: %s" % (node, " ".join(command), done.stdout + done.stderr))
    return done.stdout


def run_again(folder: str) -> tuple[float, float]:
    """Seconds of a run without changes, and the modules that it started on each node."""
    told = Path(folder) / "tasks"
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests/benchmarks/callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "tell_tasks",
        "KINDNET_TASKS": str(told),
    }
    start = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", ".lab/inventory.yml", "playbooks/kindnet.yml"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    taken = time.monotonic() - start
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=0 +unreachable=0 +failed=0", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not recap or "changed: [" in done.stdout:
        sys.exit("A second run was to change nothing:\n" + done.stdout + done.stderr)
    rows = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    return taken, sum(row["modules"] for row in rows) / len(recap)


def look_at(node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(on(node, "/usr/bin/python3", "-IS", "-c", LOOK))
    found["routes"] = len(json.loads(on(node, "ip", "-json", "route", "show", "proto", "107")))
    if found["said"]:
        sys.exit("%s: a pass found something to do: %s" % (node, found["said"]))
    return found


def ping_from_end_to_end(first: str, last: str) -> str:
    subprocess.run([ROOT / "lab/pods", "add", last, POD], check=True)
    routes = json.loads(on(last, "ip", "-json", "route", "show", "type", "unicast"))
    address = next(r["dst"] for r in routes if r.get("dev", "").startswith("veth"))
    said = subprocess.run([ROOT / "lab/pods", "exec", "pod-1", "ping", "-c", "3", "-W", "2", address], capture_output=True, text=True, check=False).stdout
    if " 3 packets received" not in said and " 3 received" not in said:
        sys.exit("pod-1 on %s does not reach %s on %s, %s: %s" % (first, POD, last, address, said))
    return address


def of_nodes(values: list[float], unit: str) -> str:
    return "%.1f %s (%.1f to %.1f)" % (statistics.median(values), unit, min(values), max(values))


def main(converged: str) -> None:
    nodes = list(yaml.safe_load((ROOT / ".lab/inventory.yml").read_text(encoding="utf-8"))["kindnet_nodes"]["hosts"])
    with tempfile.TemporaryDirectory() as folder:
        taken, modules = run_again(folder)
    found = [look_at(node) for node in nodes]
    if {look["routes"] for look in found} != {len(nodes) - 1}:
        sys.exit("Routes per node, of %d: %s" % (len(nodes) - 1, [look["routes"] for look in found]))
    first, last = "k8s-guide-worker", nodes[-1]
    address = ping_from_end_to_end(first, last)
    with open("/proc/meminfo", encoding="utf-8") as f:
        memory = {line.split(":")[0]: int(line.split()[1]) for line in f}
    rows = {
        "nodes": "%d, each with %d routes" % (len(nodes), len(nodes) - 1),
        "first converge": "%s s" % converged,
        "a run without changes": "%.1f s, %.0f modules on each node" % (taken, modules),
        "a clean pass": "%s of CPU, %s at its peak" % (of_nodes([x["cpu"] for x in found], "ms"), of_nodes([x["peak"] / 1000 for x in found], "MB")),
        "memory of a node": of_nodes([x["memory"] / 1000 for x in found], "MB"),
        "memory of the machine": "%.1f GB of %.1f in use" % ((memory["MemTotal"] - memory["MemAvailable"]) / 1e6, memory["MemTotal"] / 1e6),
        "pods": "pod-1 on %s reaches %s on %s, %s" % (first, POD, last, address),
    }
    for what, value in rows.items():
        print("%-24s %s" % (what, value))


if __name__ == "__main__":
    main(*sys.argv[1:])
