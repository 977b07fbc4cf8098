# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes of the scenario as tests see them: what the inventory says of them, and what their own tools print.

Nothing here imports or runs our code; kindnet-reconcile is only ever started as systemd does it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Iterator

import testinfra
import yaml

ROOT = Path(__file__).resolve().parents[2]
# As Ansible is given them; what a later one says of a host or group wins.
INVENTORIES = [ROOT / path for path in os.environ.get("KINDNET_INVENTORY", ".lab/inventory.yml").split(":")]
EPHEMERAL = Path(os.environ.get("MOLECULE_EPHEMERAL_DIRECTORY", ROOT / ".lab"))
LAB = Path("/run/kindnet-lab")

# Through what the scenario's nodes masquerade: the program that prints the rules.
SAVE = os.environ.get("KINDNET_SAVE", "iptables-save")
NFT = "nft"

PROTOCOL = "107"
CHAIN = "KIND-MASQ-AGENT"
CONFLIST = "/etc/cni/net.d/10-kindnet.conflist"
SERVICE = "kindnet-reconcile.service"
TIMER = "kindnet-reconcile.timer"
# The last one waits for the one that may be under way. One that was ended would leave that as a problem.
END_PASSES = f"systemctl stop {TIMER}; systemctl start {SERVICE}"

MONOTONIC = "/usr/bin/python3 -I -S -c 'import time; print(time.monotonic_ns() // 1000)'"  # as systemd counts, in µs
PASS_LIMIT = 120  # seconds until a pass must have completed: a period, a wait for a lock, and a kernel that has much else to do


def of_family(family: int, texts: list[str]) -> list[str]:
    """Those of the addresses or networks that are of IPv4 or IPv6."""
    return [text for text in texts if (":" in text) == (family == 6)]


def families_of(texts: list[str]) -> list[int]:
    return [family for family in (4, 6) if of_family(family, texts)]


