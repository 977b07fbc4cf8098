# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host to route on: network and mount namespaces with one link in the node network, and kindnet_route run inside them for real.

What it tells about the host it has from ``ip``, never from the code under test.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

from waiting import until

# Imports Ansible once and forks for each run, so that a table of a hundred runs takes seconds. One request and one answer per line.
SERVER = r"""
import ctypes, importlib, json, os, subprocess, sys

NEWNET, NEWNS = 0x40000000, 0x00020000
libc = ctypes.CDLL(None, use_errno=True)


def run(*command):
    subprocess.run(command, check=True)


def enter(namespaces):
    if libc.unshare(namespaces):
        raise OSError(ctypes.get_errno(), "unshare")


def fresh():
    # Namespaces that nobody has been in, an empty /run, and an /etc and a /var/lib of which nothing is kept.
    enter(NEWNET)
    if os.path.ismount("/run") and os.path.isdir("/run/etc"):
        run("umount", "/var/lib", "/etc", "/run")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run")
    for place in ("etc", "var/lib"):
        os.makedirs("/run/%s" % place)
        os.makedirs("/run/work/%s" % place)
        run("mount", "-t", "overlay", "overlay", "-o", "lowerdir=/%s,upperdir=/run/%s,workdir=/run/work/%s" % (place, place, place), "/" + place)
    for command in sys.argv[1].split(";"):
        run(*command.split())


enter(NEWNS)
run("mount", "--make-rprivate", "/")
fresh()

from ansible.module_utils.testing import patch_module_args
from ansible_collections.kindnet.host.plugins.modules import cni_conflist, kindnet_masq, kindnet_route
from ansible_collections.kindnet.host.plugins.module_utils import _desired, _files, _reconcile, _reconcile_cli, _route_writer, _routes
from ansible_collections.kindnet.host.plugins.module_utils._plan import Plan

for name in sys.argv[2].split():
    importlib.import_module(name)


def refuse(*args, **kwargs):
    raise AssertionError("a write where none may be: %r %r" % (args, kwargs))


def trouble(meanwhile="true", datagrams=-1, **constants):
    # What happens to a writer: a command between plan and changes, its end by SIGKILL after some datagrams, other constants.
    begin, exchange, left = _route_writer.Writer.__init__, _route_writer.Writer._exchange, [datagrams]

    def begins(self):
        run("sh", "-euc", meanwhile)
        begin(self)

    def exchanges(self, messages):
        if not left[0]:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return exchange(self, messages)

    _route_writer.Writer.__init__, _route_writer.Writer._exchange = begins, exchanges
    for name, value in constants.items():
        setattr(_route_writer, name, value)


def answer(request):
    trouble(**request["trouble"])
    if request["read_only"]:
        _route_writer.Writer.__init__ = refuse
        _files.write_atomic = _files.remove = refuse
    if request["without_pyroute2"]:
        sys.path[:] = [p for p in sys.path if not os.path.exists(os.path.join(p, "pyroute2"))]
    if request["uid"]:
        os.setuid(request["uid"])
    if request["what"] == "module":
        with patch_module_args(request["args"]):
            importlib.import_module("ansible_collections.kindnet.host.plugins.modules." + request["name"]).main()
    elif request["what"] == "reconcile":
        print("exit code %d" % (_reconcile_cli.main(request["argv"]) if request["argv"] else _reconcile.main()))
    else:
        # What kindnet-reconcile does with a section.
        section = _desired.load().sections.get("routes")
        plan = _routes.plan(section, _routes.read(section, None)) if section else Plan()
        failures = () if request["what"] == "look" else _routes.apply(section, plan)
        print(json.dumps({
            "changes": [[c.subject, c.action] for c in plan.changes],
            "problems": [p._asdict() for p in plan.problems + failures], "notes": plan.notes,
        }))


print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["what"] == "fresh":
        fresh()
        print("ready", flush=True)
        continue
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        for fd in (1, 2):
            os.dup2(write_end, fd)
        try:
            answer(request)
        except SystemExit:
            pass
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    os.close(write_end)
    print(json.dumps([child]), flush=True)
    with os.fdopen(read_end) as f:
        print(json.dumps(f.read()), flush=True)
    os.waitpid(child, 0)
"""

# Addresses as in the guide, and a second link that leads to nobody.
LINKS = (
    "sysctl -qw net.ipv6.conf.default.addr_gen_mode=1;ip link set lo up;ip link add eth0 type veth peer name far0;ip link add eth1 type veth peer name far1;"
    "ip link set eth0 up;ip link set far0 up;ip link set eth1 up;ip link set far1 up;"
    "ip addr add 172.18.0.2/16 dev eth0;ip -6 addr add fd00:18::2/64 dev eth0 nodad;ip addr add 172.30.0.2/24 dev eth1"
)

CODE = "ansible_collections.kindnet.host.plugins.module_utils."
WARM = ["_plan_routes", "_on_link", "_node_table", "_removal_guard", "_links", "_masq_options", "_masq_backend", "_masq_shadow", "_nftables", "_plan_table"]
WARM = ["pyroute2", "subprocess", "ipaddress", *(CODE + name for name in [*WARM, "_cni_plugins", "_conflist_data"])]


