# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kindnet-watch.service costs while nothing happens, how soon what was deleted is back, and what the events of others cost it. Needs root.

The kernel says when something went and came, by `ip monitor` and `nft monitor`; the gap between is everything: the event, the wait for more of them,
a stand-in for systemctl (an interpreter, where systemd is asked on a node), and the pass.

KINDNET_BENCH=small makes it a matter of seconds, in which nothing is measured but that it works.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _table import SMALL, Table, spread, title, verdict
from changes import Node
from clean_pass import apply, converge
from waiting import until

ROUNDS = 1 if SMALL else 9  # of two passes each: with more than 20 in a minute the watch holds back, as it should
SIZES = (2,) if SMALL else (100, 1000, 5000)
ASLEEP = 1 if SMALL else 10  # seconds
FOREIGN_ROUTES, FOREIGN_RULES = (100, 20) if SMALL else (100_000, 20_000)
MOST_MB, MOST_SECONDS = 15, 1
PEER = "10.0.1.0/24"


class Watch:
    def __init__(self, node: Node) -> None:
        self.node = node
        node.sh(": >/run/passes; : >/run/journal")
        self.process = subprocess.Popen(node.command("/usr/local/sbin/kindnet-reconcile", "--watch"))  # nsenter becomes the program itself
        until("the watch listens", lambda: "inotify" in node.run("ls", "-l", "/proc/%d/fd" % self.process.pid, check=False).stdout)
        self.rest()

    def passes(self) -> int:
        return len(self.node.read("/run/passes").split())

    def cpu(self) -> float:
        """ms so far, its children not included."""
        return int(Path("/proc/%d/schedstat" % self.process.pid).read_text().split()[0]) / 1e6

    def peak(self) -> float:
        lines = Path("/proc/%d/status" % self.process.pid).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000

    def rest(self) -> None:
        """Until it has used nothing for longer than any wait of its own."""
        used, since = -1.0, time.monotonic()
        while time.monotonic() < since + 1.5:
            if self.cpu() != used:
                used, since = self.cpu(), time.monotonic()
            time.sleep(0.1)

    def of(self, script: str) -> tuple[float, int]:
        """ms of CPU and passes that what a script does brings about."""
        before = self.cpu(), self.passes()
        self.node.sh(script)
        self.rest()
        return self.cpu() - before[0], self.passes() - before[1]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def gap(watch: Watch, monitor: tuple[str, ...], damage: str, gone: str, back: str) -> float:
    """ms between two events that the kernel tells of."""
    with subprocess.Popen(watch.node.command("stdbuf", "-oL", *monitor), stdout=subprocess.PIPE, text=True) as heard:
        assert heard.stdout is not None
        time.sleep(0.5)  # until it listens; if it does not yet, it never ends
        watch.node.sh(damage)
        while gone not in heard.stdout.readline():
            pass
        went = time.monotonic()
        while True:
            line = heard.stdout.readline()
            if back in line and gone not in line:
                break
        came = time.monotonic()
        heard.kill()
    watch.rest()
    return (came - went) * 1000


def main() -> None:
    title(
        "kindnet_watch",
        "Gaps are medians of %d rounds (lowest-highest) by the clock; without the watch they are up to 10 s, the timer's. MB is the peak of the process."
        % ROUNDS,
    )
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        try:
            node.prepare()
            node.sh("ip address add 172.18.0.2/16 dev node")
            converge(node, "kindnet_masq", cluster_cidrs=["10.0.0.0/8"], backend="nftables")
            table = Table(
                *("peers", "CPU in %d s asleep" % ASLEEP, "a route is back after", "a rule is back after", "MB"),
                *("limit of time", "limit of MB"),
                wide=(5, 10, 24, 24, 4, 26, 22),
            )
            for peers in SIZES:
                apply(node, peers)
                watch = Watch(node)
                before = watch.cpu()
                time.sleep(ASLEEP)
                asleep = watch.cpu() - before
                route = [gap(watch, ("ip", "monitor", "route"), "ip route del " + PEER, "Deleted " + PEER, PEER) for _round in range(ROUNDS)]
                peak = watch.peak()
                watch.close()
                watch = Watch(node)
                damage = "nft flush chain inet kindnet KIND-MASQ-AGENT"
                rule = [gap(watch, ("nft", "monitor"), damage, "delete rule", "add rule") for _round in range(ROUNDS)]
                peak = max(peak, watch.peak())
                watch.close()
                limits = verdict(max(route + rule) / 1000, MOST_SECONDS, "s"), verdict(peak, MOST_MB, "MB")
                table.row(str(peers), "%.0f ms" % asleep, spread(route, "ms"), spread(rule, "ms"), "%.1f" % peak, *limits)
            table.end()
            watch = Watch(node)
            routes = "".join("route add %d.%d.%d.0/24 via 172.18.255.254 proto bgp\n" % (100 + (n >> 16), n >> 8 & 255, n & 255) for n in range(FOREIGN_ROUTES))
            node.write("/run/foreign", routes)
            rules = "".join("-A KUBE-SVC -s 100.64.%d.%d -j ACCEPT\n" % divmod(n, 256) for n in range(FOREIGN_RULES))
            node.write("/run/rules", "*nat\n:KUBE-SVC -\n%sCOMMIT\n" % rules)
            events = Table("what happens, with %d peers" % SIZES[-1], "CPU of the watch", "passes", "MB", wide=(44,))
            for what, script in (
                ("%d foreign routes come" % FOREIGN_ROUTES, "ip -batch /run/foreign"),
                ("%d foreign rules come at once" % FOREIGN_RULES, "iptables-nft-restore --noflush /run/rules"),
                ("all routes of ours go at once", "ip route flush proto 107"),
            ):
                used, passes = watch.of(script)
                events.row(what, "%.1f ms" % used, str(passes), "%.1f" % watch.peak())
            events.end()
            watch.close()
        finally:
            node.close()


if __name__ == "__main__":
    main()
