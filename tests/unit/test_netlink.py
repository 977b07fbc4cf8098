# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reader of routes against a kernel that answers from a script. What real kernels answer is compared with ``ip`` in tests/integration."""

from __future__ import annotations

__metaclass__ = type

import errno
import socket
import struct

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _netlink
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError

NEWROUTE, DONE, ERROR, INTERRUPTED, CLONED = 24, 3, 2, 0x10, 0x200


def message(kind, body, sequence, flags=2):
    padding = b"\0" * (-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 1) + body + padding


def attribute(number, value):
    return struct.pack("=HH", 4 + len(value), number) + value + b"\0" * (-len(value) % 4)


def route(n, table=254, protocol=107, family=2, flags=0):
    body = struct.pack("=BBBBBBBBI", family, 24, 0, 0, table, protocol, 0, 1, flags)
    attributes = ((15, struct.pack("=I", table)), (1, bytes((10, 0, n, 0))), (5, bytes((172, 18, 0, n))), (4, struct.pack("=I", 2)))
    return body + b"".join(attribute(k, v) for k, v in attributes)


DONE_BODY = struct.pack("=i", 0)


class FakeKernel:
    """Each request is answered by the next list of datagrams; an exception among them is raised."""

    script = []

    def __init__(self, *unused):
        self.queue = []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def setsockopt(self, level, *unused):
        if level == 270:
            raise OSError(errno.ENOPROTOOPT, "an old kernel")

    def bind(self, address):
        pass

    def sendto(self, data, address):
        (sequence,) = struct.unpack_from("=I", data, 8)
        assert struct.unpack_from("=H", data, 6)[0] == 0x301
        answers = self.script.pop(0)
        self.queue.extend(a(sequence) if callable(a) else a for a in answers)

    def recvfrom(self, size):
        answer = self.queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (answer, (0, 0))


@pytest.fixture
def kernel(monkeypatch):
    monkeypatch.setattr(_netlink.socket, "socket", FakeKernel)
    return FakeKernel


def routes_of(*bodies, flags=2):
    return lambda sequence: b"".join(message(NEWROUTE, b, sequence, flags) for b in bodies)


def done(flags=2):
    return lambda sequence: message(DONE, DONE_BODY, sequence, flags)


def error(code):
    return lambda sequence: message(ERROR, struct.pack("=i", -code) + bytes(16), sequence)


def third_bytes(family=2, protocol=107):
    return [r.dst[2] for r in _netlink.dump(family, 254, protocol)]


def test_what_an_old_kernel_lets_through_is_filtered(kernel):
    bodies = route(1), route(2, protocol=3), route(3, table=100), route(4, family=10), route(5, flags=CLONED)
    kernel.script = [[routes_of(*bodies), routes_of(route(6)), done()]]
    assert third_bytes() == [1, 6]
    kernel.script = [[routes_of(route(1), route(2, protocol=3), route(3, table=100)), done()]]
    assert third_bytes(protocol=0) == [1, 2]


def test_an_interrupted_dump_is_read_again(kernel):
    kernel.script = [
        [routes_of(route(1), flags=2 | INTERRUPTED), routes_of(route(9)), done()],
        [routes_of(route(1)), done(2 | INTERRUPTED)],
        [routes_of(route(1)), OSError(errno.ENOBUFS, "lost"), done()],
        [routes_of(route(1)), routes_of(route(2)), done()],
    ]
    assert third_bytes() == [1, 2] and kernel.script == []


def test_a_table_that_never_rests_is_an_error(kernel):
    kernel.script = [[done(2 | INTERRUPTED)] for _each in range(_netlink.ATTEMPTS)]
    with pytest.raises(KindnetError, match="changed all the while"):
        third_bytes()


def test_answers_that_are_not_to_us_are_passed_over(kernel):
    forged = (message(NEWROUTE, route(7), 1), (4711, 0))
    kernel.script = [[forged, message(NEWROUTE, route(8), 99), routes_of(route(1)), done()]]
    assert third_bytes() == [1]


@pytest.mark.parametrize(
    ("code", "family", "expected"),
    [(errno.ENOENT, 2, []), (errno.EAFNOSUPPORT, 10, []), (errno.EOPNOTSUPP, 10, []), (errno.EAFNOSUPPORT, 2, "EAFNOSUPPORT"), (errno.EINVAL, 2, "EINVAL")],
)
def test_errors_by_name(kernel, code, family, expected):
    kernel.script = [[error(code)]]
    if expected == []:
        assert third_bytes(family) == []
    else:
        with pytest.raises(KindnetError, match=expected):
            third_bytes(family)


def test_the_short_way_and_the_long_one_read_the_same():
    plain = message(NEWROUTE, route(1), 1)
    assert len(plain) == 60
    fast = _netlink.parse_route(plain, 0, len(plain))
    # The same attributes in another order go the long way.
    body = route(1)
    shuffled = message(NEWROUTE, body[:12] + body[20:] + body[12:20], 1)
    assert _netlink.parse_route(shuffled, 0, len(shuffled)) == fast
    assert fast == _netlink.Route(socket.AF_INET, 254, bytes((10, 0, 1, 0)), 24, 0, 0, 107, 0, 1, 0, bytes((172, 18, 0, 1)), 2)


def test_the_short_way_and_the_long_one_of_ipv6():
    dst, gateway = bytes.fromhex("fd01" + "00" * 14), bytes.fromhex("fd00" + "00" * 13 + "09")

    def read(order=range(7), flags=0, preference=0):
        attributes = [
            attribute(15, struct.pack("=I", 254)), attribute(1, dst), attribute(6, struct.pack("=I", 1024)), attribute(5, gateway),
            attribute(4, struct.pack("=I", 3)), attribute(12, bytes(32)), attribute(20, bytes((preference,))),
        ]
        data = message(NEWROUTE, struct.pack("=BBBBBBBBI", 10, 64, 0, 0, 254, 107, 0, 1, flags) + b"".join(attributes[i] for i in order), 1)
        assert len(data) == 136
        return _netlink.parse_route(data, 0, len(data))

    plain = _netlink.Route(socket.AF_INET6, 254, dst, 64, 0, 1024, 107, 0, 1, 0, gateway, 3)
    assert read() == read(order=(0, 1, 2, 3, 4, 6, 5)) == plain
    assert read(preference=1) == read(order=(0, 1, 2, 3, 4, 6, 5), preference=1) == plain._replace(extra=(20,))
    assert read(flags=CLONED) is None
