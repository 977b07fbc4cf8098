# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets between pods while something else happens: every ping is answered, a connection stays open, and new ones can be made."""

from __future__ import annotations

import base64
import re
import time
from functools import cached_property
from typing import Any

from nodes import Node, until

PORT = 7700

# Tells each client which address it came from, then sends back what it gets, until it is told no more.
SERVER = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall((self.client_address[0] + chr(10)).encode())
        while True:
            data = self.request.recv(4096)
            if not data:
                return
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("", PORT), Echo).serve_forever()
"""

# One connection, open all the time.
STREAM = """
import socket, time
s = socket.create_connection((ADDRESS, PORT), 5)
lines = s.makefile("rw", buffering=1)
print(lines.readline().strip(), flush=True)
number = 0
while True:
    number += 1
    lines.write("%d\\n" % number)
    print(lines.readline().strip() or "closed", flush=True)
    time.sleep(0.05)
"""

# A new connection each time, so that a moment without a rule shows.
CONNECTIONS = """
import socket, time
while True:
    with socket.create_connection((ADDRESS, PORT), 5) as s:
        print(s.makefile().readline().strip(), flush=True)
    time.sleep(0.05)
"""


class Pod:
    """Where a command runs: in a pod of containerd's, or on a host itself."""

    def __init__(self, node: Node, name: str = "") -> None:
        self.node, self.name = node, name

    @cached_property
    def enter(self) -> str:
        """What a command is preceded by."""
        if not self.name:
            return ""
        pid = self.node.sh(f"ctr task list | awk '$1 == \"{self.name}\" {{ print $2 }}'").strip()
        return f"nsenter --target {pid} --net "

    @cached_property
    def address(self) -> str:
        if not self.name:
            return self.node.node_ip(4)
        (link,) = self.node.json(f"{self.enter}ip -json -4 address show dev eth0")
        return next(a["local"] for a in link["addr_info"] if a["scope"] == "global")


OUTSIDE = Pod(Node("outside", {"kindnet_node_ips": ["172.18.0.100"], "kindnet_pod_cidrs": []}, []))


class Traffic:
    """From one place to another, as long as the context lasts."""

    def __init__(self, source: Pod, target: Pod) -> None:
        self.source, self.target = source, target
        self.unit = f"traffic-{time.monotonic_ns()}"
        self.programs = {
            "ping": f"ping -n -i 0.05 {target.address}",
            "stream": python(STREAM, ADDRESS=target.address),
            "connections": python(CONNECTIONS, ADDRESS=target.address),
        }

    def __enter__(self) -> Traffic:
        self._start(self.target, "server", python(SERVER))
        until("the server listens", lambda: f":{PORT} " in self.target.node.sh(f"{self.target.enter}ss -Hltn") or None)
        for name, program in self.programs.items():
            self._start(self.source, name, program)
        for name in self.programs:
            until(f"{name} from {self.source.node} gets answers", lambda n=name: len(self._printed(n)) > 5 or None)
        return self

    def assert_nothing_lost(self, seen_as: str) -> None:
        """
        :param seen_as: the address from which the other side sees connections come.
        """
        # What began before now has had its answer when two more have come.
        seen = {name: len(self._printed(name)) for name in self.programs}
        for name in self.programs:
            until(f"{name} from {self.source.node} gets more answers", lambda n=name: len(self._printed(n)) > seen[n] + 2 or None, limit=10)
        answered = [int(n) for n in re.findall(r"icmp_seq=(\d+) ttl", "\n".join(self._printed("ping")))]
        assert answered == list(range(1, len(answered) + 1)), f"{self.source.node}: lost {sorted(set(range(1, answered[-1] + 1)) - set(answered))}"
        first, *rest = self._printed("stream")
        assert first == seen_as and rest == [str(n) for n in range(1, len(rest) + 1)], (first, rest[-5:])
        connections = self._printed("connections")
        assert set(connections) == {seen_as}, [c for c in connections if c != seen_as][:5]

    def __exit__(self, *unused: Any) -> None:
        for place, names in ((self.source, list(self.programs)), (self.target, ["server"])):
            units = " ".join(f"{self.unit}-{n}" for n in names)
            place.node.run(f"systemctl stop {units}; systemctl reset-failed {units}; rm -f /run/{self.unit}-*")

    def _start(self, place: Pod, name: str, program: str) -> None:
        # All that it says, its last words included.
        output = " ".join(f"--property=Standard{s}=append:/run/{self.unit}-{name}" for s in ("Output", "Error"))
        place.node.sh(f"systemd-run --quiet --collect --unit={self.unit}-{name} {output} {place.enter}{program}")

    def _printed(self, name: str) -> list[str]:
        """Whole lines alone."""
        text = self.source.node.run(f"cat /run/{self.unit}-{name}").stdout
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")] if name == "ping" else text.rpartition("\n")[0].splitlines()


def python(program: str, **names: Any) -> str:
    """A command that runs ``program``, whatever quotes it has."""
    text = "".join(f"{k} = {v!r}\n" for k, v in {"PORT": PORT, **names}.items()) + program
    return f"/usr/bin/python3 -c \"import base64; exec(base64.b64decode('{base64.b64encode(text.encode()).decode()}'))\""