class Node:
    """One node, reached as Ansible reaches it."""

    def __init__(self, name: str, declared: dict[str, Any], cluster_cidrs: list[str]) -> None:
        self.name = name
        self.node_ips: list[str] = declared["kindnet_node_ips"] or [declared["ansible_host"]]
        self.pod_cidrs: list[str] = declared["kindnet_pod_cidrs"]
        self.cluster_cidrs = cluster_cidrs

    def __repr__(self) -> str:
        return self.name

    def node_ip(self, family: int) -> str:
        """The address by which peers reach it in this family; "" if they do not."""
        return next(iter(of_family(family, self.node_ips)), "")

    def pod_cidr(self, family: int) -> str:
        return next(iter(of_family(family, self.pod_cidrs)), "")

    @cached_property
    def host(self) -> testinfra.host.Host:
        return testinfra.get_host(
            f"ssh://{self.name}",
            sudo=True,
            ssh_config=str(ROOT / ".lab/ssh_config"),
            # Where the lab looks for connections that a restart of the node has made useless.
            controlpath=str(LAB / "ssh/%%C"),
        )

    def run(self, command: str) -> testinfra.backend.base.CommandResult:
        return self.host.run("sh -c %s", command)

    def sh(self, command: str) -> str:
        done = self.run(command)
        assert done.rc == 0, f"{self.name}: {command}: exit code {done.rc}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, command: str) -> Any:
        return json.loads(self.sh(command) or "[]")

    # --- What the kernel holds

    def routes(self, protocol: str = "", family: int = 4) -> list[dict[str, Any]]:
        """Routes as data, sorted; protocols and the like as numbers, so that no file of ours can rename them."""
        rows = self.json(f"ip -{family} -N -details -json route show table main")
        return by_text([r for r in rows if protocol in ("", r["protocol"])])

    def own_routes(self, family: int = 4) -> dict[str, str]:
        """Destination to next hop, of the routes of our protocol."""
        rows = self.routes(PROTOCOL, family)
        found = {r["dst"]: r.get("gateway", json.dumps(r)) for r in rows}
        assert len(found) == len(rows), f"{self.name}: two routes of ours to one destination: {rows}"
        return found

    def peer_interface(self, address: str) -> dict[str, Any]:
        """The interface that reaches a peer."""
        return self.peer_interfaces([address])[0]

    def peer_interfaces(self, addresses: list[str]) -> list[dict[str, Any]]:
        """The interfaces that reach them, asked for in one go."""
        out = self.sh("; ".join(["ip -json link show", *(f"ip -json route get {a}" for a in addresses)]))
        links, *routes = (json.loads(line) for line in out.splitlines())
        by_name = {link["ifname"]: link for link in links}
        return [by_name[route["dev"]] for (route,) in routes]

    def nat(self, save: str = "iptables-save") -> list[str]:
        return [line for line in self.sh(f"{save} -t nat").splitlines() if not line.startswith("#")]

    def chain_lines(self, save: str = "iptables-save") -> list[str]:
        """All that names our chain, in order: its declaration, its jump, its rules."""
        return [line for line in self.nat(save) if CHAIN in line]

    def table(self) -> list[str]:
        """Our table of nftables, less what its counters say."""
        # A pristine node has no nft.
        if self.run("command -v nft").rc or "table inet kindnet" not in self.sh("nft list tables").splitlines():
            return []
        lines = self.sh("nft list table inet kindnet").splitlines()
        return [re.sub(r"counter packets \d+ bytes \d+", "counter", line.strip()) for line in lines if line.strip()]

    # --- Passes

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        out = self.sh(f"systemctl show --property={','.join(properties)} {unit}")
        values: dict[str, str] = {}
        for line in out.splitlines():
            name, _equals, value = line.partition("=")
            values[name] = f"{values[name]}\n{value}" if name in values else value
        return values

    def monotonic(self) -> int:
        return int(self.sh(MONOTONIC))

    def await_pass(self, since: int | None = None) -> str:
        """Wait until a pass that the timer began after ``since`` (default: now) has ended; its exit code."""
        since = self.monotonic() if since is None else since
        return until(f"{self.name}: a pass completes", lambda: completed_after(since, self.show(SERVICE, *LAST_PASS)), PASS_LIMIT)

    def do_pass(self) -> str:
        """Have systemd make a pass now, as its timer would, and wait for it; its exit code."""
        command = f"{MONOTONIC}; systemctl start {SERVICE}; systemctl show --property={','.join(LAST_PASS)} {SERVICE}"

        def completed() -> str | None:
            # Waits for the end. It joins a pass that the timer has begun already, which may have looked before the damage was done.
            since, *values = self.sh(command).split()
            return completed_after(int(since), dict(v.split("=") for v in values))

        return until(f"{self.name}: a pass completes", completed, PASS_LIMIT)

    # --- The journal

    def cursor(self) -> str:
        return self.sh("journalctl --sync; journalctl --lines=0 --show-cursor --quiet").split("-- cursor: ")[1].strip()

    def journal(self, cursor: str, unit: str = SERVICE) -> list[str]:
        """What the journal has of the unit since, systemd's lines about it included."""
        # Asked with --unit, journalctl drops the first line that fits when the one of the cursor does not.
        fields = "MESSAGE,_SYSTEMD_UNIT,UNIT"
        out = self.sh(f"journalctl --sync; journalctl --quiet --output=json --output-fields={fields} --after-cursor={shlex.quote(cursor)}")
        entries = [json.loads(line) for line in out.splitlines()]
        return [e["MESSAGE"] for e in entries if unit in (e.get("_SYSTEMD_UNIT"), e.get("UNIT"))]

    # --- Files

    def write(self, path: str, content: str) -> None:
        """In place, as an editor or a careless script does."""
        encoded = base64.b64encode(content.encode()).decode()
        self.sh(f"echo {encoded} | base64 -d > {path}")

    def read(self, path: str) -> str:
        return self.sh(f"cat {path}")


# When the last pass began and ended (0 while it runs), and its exit code.
LAST_PASS = ("ExecMainStartTimestampMonotonic", "ExecMainExitTimestampMonotonic", "ExecMainStatus")


def completed_after(since: int, last: dict[str, str]) -> str | None:
    """The exit code of the last pass, if it began after ``since`` and has ended."""
    began, ended, code = (last[name] for name in LAST_PASS)
    return code if int(began) > since and int(ended) >= int(began) else None


@dataclass
class Run:
    """What a run of a playbook did, by the record_runs callback."""

    playbook: str
    check: bool
    changed: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    unreachable: list[str]
    modules: list[list[str]]
    rc: int = 0
    output: str = field(default="", repr=False)

    def pairs(self) -> list[tuple[str, str]]:
        return sorted((c["host"], c["task"]) for c in self.changed)

    def messages(self, host: str) -> str:
        return "\n".join(f["msg"] for f in self.failed if f["host"] == host)


def runs() -> list[Run]:
    """The runs of this scenario since it was prepared, in order."""
    path = EPHEMERAL / "runs.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [Run(**json.loads(line)) for line in lines]
    last = max((i for i, r in enumerate(rows) if r.playbook == "prepare.yml"), default=-1)
    return rows[last + 1 :]


def load_inventory() -> dict[str, Any]:
    """The inventories as one."""
    whole: dict[str, Any] = {"hosts": {}, "vars": {}}
    for path in INVENTORIES:
        group = yaml.safe_load(path.read_text(encoding="utf-8"))["kindnet_nodes"]
        whole["vars"].update(group.get("vars", {}))
        for name, declared in group["hosts"].items():
            whole["hosts"].setdefault(name, {}).update(declared)
    return {"kindnet_nodes": whole}


