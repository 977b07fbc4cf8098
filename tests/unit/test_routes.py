# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a plan of routes when the kernel refuses part of it, and what options are refused."""

from __future__ import annotations

__metaclass__ = type

import errno
import sys

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _pyroute2_dep, _route_writer, _routes, _wanted_routes
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._plan import Change, Plan
from ansible_collections.kindnet.host.plugins.module_utils._plan_routes import Op
from ansible_collections.kindnet.host.plugins.module_utils._route import Route


class FakeWriter:
    """Answers with the errno of a destination's third byte."""

    codes = {}
    made = []  # one list for each call

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def apply(self, operations):
        self.made.append([(action, route.dst[2]) for action, route in operations])
        return [self.codes.get(route.dst[2], 0) for _action, route in operations]


def change(n, action="add", after=""):
    route = Route(2, 254, bytes((10, 0, n, 0)), 24, 0, 0, 107, 0, 1)
    return Change("route 10.0.%d.0/24" % n, action, "", "", "", Op(route, "node%d" % n, after))


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setattr(_route_writer, "Writer", FakeWriter)
    FakeWriter.made, FakeWriter.codes = [], {}
    return FakeWriter


CODES = [
    ("add", errno.EEXIST, "appeared meanwhile"),
    ("add", errno.ENETUNREACH, "ENETUNREACH"),
    ("add", errno.EHOSTUNREACH, "not take its next hop as on-link"),
    ("add", errno.EINVAL, "EINVAL"),
    ("add", errno.ENOBUFS, "not known"),
    ("remove", errno.ENOBUFS, "not known"),
    ("add", errno.ENETDOWN, "is down"),
    ("add", errno.EACCES, "IPv6 is disabled"),
    ("add", errno.ENOSPC, "ENOSPC"),
    ("replace", errno.ENOENT, "gone meanwhile"),
    ("replace", errno.ESRCH, "gone meanwhile"),
    ("remove", errno.ESRCH, None),
    ("remove", errno.ENOENT, None),
    ("remove", errno.EBUSY, "EBUSY"),
]


@pytest.mark.parametrize(("action", "code", "words"), CODES)
def test_what_the_kernel_refuses_is_a_problem_of_one_peer(writer, action, code, words):
    writer.codes = {2: code}
    problems = _routes.apply({}, Plan((change(1), change(2, action), change(3))))
    assert writer.made == [[("add", 1), (action, 2), ("add", 3)]]
    if words is None:
        assert problems == ()
    else:
        (problem,) = problems
        assert problem.subject == "route 10.0.2.0/24" and problem.message.startswith("peer node2: ") and words in problem.message


def test_a_route_goes_only_if_its_successor_came(writer):
    writer.codes = {1: errno.ENETUNREACH}
    gone, stays = change(8, "remove"), change(9, "remove", after="route 10.0.1.0/24")
    problems = _routes.apply({}, Plan((change(1), gone, stays, change(7, "remove", after="route 10.0.2.0/24"))))
    assert writer.made == [[("add", 1), ("remove", 8)], [("remove", 7)]]
    assert [p.subject for p in problems] == ["route 10.0.1.0/24", "route 10.0.9.0/24"]


def test_no_permission_is_one_error(writer):
    writer.codes = {1: errno.EPERM}
    with pytest.raises(KindnetError, match="CAP_NET_ADMIN"):
        _routes.apply({}, Plan((change(1), change(2))))
    assert writer.made == [[("add", 1), ("add", 2)]]


def test_nothing_to_change_opens_nothing(monkeypatch):
    monkeypatch.setattr(_route_writer, "Writer", None)
    assert _routes.apply({}, Plan()) == ()


@pytest.mark.parametrize("value", [0, 1, 2, 3, 4, 11, 186, 256, -1])
def test_protocols_of_others(value):
    with pytest.raises(KindnetError, match="protocol"):
        _routes.parse_protocol(value)


@pytest.mark.parametrize(("value", "number"), [("main", 254), ("254", 254), (100, 100), (" 7 ", 7), ("4294967295", 4294967295)])
def test_tables(value, number):
    assert _routes.parse_table(value) == number


@pytest.mark.parametrize("value", ["local", "255", "0", "-1", "4294967296", "9" * 5000, "", "red", "1.5", "٣", None])
def test_no_tables(value):
    with pytest.raises(KindnetError, match="table"):
        _routes.parse_table(value)