class RouteHost:
    """Runs until ``close``.

    :param warm: import beforehand, once for all runs, what only runs that change something import.
    """

    def __init__(self, links: str = LINKS, warm: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, links, " ".join(WARM if warm else [])],
            env=dict(
                os.environ,
                PYTHONPATH=os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), os.path.abspath(".ansible/collections")])),
                PYTHONDONTWRITEBYTECODE="1",
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._links = links.count("link set ") - 1  # less lo
        self._addresses6 = re.findall("-6 addr add ([^/]+)/", links)
        self._wait()

    def fresh(self) -> None:
        """As new: other namespaces, with nothing in them but the links."""
        self._send({"what": "fresh"})
        self._wait()

    def _wait(self) -> None:
        assert self._line() == "ready"
        # Of the links and of their addresses, a moment after ip has returned: the kernel does that by and by.
        until("each local route", lambda: self._is_settled(self.sh("ip -6 route show table local")))

    def _is_settled(self, local: str) -> bool:
        return local.count("multicast ff00::/8 ") >= self._links and all("local %s dev" % a in local for a in self._addresses6)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, what: str, args: dict[str, Any] | None = None, **request: Any) -> int:
        """Begin a run; its process id. ``finish`` has to follow."""
        defaults = {"what": what, "name": "kindnet_route", "args": args or {}, "read_only": False, "without_pyroute2": False, "uid": 0, "trouble": {}}
        self._send(dict(defaults, **request))
        pid: int = json.loads(self._line())[0]
        return pid

    def finish(self) -> str:
        output: str = json.loads(self._line())
        return output

    def module(
        self, check: bool = False, read_only: bool = False, without_pyroute2: bool = False, uid: int = 0, name: str = "kindnet_route", **args: Any
    ) -> dict[str, Any]:
        """One run of a module; its result."""
        if isinstance(args.get("nodes"), list):
            args["nodes"] = json.dumps(args["nodes"])
        args.update(_ansible_check_mode=check, _ansible_diff=True)
        self.start("module", args, read_only=read_only, without_pyroute2=without_pyroute2, uid=uid, name=name)
        output = self.finish()
        try:
            result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise AssertionError(output)
        return result

    def a_pass(self, read_only: bool = False, **trouble: Any) -> dict[str, Any]:
        """What a pass of the timer does about routes.

        :param trouble: what happens to it; arguments of the function of this name above.
        """
        self.start("look" if read_only else "pass", read_only=read_only, trouble=trouble)
        output = self.finish()
        try:
            result: dict[str, Any] = json.loads(output)
        except ValueError:
            raise AssertionError(output)
        return result

    def reconcile(self, *arguments: str) -> str:
        """All that kindnet-reconcile prints, and its exit code."""
        self.start("reconcile", argv=list(arguments))
        return self.finish()

    def command(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.process.pid), "--net", "--mount", "--", *command]

    def sh(self, script: str) -> str:
        done = subprocess.run(self.command("sh", "-euc", script), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, "%s\n%s\n%s" % (script, done.stdout, done.stderr)
        return done.stdout

    def routes(self) -> list[dict[str, Any]]:
        """Every route of both families in every table, in the kernel's order, without what changes by itself."""
        found = []
        for family in ("-4", "-6"):
            for route in json.loads(self.sh("ip %s -json -details route show table all" % family) or "[]"):
                route.pop("expires", None)
                found.append(dict(route, family=family))
        return found

    def foreign(self, protocol: str = "107") -> list[dict[str, Any]]:
        return [r for r in self.routes() if r.get("protocol") != protocol]

    def lines(self, dst: str, options: str = "") -> list[str]:
        """What ``ip route`` prints for one destination, in order."""
        family = "-6" if ":" in dst else "-4"
        output = self.sh("ip %s route show %s %s" % (family, dst, options))
        words = [" ".join(line.split()) for line in output.replace("\n\t", " ").splitlines()]
        return [w.replace(" pref medium", "").replace("lowdelay", "0x10").replace("%s " % dst, "").strip() for w in words]

    def desired(self) -> str:
        return self.sh("cat /etc/kindnet/desired.json 2>/dev/null || true")


def node(name: str, ips: str, cidrs: str) -> dict[str, Any]:
    return {"name": name, "node_ips": ips.split(), "pod_cidrs": cidrs.split()}


def table_of(count: int) -> list[dict[str, Any]]:
    """This host, ``me``, and ``count`` peers with a pod CIDR each."""
    peers = [
        node("peer%d" % i, "172.18.%d.%d" % (1 + i // 250, 1 + i % 250), "10.%d.%d.0/24" % (100 + i // 250, i % 250)) for i in range(1, count + 1)
    ]
    return [node("me", "172.18.0.2", "10.99.0.0/24"), *peers]


def quartet(host: RouteHost, expect_failure: bool = False, expect_change: bool = True, **args: Any) -> dict[str, Any]:
    """Check, real, repeat, repeat with check: predicted is what is done, then nothing is left to do. The result of the real run."""
    before, recorded = host.routes(), host.desired()
    predicted = host.module(check=True, read_only=True, **args)
    assert host.routes() == before and host.desired() == recorded
    real = host.module(**args)
    for key in ("changed", "changes", "diff", "routes", "unchanged", "problems", "notes", "failed"):
        assert predicted.get(key) == real.get(key), (key, predicted, real)
    assert bool(real.get("failed")) == expect_failure, real
    # The table's changes are told apart from its being recorded.
    assert any(c["subject"].startswith("route ") for c in real["changes"]) == expect_change, real
    after = host.routes()
    for check in (False, True):
        again = host.module(check=check, read_only=check, **args)
        assert again["changed"] is False and again["changes"] == [], again
        assert again["problems"] == real["problems"]
        assert host.routes() == after
    if args.get("persist", True):
        assert host.a_pass(read_only=True)["changes"] == []
    return real
