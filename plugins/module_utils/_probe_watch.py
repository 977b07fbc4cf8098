# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process on a node that watches the probes of one walk: on every interface by a packet socket, through the tables of nf_tables by a trace.

It leaves nothing behind. The table of the trace is owned by a process of nft that ends when this one does, and the kernel takes the table away with
it; results wait in memory, at an abstract socket, which is no file; and after its time it ends by itself, asked or not.
"""

from __future__ import annotations

__metaclass__ = type

import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time

from ._errors import KindnetError
from ._firewall import find, legacy_tables
from ._namespaces import ENVIRONMENT
from ._plan_trace import commands, packets, table_name
from ._probe_packets import REQUEST, echo_of, packet_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Set, Tuple

    Data = Dict[str, Any]

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h, linux/prctl.h, linux/netlink.h, linux/netfilter/nfnetlink.h
ETH_P_ALL, PACKET_OUTGOING, SO_ATTACH_FILTER, PR_SET_PDEATHSIG = 0x0003, 4, 26, 1
NETLINK_NETFILTER, NFNLGRP_NFTRACE = 12, 9
READY = 5.0  # seconds for all of it to be in place
QUIET = 0.2  # seconds without a word after which a trace has said all
MOST_TRACE = 4 << 20  # bytes that are read of a trace
MOST_REPORT = 16 << 20


def address_of(identifier: int) -> str:
    return "\0kindnet-walk-%d" % identifier


def start(identifier: int, source: str, destination: str, seconds: float) -> Data:
    """Have a process watch for so long, or until it is asked. ``trace`` says why there is none, "" if there is one."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setsid()
            if os.fork():
                os._exit(0)
            _let_go(write_end)
            _Watch(identifier, source, destination, seconds).run(write_end)
        finally:
            os._exit(0)  # whatever happened: nothing of the module that it was forked from may run on
    os.close(write_end)
    os.waitpid(child, 0)
    ready, _unused, _unused2 = select.select([read_end], [], [], READY * 2)
    said = os.read(read_end, 65536) if ready else b""
    os.close(read_end)
    if not said:
        raise KindnetError("probe", identifier, "nothing watches for it on this host", "See whether processes are killed here, and run it again.")
    answer: Data = json.loads(said)
    if answer.get("error"):
        raise KindnetError("probe", identifier, answer["error"], "Run as root (become: true), on a kernel that has packet sockets.")
    return answer


def collect(identifier: int) -> Optional[Data]:
    """What was seen; all of it is gone when this returns. None if nobody watches: its time was over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(READY * 2)
        try:
            s.connect(address_of(identifier))
        except ConnectionRefusedError:
            return None
        if _user_of(s) != 0:
            raise KindnetError("probe", identifier, "somebody who is not root answers in place of who watches", "See who, with 'ss -xlp', and run it again.")
        parts: List[bytes] = []
        while sum(map(len, parts)) < MOST_REPORT:
            part = s.recv(65536)
            if not part:
                break
            parts.append(part)
    if not parts:  # it was killed as it was asked
        return None
    report: Data = json.loads(b"".join(parts))
    return report


def _let_go(keep: int) -> None:
    """Of what the module has open, so that nobody waits for this process."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != keep:
            try:
                os.close(int(name))
            except OSError:  # the one that the listing itself was read from
                continue
    os.chdir("/")


