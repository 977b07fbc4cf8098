# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The writer of routes against a kernel that answers from a script. What real kernels do is asked of ``ip`` in tests/integration."""

from __future__ import annotations

__metaclass__ = type

import errno
import struct

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _route_writer
from ansible_collections.kindnet.host.plugins.module_utils._route import Route

NEWROUTE, ERROR = 24, 2


class FakeKernel:
    """Each datagram is told to ``answer``, which gives what is then received; an exception among that is raised."""

    buffer = 1 << 20

    def __init__(self, *unused):
        self.queue, self.datagrams = [], []

    def setsockopt(self, level, *unused):
        if level == 270:
            raise OSError(errno.ENOPROTOOPT, "an old kernel")

    def getsockopt(self, *unused):
        return self.buffer

    def bind(self, address):
        assert address == (0, 0)

    def sendto(self, data, address):
        at, messages = 0, []
        while at < len(data):
            length, kind, flags, number, sender = struct.unpack_from("=IHHII", data, at)
            assert (kind, flags, sender) == (NEWROUTE, 0x605, 0)
            messages.append((number, tuple(data[at + 32 : at + 36]), tuple(data[at + 40 : at + 44])))
            at += length
        self.datagrams.append(messages)
        self.queue += self.answer(messages)

    def recvfrom(self, size, flags):
        if not self.queue:
            raise BlockingIOError
        answer = self.queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (answer, (0, 0))

    def close(self):
        pass


def says(number, code=0, kind=ERROR):
    return struct.pack("=IHHIIi", 36, kind, 0, number, 1, -code) + bytes(16)


class FakePoll:
    asked = []

    def register(self, *unused):
        pass

    def poll(self, milliseconds):
        self.asked.append(milliseconds)
        return []


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr(_route_writer.socket, "socket", FakeKernel)
    monkeypatch.setattr(_route_writer.select, "poll", FakePoll)
    monkeypatch.setattr(FakePoll, "asked", [])
    with _route_writer.Writer() as w:
        yield w


def additions(count):
    return [("add", Route(2, 254, bytes((10, 0, n, 0)), 24, 0, 0, 107, 0, 1, gateway=bytes((172, 18, 0, n)))) for n in range(count)]


def test_each_code_is_that_of_its_own_message_whatever_else_comes(writer):
    def answer(messages):
        first, second, third = (number for number, _dst, _gateway in messages)
        forged = (says(second, errno.EPERM), (4711, 0))
        return [says(third), forged, says(99, errno.EPERM), says(second, errno.EPERM, NEWROUTE), says(second, errno.EEXIST), says(first)]

    writer._socket.answer = answer
    assert writer.apply(additions(3)) == [0, errno.EEXIST, 0]
    assert writer._socket.datagrams == [[(n + 1, (10, 0, n, 0), (172, 18, 0, n)) for n in range(3)]]


def test_datagrams_are_bounded_and_keep_the_order(writer):
    writer._socket.answer = lambda messages: [says(number, dst[2]) for number, dst, _gateway in messages]
    assert writer.apply(additions(250)) == list(range(250))
    sizes = [len(d) * 44 for d in writer._socket.datagrams]
    assert max(sizes) <= 4096 and len(sizes) == 3
    assert [dst[2] for d in writer._socket.datagrams for _number, dst, _gateway in d] == list(range(250))


def test_no_more_is_asked_for_than_there_is_room_for_the_answers(writer, monkeypatch):
    for room, at_once in (2304, 1), (100, 1), (10 * 2048, 10):
        monkeypatch.setattr(FakeKernel, "buffer", room)
        with _route_writer.Writer() as small:
            small._socket.answer = lambda messages: [says(number) for number, _dst, _gateway in messages]
            assert small.apply(additions(20)) == [0] * 20
            assert {len(d) for d in small._socket.datagrams} == {at_once}


def test_lost_answers(writer):
    lost = OSError(errno.ENOBUFS, "lost")
    writer._socket.answer = lambda messages: [says(messages[0][0]), lost, says(messages[3][0], errno.EEXIST)]
    assert writer.apply(additions(5)) == [0, errno.ENOBUFS, errno.ENOBUFS, errno.EEXIST, errno.ENOBUFS]
    assert FakePoll.asked == [0]  # nobody waits for what will not come


def test_a_kernel_that_does_not_answer_is_not_waited_for_without_end(writer):
    writer._socket.answer = lambda messages: []
    assert writer.apply(additions(2)) == [errno.ENOBUFS] * 2
    assert FakePoll.asked == [5000]


def test_what_could_not_be_sent_costs_no_later_datagram(writer):
    def answer(messages):
        if messages[0][0] == 1:
            raise OSError(errno.ENOMEM, "no memory")
        return [says(number) for number, _dst, _gateway in messages]

    writer._socket.answer = answer
    assert writer.apply(additions(120)) == [errno.ENOMEM] * 93 + [0] * 27


def test_nothing_sends_nothing(writer):
    assert writer.apply([]) == [] and writer._socket.datagrams == []