def load_nodes() -> dict[str, Node]:
    group = load_inventory()["kindnet_nodes"]
    return {name: Node(name, declared, group["vars"]["kindnet_cluster_cidrs"]) for name, declared in group["hosts"].items()}


def expected_routes(node: Node, nodes: dict[str, Node], family: int = 4) -> list[dict[str, Any]]:
    """The routes of ours that a node must have, as `ip -N -details -json` prints them: one per peer and pod CIDR of a family that both
    have, and not a word more."""
    defaults = {"metric": 1024, "pref": "medium"} if family == 6 else {}
    peers = [p for p in nodes.values() if p is not node and node.node_ip(family) and of_family(family, p.pod_cidrs)]
    return [
        {
            "type": "1",
            "dst": cidr,
            "gateway": peer.node_ip(family),
            "dev": link["ifname"],
            "protocol": PROTOCOL,
            "scope": "0",
            "flags": [],
            **defaults,
        }
        for peer, link in zip(peers, node.peer_interfaces([p.node_ip(family) for p in peers]))
        for cidr in of_family(family, peer.pod_cidrs)
    ]


def expected_chain(cluster_cidrs: list[str]) -> list[str]:
    """What `iptables-save` prints of kindnetd's chain, down to the letter."""
    return [
        f":{CHAIN} - [0:0]",
        "-A POSTROUTING -m addrtype ! --dst-type LOCAL -m comment --comment"
        ' "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain"'
        " -j KIND-MASQ-AGENT",
        *(
            f'-A {CHAIN} -d {cidr} -m comment --comment "kind-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN'
            for cidr in cluster_cidrs
        ),
        f"-A {CHAIN} -m comment --comment"
        ' "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE',
    ]


def expected_table(cluster_cidrs: list[str]) -> list[str]:
    """What `nft list table inet kindnet` prints: what kindnetd's chain says, for both families."""
    families = families_of(cluster_cidrs)
    ip = {4: "ip", 6: "ip6"}
    sets = [
        line
        for f in families
        for line in (
            f"set non_masquerade_ipv{f} {{",
            f"type ipv{f}_addr",
            "flags interval",
            f"elements = {{ {', '.join(of_family(f, cluster_cidrs))} }}",
            "}",
        )
    ]
    return [
        "table inet kindnet {",
        *sets,
        f"chain {CHAIN} {{",
        *(
            f'{ip[f]} daddr @non_masquerade_ipv{f} counter return comment "kind-masq-agent: local traffic is not subject to MASQUERADE"'
            for f in families
        ),
        *(
            f"meta nfproto ipv{f} counter masquerade comment"
            ' "kind-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)"'
            for f in families
        ),
        "}",
        "chain postrouting {",
        "type nat hook postrouting priority srcnat + 1; policy accept;",
        f"fib daddr type != local counter jump {CHAIN} comment"
        ' "kind-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom KIND-MASQ-AGENT chain"',
        "}",
        "}",
    ]


def expected_conflist(node: Node, nodes: dict[str, Node]) -> dict[str, Any]:
    family = 6 if ":" in node.pod_cidrs[0] else 4
    peer = next(p for p in nodes.values() if p is not node and p.node_ip(family))
    return {
        "cniVersion": "0.3.1",
        "name": "kindnet",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam-state",
                    "routes": [{"dst": "::/0" if ":" in cidr else "0.0.0.0/0"} for cidr in node.pod_cidrs],
                    "ranges": [[{"subnet": cidr}] for cidr in node.pod_cidrs],
                },
                "mtu": node.peer_interface(peer.node_ip(family))["mtu"],
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


def in_family(family: int, command: str) -> str:
    """The command of iptables for that family."""
    return command.replace("iptables", "ip6tables") if family == 6 else command


def assert_masquerades(node: Node, save: str = SAVE) -> None:
    """The masquerade chain is where ``save`` prints it, to the letter, and nowhere else."""
    for other in ("iptables-nft-save", "iptables-legacy-save", NFT):
        if other == NFT:
            assert node.table() == (expected_table(node.cluster_cidrs) if save == NFT else []), node
            continue
        here = other == save or save == "iptables-save" and other == "iptables-nft-save"
        for family in (4, 6):
            cidrs = of_family(family, node.cluster_cidrs) if here else []
            assert node.chain_lines(in_family(family, other)) == (expected_chain(cidrs) if cidrs else []), (node, other)


def assert_converged(node: Node, nodes: dict[str, Node], save: str = SAVE) -> None:
    """The state that a converge makes and that every pass restores, in the families that the cluster has."""
    if save == NFT:
        assert node.table() == expected_table(node.cluster_cidrs), node
    for family in families_of(node.cluster_cidrs):
        assert node.routes(PROTOCOL, family) == by_text(expected_routes(node, nodes, family)), node
        if save != NFT:
            assert node.chain_lines(in_family(family, save)) == expected_chain(of_family(family, node.cluster_cidrs)), node
        if node.pod_cidr(family):
            assert node.sh(f"sysctl -n {FORWARDING[family]}") == "1\n", node
    assert json.loads(node.read(CONFLIST)) == expected_conflist(node, nodes), node


