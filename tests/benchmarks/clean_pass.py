# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass costs that finds nothing to do, beside a script that somebody would start from cron instead. Needs root.

The script makes every route again and asks iptables for every rule. It prunes nothing, repairs no order, and knows no owner.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reconcile_sandbox import Sandbox

ROUNDS = 10

# Modules without the seconds that Ansible needs around them.
CONVERGE = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from ansible.module_utils.testing import patch_module_args
module = importlib.import_module("ansible_collections.kindnet.host.plugins.modules." + sys.argv[2])
with patch_module_args(json.load(sys.stdin)):
    module.main()
"""

CRON = r"""#!/bin/sh
ip -batch /run/routes
sysctl -qw net.ipv4.ip_forward=1
check() { iptables -w 5 -t nat -C "$@"; }
check KIND-MASQ-AGENT -d 10.0.0.0/8 -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
check KIND-MASQ-AGENT -m comment --comment "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
check POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT -m comment \
  --comment "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain"
"""


def converge(node: Sandbox, module: str, **options: object) -> None:
    node.run(sys.executable, "-c", CONVERGE, str(node.collections), module, stdin=json.dumps(options))


def table(count: int) -> list[dict[str, object]]:
    """This host and ``count`` peers, one /24 each."""
    return [
        {"name": "n%d" % i, "node_ips": ["172.18.%d.%d" % divmod(i + 2, 256)], "pod_cidrs": ["10.%d.%d.0/24" % divmod(i, 256)]}
        for i in range(count + 1)
    ]


def cost(node: Sandbox, *command: str) -> tuple[float, float]:
    """CPU and wall time of one run, in milliseconds, children included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for _round in range(ROUNDS):
        done = subprocess.run(node.command(*command), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, ""), done
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu / ROUNDS * 1000, (end - start) / ROUNDS * 1000


def main() -> None:
    print("A pass that finds nothing to do, milliseconds of CPU (and of time), mean of %d" % ROUNDS)
    print("%8s  %24s  %24s" % ("peers", "kindnet-reconcile", "a script from cron"))
    with tempfile.TemporaryDirectory() as folder:
        node = Sandbox(Path(folder))
        try:
            node.sh(
                "ip link add node type veth peer name net; ip link set node up; ip link set net up; ip address add 172.18.0.2/16 dev node;"
                " modprobe -q nf_nat 2>/dev/null || true"
            )
            node.module()
            converge(node, "kindnet_sysctl", sysctls={"net.ipv4.ip_forward": 1})
            converge(node, "kindnet_masq", cluster_cidrs=["10.0.0.0/8"], backend="iptables-nft")
            node.write("/run/cron", CRON)
            for count in (2, 100, 1000, 5000):
                nodes = table(count)
                converge(node, "kindnet_route", nodes=json.dumps(nodes), node_name="n0")
                batch = ["route replace %s via %s proto 107" % (n["pod_cidrs"][0], n["node_ips"][0]) for n in nodes[1:]]  # type: ignore[index]
                node.write("/run/routes", "\n".join(batch) + "\n")
                ours = cost(node, "/usr/local/sbin/kindnet-reconcile")
                theirs = cost(node, "sh", "/run/cron")
                assert node.reconcile().stdout == ""
                print("%8d  %13.0f  (%6.0f)  %13.0f  (%6.0f)" % (count, *ours, *theirs))
        finally:
            node.close()


if __name__ == "__main__":
    main()