class _Watch:
    def __init__(self, identifier: int, source: str, destination: str, seconds: float) -> None:
        self.identifier, self.destination = identifier, destination
        self.family = 6 if ":" in destination else 4
        self.deadline = time.monotonic() + seconds
        self.seen: Dict[Tuple[str, str, str, str, str], Set[int]] = {}
        self.trace = b""
        self.why = ""  # there is no trace
        self.hooks: Dict[Tuple[str, str, str], str] = {}
        self.owner: Optional[Any] = None
        self.monitor: Optional[Any] = None
        self.told_by: Optional[Any] = None  # the monitor, as long as it has something to say
        self.die_with_us = _death_signal()

    def run(self, ready: int) -> None:
        try:
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.bind(address_of(self.identifier))
            server.listen(1)
            capture = self._capture()
        except OSError as e:
            os.write(ready, json.dumps({"error": "cannot be watched for (%s)" % e}).encode())
            return
        try:
            self.why = self._trace()
            os.write(ready, json.dumps({"trace": self.why}).encode())
            os.close(ready)
            client = self._watch(server, capture)
        finally:
            self._end()
        if client:
            client.sendall(json.dumps(self._report()).encode())
            client.close()

    def _capture(self) -> socket.socket:
        """Every interface, and of what passes there the probes alone."""
        s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        program = b"".join(struct.pack("=HBBI", *step) for step in packet_filter(self.family, self.identifier))
        kept = ctypes.create_string_buffer(program, len(program))
        s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(kept)))
        s.setblocking(False)
        return s

    def _trace(self) -> str:
        """Begin it; why there is none, "" if there is."""
        nft = find("nft")
        if not nft:
            return "nft is not installed"
        # If this process is killed, both end: the second when its input does, too. Text would be decoded in pieces.
        shared: Dict[str, Any] = {"stderr": subprocess.STDOUT, "stdout": subprocess.PIPE, "env": ENVIRONMENT, "preexec_fn": self.die_with_us}
        self.monitor = self.told_by = subprocess.Popen([nft, "monitor", "trace"], stdin=subprocess.DEVNULL, **shared)
        self.owner = subprocess.Popen([nft, "-i"], stdin=subprocess.PIPE, **shared)
        deadline = time.monotonic() + READY
        while not _listens(self.monitor.pid):
            if self.monitor.poll() is not None or time.monotonic() > deadline:
                return "nft monitor does not listen"
            time.sleep(0.01)
        told = self.owner.stdin
        if told is not None:
            told.write(commands(self.identifier, self.destination).encode())
            told.flush()
        while True:
            listed = self._nft("list", "table", "inet", table_name(self.identifier))
            if listed.stdout.count("nftrace set 1") == 4:
                break
            if self.owner.poll() is not None or time.monotonic() > deadline:
                return "nft does not take the table of the trace (a kernel from 5.12 on, and nft from 1.0 on, do): %s" % self._said()
            time.sleep(0.02)
        chains = json.loads(self._nft("-j", "list", "chains").stdout)["nftables"]
        for chain in (item["chain"] for item in chains if "hook" in item.get("chain", ())):
            self.hooks[chain["family"], chain["table"], chain["name"]] = chain["hook"]
        return ""

    def _nft(self, *arguments: str) -> Any:
        nft = find("nft")
        return subprocess.run([str(nft), *arguments], capture_output=True, env=ENVIRONMENT, text=True, timeout=READY, check=False)

    def _said(self) -> str:
        if self.owner is None:
            return "no word"
        ready, _unused, _unused2 = select.select([self.owner.stdout], [], [], 0.1)
        return " ".join(os.read(self.owner.stdout.fileno(), 4096).decode("utf-8", "replace").split())[:200] if ready else "no word"

    def _watch(self, server: socket.socket, capture: socket.socket) -> Optional[socket.socket]:
        """Until somebody who may know asks, or the time is over."""
        client: Optional[socket.socket] = None
        while time.monotonic() < self.deadline:
            sources: List[Any] = [capture] if client else [capture, server]
            if self.told_by is not None and len(self.trace) < MOST_TRACE:
                sources.append(self.told_by.stdout)
            wait = self.deadline - time.monotonic()
            ready, _unused, _unused2 = select.select(sources, [], [], QUIET if client else max(0.0, wait))
            if client and not ready:
                break
            if capture in ready:
                self._note(capture)
            if self.told_by is not None and self.told_by.stdout in ready:
                part = os.read(self.told_by.stdout.fileno(), 65536)
                self.trace += part
                self.told_by = self.told_by if part else None
            if server in ready:
                client = _accepted(server)
                if client:  # who would wait for ever on a host where pings never end
                    self.deadline = min(self.deadline, time.monotonic() + READY)
        return client

    def _note(self, capture: socket.socket) -> None:
        while True:
            try:
                packet, (interface, _protocol, kind, _hardware, _address) = capture.recvfrom(65536)
            except BlockingIOError:
                return
            echo = echo_of(packet, self.identifier)
            if echo and interface != "lo" and self.destination == (echo.destination if echo.kind == REQUEST else echo.source):
                way = "out" if kind == PACKET_OUTGOING else "in"
                self.seen.setdefault((interface, way, echo.kind, echo.source, echo.destination), set()).add(echo.sequence)

    def _end(self) -> None:
        """Take away what the trace needs. The table goes with its owner."""
        for process in (self.owner, self.monitor):
            if process is not None:
                process.kill()
                process.wait()

    def _report(self) -> Data:
        keys = ("interface", "way", "kind", "source", "destination")
        legacy = sorted(table for table in legacy_tables("ipv%d" % self.family) if table != "nat")
        return {
            "seen": [dict(zip(keys, key), sequences=sorted(numbers)) for key, numbers in self.seen.items()],
            "trace": {
                "why": self.why,
                "legacy": legacy,
                "packets": packets(self.trace.decode("utf-8", "replace").splitlines(), self.hooks, self.identifier),
                "forward": sorted("%s %s %s" % key for key, hook in self.hooks.items() if hook == "forward"),
            },
        }


def _accepted(server: socket.socket) -> Optional[socket.socket]:
    """Whoever asks, if that is root: an abstract socket has no permissions of its own."""
    client, _unused = server.accept()
    if _user_of(client) == 0:
        return client
    client.close()
    return None


def _user_of(peer: socket.socket) -> int:
    """Who is at the other end, as it was when that began to listen or connected."""
    _pid, uid, _gid = struct.unpack("=iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def _listens(pid: int) -> bool:
    """Whether a process has a netlink socket that traces are told to."""
    with open("/proc/net/netlink") as f:
        rows = [line.split() for line in f.read().splitlines()[1:]]
    return any(int(row[1]) == NETLINK_NETFILTER and int(row[2]) == pid and int(row[3], 16) >> (NFNLGRP_NFTRACE - 1) & 1 for row in rows)


def _death_signal() -> Any:
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    return die_with_parent
