# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pass costs that finds nothing to do, beside a script that somebody would start from cron instead. Needs root.

The script makes every route again and asks iptables for every rule. It prunes nothing, repairs no order, and knows no owner.
"bare" is an interpreter that starts, has the kernel dump the routes of our protocol, and ends: what any such program in Python costs at least.

KINDNET_BENCH=small makes it a matter of seconds, in which nothing is measured but that it works.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _meter import cost
from _table import NODES_PYTHON, SMALL, Table, ratio, spread, title, verdict
from reconcile_sandbox import Sandbox

ROUNDS = 2 if SMALL else 15

# Peers, and what a pass over routes, chain of both families and conflist may take at most: milliseconds of CPU, MB.
LIMITS = {100: (50, 20), 1000: (60, 24), 5000: (110, 40)}
SIZES = (2, 10) if SMALL else tuple(LIMITS)
FOREIGN_RULES, FOREIGN_ROUTES = (20, 100) if SMALL else (20_000, 100_000)
FOREIGN_FACTOR = 2  # so much more, at most, among those
WIDE = (5, 22, 22, 4, 22, 22, 11, 13, 30, 30)

BARE = """
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
s.setsockopt(270, 12, 1)
s.bind((0, 0))
s.send(struct.pack("=IHHII8BI", 28, 26, 0x301, 1, 0, 2, 0, 0, 0, 254, 107, 0, 0, 0))
while struct.unpack_from("=H", s.recv(1 << 16), 4) != (3,):
    pass
"""

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


def table(count: int) -> list[dict[str, Any]]:
    """This host and ``count`` peers, one /24 each."""
    return [
        {"name": "n%d" % i, "node_ips": ["172.18.%d.%d" % divmod(i + 2, 256)], "pod_cidrs": ["10.%d.%d.0/24" % divmod(i, 256)]}
        for i in range(count + 1)
    ]


def measure(table: Table, node: Sandbox, count: int, limits: tuple[float, float]) -> None:
    ours = cost(node.command, "/usr/local/sbin/kindnet-reconcile", rounds=ROUNDS)
    bare = cost(node.command, NODES_PYTHON, "-IBS", "-c", BARE, rounds=ROUNDS)
    cron = cost(node.command, "/bin/sh", "/run/cron", rounds=ROUNDS)
    table.row(
        str(count),
        spread(ours.cpu, "ms"),
        spread(ours.clock, "ms"),
        "%.1f" % max(ours.peak),
        spread(bare.cpu, "ms"),
        spread(cron.cpu, "ms"),
        "%.1f" % ratio(ours.cpu, bare.cpu),
        "%.2f" % ratio(ours.cpu, cron.cpu),
        verdict(statistics.median(ours.cpu), limits[0], "ms"),
        verdict(max(ours.peak), limits[1], "MB"),
    )


def table_of_costs() -> Table:
    return Table(
        "peers", "a pass: CPU", "time", "MB", "bare: CPU", "script: CPU", "pass / bare", "pass / script", "limit of CPU", "limit of MB", wide=WIDE
    )


def apply(node: Sandbox, count: int) -> None:
    nodes = table(count)
    converge(node, "kindnet_route", nodes=json.dumps(nodes), node_name="n0", force_removals=True)
    batch = ["route replace %s via %s proto 107" % (n["pod_cidrs"][0], n["node_ips"][0]) for n in nodes[1:]]
    node.write("/run/routes", "\n".join(batch) + "\n")
    assert node.reconcile().stdout == ""


def add_foreign(node: Sandbox) -> None:
    chains = [":SVC-%d - [0:0]" % n for n in range(FOREIGN_RULES // 10)]
    for restore, address in (("iptables-nft-restore", "100.64.%d.%d"), ("ip6tables-nft-restore", "2001:db8::%x:%x")):
        rules = ["-A SVC-%d -s %s -j ACCEPT" % (n // 10, address % divmod(n, 256)) for n in range(FOREIGN_RULES)]
        node.run(restore, "--noflush", stdin="\n".join(["*nat", *chains, *rules, "COMMIT", ""]))
    batch = ["route add %d.%d.%d.0/24 via 172.18.255.254 proto bgp" % (100 + (n >> 16), n >> 8 & 255, n & 255) for n in range(FOREIGN_ROUTES)]
    node.write("/run/foreign", "\n".join(batch) + "\n")
    node.sh("ip -batch /run/foreign")


def main() -> None:
    title("A pass that finds nothing to do", "Medians of %d rounds (lowest-highest); MB is the highest peak of a process." % ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        node = Sandbox(Path(folder))
        try:
            node.sh(
                "ip link add node type veth peer name net; ip link set node up; ip link set net up; ip address add 172.18.0.2/16 dev node;"
                " modprobe -q nf_nat 2>/dev/null || true"
            )
            node.module()
            converge(node, "kindnet_sysctl", sysctls={"net.ipv4.ip_forward": 1})
            converge(node, "kindnet_masq", cluster_cidrs=["10.0.0.0/8", "fd00:10::/32"], backend="iptables-nft")
            conflist = {"cniVersion": "0.3.1", "name": "kindnet", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}, {"type": "portmap"}]}
            converge(node, "cni_conflist", conflist=conflist, pod_cidrs=["10.0.0.0/24"], mtu=None)
            node.write("/run/cron", CRON)
            alone = table_of_costs()
            for count in SIZES:
                apply(node, count)
                measure(alone, node, count, LIMITS.get(count, LIMITS[100]))
            alone.end()
            print("The same among %d foreign rules in the nat table of each family, and %d foreign routes:\n" % (FOREIGN_RULES, FOREIGN_ROUTES))
            among = table_of_costs()
            add_foreign(node)
            for count in reversed(SIZES):
                apply(node, count)
                cpu, peak = LIMITS.get(count, LIMITS[100])
                measure(among, node, count, (cpu * FOREIGN_FACTOR, peak * FOREIGN_FACTOR))
            among.end()
        finally:
            node.close()


if __name__ == "__main__":
    main()