@pytest.mark.parametrize(
    ("version", "refused"),
    [("0.6.9", True), ("0.5", True), ("0.7.0", False), ("0.7.2", False), ("0.9.7", False), ("1.0", False), ("0.7.dev1", False), ("", False)],
)
def test_versions_of_pyroute2(version, refused):
    assert bool(_pyroute2_dep._age(version)) is refused


@pytest.mark.parametrize("place", ["", "pyroute2", "pyroute2/__init__.py"])
def test_a_pyroute2_that_others_may_write_is_neither_found_nor_loaded(monkeypatch, tmp_path, place):
    folder = tmp_path / "library"
    (folder / "pyroute2").mkdir(parents=True)
    (folder / "pyroute2/__init__.py").write_text("raise AssertionError('loaded')\n")
    (folder / place).chmod(0o777)
    monkeypatch.setattr(_pyroute2_dep, "FOLDER", str(folder))
    for look in (_pyroute2_dep.require, _pyroute2_dep.load):
        with pytest.raises(KindnetError, match="may be written by others than root"):
            look()


# What __init__ defines, what rtmsg does, and the version in its file; then what comes of it.
PACKAGES = {
    "as it is": ("raise AssertionError('not needed')", "class rtmsg: pass", "0.9.7", "rtmsg"),
    "one that cannot be taken apart": ("thing = 1; __version__ = '0.10.0'", "from pyroute2 import thing\nclass rtmsg: pass", "0.10.0", "rtmsg"),
    "one whose modules look at the package": ("thing = 1", "import pyroute2\npyroute2.thing\nclass rtmsg: pass", "0.10.0", "rtmsg"),
    "too old": ("", "class rtmsg: pass", "0.6.9", "is of version 0.6.9"),
    "too old, with another layout": ("__version__ = '0.5.14'", None, None, "is of version 0.5.14"),
    "with another layout, and new": ("__version__ = '1.0'", None, None, "cannot be imported"),
    "broken": ("1 / 0", "1 / 0", "0.9.7", "ZeroDivisionError"),
    "not there": (None, None, None, "cannot be imported"),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_loaded_of_pyroute2(monkeypatch, tmp_path, package):
    init, codec, version, expected = PACKAGES[package]
    for path, text in (
        ("__init__.py", init), ("netlink/__init__.py", codec and ""), ("netlink/rtnl/__init__.py", codec and ""), ("netlink/rtnl/rtmsg.py", codec),
        ("config/version.py", version and "__version__ = '%s'\n" % version),
    ):
        if text is not None:
            (tmp_path / "pyroute2" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "pyroute2" / path).write_text(text)
    kept = {name: sys.modules[name] for name in list(sys.modules) if name.partition(".")[0] == "pyroute2"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(_pyroute2_dep, "FOLDER", str(tmp_path / "none"))
    try:
        if expected == "rtmsg":
            assert _pyroute2_dep.load().__name__ == "rtmsg"
        else:
            with pytest.raises(KindnetError, match=expected):
                _pyroute2_dep.load()
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "pyroute2"]:
            del sys.modules[name]


class Node:
    def __init__(self, name, node_ips, pod_cidrs):
        self.name, self.node_ips, self.pod_cidrs = name, node_ips, pod_cidrs


@pytest.mark.parametrize(
    ("node_ips", "wanted"),
    [
        (("10.0.0.1", "fd00::9"), ["10.2.0.0/24 10.0.0.2", "fd01::/64 fd00::2", "10.3.0.0/24 10.0.0.2", "fd06::/64 fd00::6"]),
        (("10.0.0.1",), ["10.2.0.0/24 10.0.0.2", "10.3.0.0/24 10.0.0.2"]),
        (("fd00::9",), ["fd01::/64 fd00::2", "fd06::/64 fd00::6"]),
    ],
)
def test_a_route_for_each_family_that_both_have_by_the_first_address_of_the_peer(node_ips, wanted):
    nodes = [
        Node("dual", ("fd00::2", "10.0.0.2", "10.0.0.3", "fd00::1"), ("10.2.0.0/24", "fd01::/64", "10.3.0.0/24")),
        Node("me", node_ips, ("10.1.0.0/24",)),
        Node("six", ("fd00::6",), ("fd06::/64",)),
    ]
    assert [" ".join(p[1:]) for p in _wanted_routes.peers_of(nodes, "me")] == wanted