def by_text(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda r: json.dumps(r, sort_keys=True))


def until(what: str, probe: Callable[[], Any], limit: float = 30, period: float = 0.2) -> Any:
    """What ``probe`` returns once it is not None."""
    deadline = time.monotonic() + limit
    while True:
        value = probe()
        if value is not None:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what}")
        time.sleep(period)


def lab(*arguments: str) -> str:
    """A verb of the lab, such as nodes stop NODE."""
    script, *rest = arguments
    done = subprocess.run([ROOT / "lab" / script, *rest], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"lab/{' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def play(playbook: str, *arguments: str, inventory: Path | None = None, **environment: str) -> Run:
    """Run a playbook as an operator does, from the checkout; what it changed."""
    return start_play(playbook, *arguments, inventory=inventory, **environment)()


def start_play(playbook: str, *arguments: str, inventory: Path | None = None, **environment: str) -> Callable[[], Run]:
    """The same, begun; the result when called."""
    inventories = [inventory] if inventory else INVENTORIES
    record = EPHEMERAL / f"run-{time.monotonic_ns()}"
    record.mkdir(parents=True)
    variables = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    variables.update(
        ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
        ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "molecule/shared/callback"),
        ANSIBLE_CALLBACKS_ENABLED="record_runs",
        MOLECULE_EPHEMERAL_DIRECTORY=str(record),
    )
    variables.update(environment)
    command = [ROOT / ".venv/bin/ansible-playbook", *(f"--inventory={i}" for i in inventories), ROOT / "playbooks" / playbook, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def result() -> Run:
        output, _unused = process.communicate(timeout=300)
        lines = (record / "runs.jsonl").read_text(encoding="utf-8").splitlines() if (record / "runs.jsonl").exists() else []
        values = json.loads(lines[-1]) if lines else {"playbook": playbook, "check": False, "changed": [], "failed": [], "unreachable": []}
        return Run(**values, rc=process.returncode, output=output)

    return result


class Watch:
    """What a monitor on the node prints while something else happens, less what the marks make it print."""

    command = ""
    mark = ""  # a change that is nobody's, and undone: once the monitor prints it, it has printed all before it
    marked = ""  # what of a line says that it is about the mark

    def __init__(self, node: Node) -> None:
        self.node, self.unit = node, f"watch-{time.monotonic_ns()}"
        self.path = f"/run/{self.unit}"

    def __enter__(self) -> Watch:
        self.node.sh(f"systemd-run --quiet --unit={self.unit} sh -c {shlex.quote(f'exec {self.command} >{self.path} 2>&1')}")
        self._marks_seen(again=True)
        return self

    def changes(self) -> list[str]:
        """What was seen so far."""
        self._marks_seen(again=False)
        return [line.strip() for line in self.node.read(self.path).splitlines() if self.marked not in line]

    def _marks_seen(self, again: bool) -> None:
        """Make a mark and wait until it is seen; a monitor that does not listen yet will not see the first one."""
        before = self._count()
        self.node.sh(self.mark)

        def seen() -> bool | None:
            if self._count() >= before + 2:
                return True
            if again:
                self.node.sh(self.mark)
            return None

        until(f"{self.command} prints", seen)

    def _count(self) -> int:
        return self.node.sh(f"touch {self.path}; cat {self.path}").count(self.marked)

    def __exit__(self, *unused: Any) -> None:
        self.node.run(f"systemctl stop {self.unit}; rm -f {self.path}")


class RouteWatch(Watch):
    """Every change of a route of any family, a line each."""

    command = "ip -N -o monitor route"
    mark = "ip route add blackhole 203.0.113.255 && ip route del blackhole 203.0.113.255"
    marked = "203.0.113.255"


class RuleWatch(Watch):
    """Every transaction of nftables, which iptables-nft uses too, a line each."""

    command = "sh -c 'nft monitor | grep --line-buffered new.generation'"
    mark = "nft add table inet probe; nft delete table inet probe"
    marked = "(nft)"


def table_json(rows: list[dict[str, Any]]) -> str:
    return json.dumps({"kindnet_node_table": rows})


def declared_table(nodes: dict[str, Node]) -> list[dict[str, Any]]:
    return [{"name": n.name, "node_ips": n.node_ips, "pod_cidrs": n.pod_cidrs} for n in nodes.values()]


def numbers(lines: list[str], pattern: str) -> Iterator[int]:
    for line in lines:
        match = re.search(pattern, line)
        if match:
            yield int(match.group(1))
