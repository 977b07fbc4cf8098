# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table out of the inventory, on the controller. Documented in plugins/modules/kindnet_node_table.py."""

from __future__ import annotations

__metaclass__ = type

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.kindnet.host.plugins.module_utils._desired import require_cluster_name
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import (
    as_list,
    dump_nodes,
    family_of,
    parse_address,
    parse_cidr,
    parse_cidrs,
    parse_nodes,
    shorten,
)
from ansible_collections.kindnet.host.plugins.module_utils._plan import as_data, diff_of
from ansible_collections.kindnet.host.plugins.plugin_utils import _ledger_file
from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import (
    Host,
    plan_ledger,
    plan_node_ips,
    refuse_fresh,
    refuse_other_cluster,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

    from ansible_collections.kindnet.host.plugins.module_utils._node_table import Node
    from ansible_collections.kindnet.host.plugins.plugin_utils._plan_ledger import Ledger, LedgerPlan, NodeIps

# Each of these is one value for the whole cluster, wherever the inventory sets it.
CLUSTER_VARIABLES = (
    "kindnet_node_table",
    "kindnet_cluster_cidrs",
    "kindnet_cluster_name",
    "kindnet_ledger",
    "kindnet_node_cidr_mask_size",
    "kindnet_node_cidr_mask_size_ipv6",
)

LOCK_TIMEOUT = 30.0
# Of the hosts that the ledger knows, so many are asked whether they know more than it does; each has the table of the whole cluster.
WITNESSES = 4
# Hosts outside of a run are asked one after the other.
MOST_OUTSIDE = 16


class Ask(Exception):
    """The table cannot be made before these hosts have said what they know."""

    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__(", ".join(hosts))
        self.hosts = hosts


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        result: Dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "group": {"type": "str", "default": "kindnet_nodes"},
                "node_table": {"type": "raw"},
                "cluster_cidrs": {"type": "list", "elements": "str", "default": []},
                "cluster_name": {"type": "str", "default": "kindnet"},
                "node_cidr_mask_size": {"type": "raw"},
                "node_cidr_mask_size_ipv6": {"type": "raw"},
                "ledger": {"type": "str"},
                "removed_node": {"type": "str"},
                "reread_node_ips": {"type": "bool", "default": False},
                "force_pod_cidr_change": {"type": "bool", "default": False},
                "answers": {"type": "list", "elements": "dict"},
            }
        )
        hosts = variables.get("ansible_play_hosts_all") or []
        here = variables.get("ansible_play_batch") or hosts
        try:
            require_cluster_name(args["cluster_name"])
            cluster_cidrs = parse_cidrs("kindnet_cluster_cidrs", args["cluster_cidrs"])
            refuse_differing_values(variables["hostvars"], hosts)
            if args["node_table"] is not None:
                made = Made(explicit_table(args["node_table"], cluster_cidrs, args["removed_node"]))
            else:
                inventory = Inventory(variables["hostvars"], variables["groups"], args, variables.get("ansible_inventory_sources") or ())
                made = inventory.make(cluster_cidrs, here, self._task.check_mode)
            staying = [h for h in hosts if h != args["removed_node"]]
            refuse_hosts_outside([n.name for n in made.nodes], staying)
        except Ask as e:
            inside = set(here)
            result.update(changed=False, ask=[h for h in e.hosts if h in inside], ask_outside=[h for h in e.hosts if h not in inside])
            return result
        except KindnetError as e:
            result.update(failed=True, msg=str(e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        nodes = made.nodes
        result.update(
            changed=bool(made.plan.changes) if made.plan else False,
            changes=as_data(made.plan.changes) if made.plan else [],
            diff=dict(diff_of(made.plan), before_header=made.path, after_header=made.path) if made.plan and made.plan.changes else [],
            ask=[],
            ask_outside=[],
            ledger=made.path,
            count=len(nodes),
            cluster_cidrs=list(cluster_cidrs),
            families=sorted({family_of(c) for n in nodes for c in n.pod_cidrs}),
            nodes={n.name: {"node_ips": n.node_ips, "pod_cidrs": n.pod_cidrs} for n in nodes},
            nodes_json=dump_nodes(nodes),
            sample_ips=sample([ip for n in nodes for ip in n.node_ips]),
            # Else -v would print pages of table. The setup module does the same.
            _ansible_verbose_override=True,
        )
        return result


class Made:
    """A table, and what became of the ledger."""

    def __init__(self, nodes: Sequence[Node], plan: Any = None, path: str = "") -> None:
        self.nodes, self.plan, self.path = nodes, plan, path


class Inventory:
    """What the inventory says of every member of a group, whoever takes part in the run.

    Membership, addresses and pod CIDRs are declared, or were given once and are in the ledger; they are never observed. A run limited to
    one host, or with a host down, makes the same table.
    """

    def __init__(
        self, hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], args: Mapping[str, Any], sources: Sequence[str]
    ) -> None:
        group = args.get("group") or "kindnet_nodes"
        self.args, self.sources = args, sources
        self.leaving = args.get("removed_node")
        members = [str(h) for h in groups.get(group) or ()]
        if self.leaving and self.leaving in groups:
            raise KindnetError("node", self.leaving, "is the name of an inventory group", "Give the inventory name of one host.")
        if not members and not self.leaving:
            raise KindnetError(
                "kindnet_nodes",
                group,
                "the inventory has no host in this group",
                "Put the nodes into it, name another one in kindnet_nodes, or write kindnet_node_table.",
            )
        self.leaving_is_listed = self.leaving in members
        self.names = [name for name in members if name != self.leaving]
        self.node_ips: Dict[str, List[str]] = {}
        self.interfaces: Dict[str, str] = {}
        self.pod_cidrs: Dict[str, List[str]] = {}
        self.renamed_from: Dict[str, Any] = {}
        self.renumbered_from: Dict[str, Any] = {}
        for name in self.names:
            variables = hostvars[name]
            ips, interface = declared_node_ips(name, variables)
            if interface:
                self.interfaces[name] = interface
            else:
                self.node_ips[name] = ips
            self.pod_cidrs[name] = value_of(name, variables, "kindnet_pod_cidrs")
            # Few hosts have these, and looking for what is not there is cheap.
            for variable, values in (("kindnet_renamed_from", self.renamed_from), ("kindnet_renumbered_from", self.renumbered_from)):
                value = value_of_raw(name, variables, variable)
                if value:
                    values[name] = value
        # None: nobody was asked yet.
        self.answers: Optional[Dict[str, Mapping[str, Any]]] = None
        if args.get("answers") is not None:
            self.answers = {str(a["name"]): a for a in args["answers"] if "pod_cidrs" in a}

    def make(self, cluster_cidrs: Sequence[str], here: Sequence[str], check_mode: bool) -> Made:
        """The table, with the pod CIDRs that the ledger has or gives. Nothing is written unless all of it is right.

        :param here: hosts that take part now; they can be asked all at once.
        """
        required = bool(self.interfaces) or not all(self.pod_cidrs.values())
        path = _ledger_file.find(self.sources, self.args.get("ledger"), required)
        nodes: Tuple[Node, ...] = ()

        def decide(ledger: Optional[Ledger]) -> LedgerPlan:
            nonlocal nodes
            self._refuse_unknown_leaver(ledger)
            planned = self._plan(ledger, cluster_cidrs, here, path)
            rows = [{"name": n, "node_ips": self.node_ips[n], "pod_cidrs": planned.pod_cidrs[n]} for n in self.names]
            # The last host may leave; a table is empty for no other reason.
            nodes = parse_nodes(rows, cluster_cidrs) if rows else ()
            return planned

        planned = _ledger_file.update(path, decide, check_mode, LOCK_TIMEOUT) if path else decide(None)
        return Made(nodes, planned.plan, path)

    def _plan(self, ledger: Optional[Ledger], cluster_cidrs: Sequence[str], here: Sequence[str], path: str) -> LedgerPlan:
        cluster_name = self.args.get("cluster_name") or "kindnet"
        if ledger is not None:
            refuse_other_cluster(ledger, cluster_name)
        known = plan_node_ips(ledger, self.interfaces, self.renamed_from, {})
        unknown = [n for n in self.interfaces if n not in known]
        inside = set(here)
        reread = [n for n in self.interfaces if n in inside and n in known] if self.args.get("reread_node_ips") else []
        if unknown or reread:
            if self.answers is None:
                raise Ask(self._whom(unknown + reread, self._without_block(ledger, cluster_cidrs, known), ledger, here, path))
            needed = {*unknown, *reread}
            found = {n: a["addresses"] for n, a in self.answers.items() if n in needed and a["interface"] == self.interfaces[n]}
            known = plan_node_ips(ledger, self.interfaces, self.renamed_from, found)
            if len(known) < len(self.interfaces):
                raise self._without_address([n for n in self.interfaces if n not in known], path)
        self.node_ips.update({name: list(entry.node_ips) for name, entry in known.items()})
        planned = plan_ledger(
            ledger,
            [self._host(name) for name in self.names],
            cluster_cidrs,
            {4: self.args.get("node_cidr_mask_size") or 24, 6: self.args.get("node_cidr_mask_size_ipv6") or 64},
            cluster_name,
            known,
        )
        moved = [] if self.args.get("force_pod_cidr_change") else [n for n in self.names if self._leaves(n, ledger, planned)]
        if self.answers is None and (planned.given or moved):
            raise Ask(self._whom(moved, list(planned.given), ledger, here, path))
        for name in moved:
            self._refuse_lost_pods(name, planned.pod_cidrs[name])
        if planned.given:
            answers = self.answers or {}
            held: Dict[str, List[str]] = {}
            for answer in answers.values():
                for name, cidrs in answer["pod_cidrs"].items():
                    entry = held.setdefault(name, [])
                    entry.extend(c for c in cidrs if c not in entry)
            own = {name: answer["pod_cidrs"].get(name, ()) for name, answer in answers.items()}
            refuse_fresh(planned, held, path, ledger, own)
            self._refuse_silence([n for n in planned.given if n not in answers], path)
        return planned

    def _without_block(self, ledger: Optional[Ledger], cluster_cidrs: Sequence[str], known: Mapping[str, NodeIps]) -> List[str]:
        """Hosts that could be given a block, while not every address is known, and so not every family."""
        wanted = {family_of(c) for c in cluster_cidrs}
        found = []
        for name in self.names:
            if self.pod_cidrs[name]:
                continue
            entries = ledger.pod_cidrs if ledger else {}
            held = {b.family for b in entries.get(name) or entries.get(str(self.renamed_from.get(name))) or ()}
            ips = known[name].node_ips if name in known else self.node_ips.get(name, ())
            if not held or (wanted & {family_of(ip) for ip in ips}) - held:
                found.append(name)
        return found

    def _leaves(self, name: str, ledger: Optional[Ledger], planned: LedgerPlan) -> bool:
        """Whether the host gives up a block that it holds."""
        entries = ledger.pod_cidrs if ledger else {}
        held = entries.get(name) or entries.get(str(self.renamed_from.get(name))) or ()
        return not {block.text for block in held}.issubset(planned.pod_cidrs[name])

    def _refuse_lost_pods(self, name: str, pod_cidrs: Sequence[str]) -> None:
        """Raise before the ledger and the peers know of another pod CIDR, if pods would keep addresses that nobody routes to the host any more."""
        answer = (self.answers or {}).get(name)
        field = "kindnet_pod_cidrs of %s" % name
        force = "-e kindnet_force_pod_cidr_change=true cuts them off."
        if answer is None:
            problem = "the host cannot be asked whether pods run in what it gives up"
            raise KindnetError(field, ", ".join(pod_cidrs), problem, "Run again when it is up. If there are any, %s" % force)
        ranges = [parse_cidr(field, c) for c in pod_cidrs]
        ips = [parse_address(field, ip) for ip in answer.get("allocations") or ()]
        lost = [ip.text for ip in ips if not any(r.family == ip.family and r.first <= ip.first <= r.last for r in ranges)]
        if lost:
            raise KindnetError(
                field,
                ", ".join(pod_cidrs),
                "%d pods have addresses outside of it: %s" % (len(lost), shorten(lost)),
                "Remove these pods first. Or %s" % force,
            )

    def _host(self, name: str) -> Host:
        families = sorted({parse_address("node_ips of %s" % name, ip).family for ip in self.node_ips[name]})
        return Host(name, self.pod_cidrs[name], self.renamed_from.get(name), self.renumbered_from.get(name), families)

    def _whom(self, needed: Sequence[str], given: Sequence[str], ledger: Optional[Ledger], here: Sequence[str], path: str) -> List[str]:
        """Whom to ask: those without whom it cannot go on, and those who could know of blocks that the ledger does not have.

        A host that was converged alone may be the only one that knows what it holds, so each one that is to be given a block is asked.
        """
        inside = set(here)
        if ledger is None:
            chosen = set(self.names)  # it may be lost: then any of them could hold a block, and it takes one to tell
        else:
            witnesses = [n for n in self.names if n in ledger.pod_cidrs]
            chosen = {*([n for n in witnesses if n in inside][:WITNESSES] or witnesses[:WITNESSES]), *given, *needed}
        outside = [n for n in self.names if n in chosen and n not in inside]
        if len(outside) > MOST_OUTSIDE:
            problem = "there is no ledger yet, and %d hosts do not take part now, any of which may hold pod CIDRs already"
            if ledger is not None:
                problem = "%d hosts do not take part now who are to be given pod CIDRs or renumbered, or whose address was never read"
            raise KindnetError(
                "kindnet_ledger",
                path,
                problem % len(outside),
                "If the ledger is kept elsewhere, bring it back. Else make one run without --limit and kindnet_serial; with --tags node_table"
                " that run does nothing else.",
            )
        return [n for n in self.names if n in chosen]

    def _refuse_silence(self, silent: Sequence[str], path: str) -> None:
        """A host that did not answer may hold a block that nobody here knows of: the ledger may be lost, or older than a run that saw this host alone."""
        if silent:
            raise KindnetError(
                "kindnet_pod_cidrs of %s" % shorten(silent),
                "not in the ledger %s" % path,
                "cannot be asked now whether pod CIDRs were given already, so nobody is given any",
                "If the ledger is kept elsewhere, or was committed since, bring it back. Else bring these hosts up, leave them out of the inventory until"
                " they are, or write their kindnet_pod_cidrs.",
            )

    def _without_address(self, names: Sequence[str], path: str) -> KindnetError:
        name = names[0]
        answer = (self.answers or {}).get(name)
        if answer is not None:
            return KindnetError(
                "kindnet_node_interface of %s" % name,
                self.interfaces[name],
                "has no address by which peers could reach the host (link-local, temporary and deprecated ones do not count)",
                "Name another interface, give this one an address, or set kindnet_node_ips.",
            )
        return KindnetError(
            "kindnet_node_interface of %s" % shorten(names),
            self.interfaces[name],
            "the address was never read, and the host cannot be asked now (once read it is kept in %s)" % path,
            "Run again when the host is up and takes part in the run, or set kindnet_node_ips.",
        )

    def _refuse_unknown_leaver(self, ledger: Optional[Ledger]) -> None:
        if self.leaving and not self.leaving_is_listed and not (ledger and self.leaving in ledger.pod_cidrs):
            raise unknown_leaver(self.leaving, self.names)


def explicit_table(rows: Any, cluster_cidrs: Sequence[str], leaving: Optional[str]) -> Tuple[Node, ...]:
    """The table that kindnet_node_table says, without the node that leaves."""
    try:
        nodes = parse_nodes(rows, cluster_cidrs)
    except KindnetError as e:
        # To say by which variable it came here.
        if e.field.startswith("nodes"):
            raise KindnetError("kindnet_node_table" + e.field[len("nodes") :], e.value, e.problem, e.remedy)
        raise
    staying = tuple(n for n in nodes if n.name != leaving)
    if leaving and len(staying) == len(nodes):
        raise unknown_leaver(leaving, [n.name for n in nodes])
    return staying


def unknown_leaver(name: str, names: Sequence[str]) -> KindnetError:
    return KindnetError(
        "node",
        name,
        "is neither a node (%s) nor in the ledger" % shorten(names),
        "Give the inventory name of one host. A host that left the inventory, and has no block in the ledger, is gone after playbooks/kindnet.yml.",
    )


def declared_node_ips(host: str, variables: Mapping[str, Any]) -> Tuple[List[str], str]:
    """``kindnet_node_ips``; else none, and the interface to read them from; else the address by which Ansible reaches the host, if it is one."""
    ips = value_of(host, variables, "kindnet_node_ips")
    if ips:
        return ips, ""
    interface = value_of_raw(host, variables, "kindnet_node_interface")
    if interface:
        if not isinstance(interface, str):
            raise KindnetError("kindnet_node_interface of %s" % host, interface, "is not a name", "Write the name of one interface, such as eth1.")
        return [], str(interface).strip()
    # Without ansible_host, Ansible itself takes the inventory's name for the address.
    literal = str(value_of_raw(host, variables, "ansible_host") or host)
    literal = literal[1:-1] if literal.startswith("[") and literal.endswith("]") else literal
    try:
        return [parse_address("ansible_host of %s" % host, literal).text], ""
    except KindnetError as e:
        raise KindnetError(
            "node_ips of %s" % host,
            literal,
            "kindnet_node_ips is not set, and ansible_host cannot stand in for it: it %s (a name is never looked up)" % e.problem,
            "Set kindnet_node_ips of this host to the address by which its peers reach it, or kindnet_node_interface to the interface that has it.",
        )


def value_of(host: str, variables: Mapping[str, Any], name: str) -> List[str]:
    """A list of strings out of a host's variables, templated."""
    field = "%s of %s" % (name, host)
    value = value_of_raw(host, variables, name)
    try:
        items = as_list(field, value)
    except AnsibleError as e:
        raise untemplatable(field, e)
    for item in items:
        if isinstance(item, str) and "{{" in item:
            raise untemplatable(field, item)
    return items


def value_of_raw(host: str, variables: Mapping[str, Any], name: str) -> Any:
    field = "%s of %s" % (name, host)
    try:
        value = variables.get(name)
    except AnsibleError as e:
        raise untemplatable(field, e)
    # ansible-core before 2.19 hands the template back where it finds something undefined.
    if isinstance(value, str) and "{{" in value:
        raise untemplatable(field, value)
    return value


def untemplatable(field: str, why: Any) -> KindnetError:
    return KindnetError(
        field,
        " ".join(str(why).split())[:200],
        "cannot be templated from the inventory alone",
        "Write it without facts: a fact is missing whenever a host is down or was not asked.",
    )


def refuse_differing_values(hostvars: Any, hosts: Sequence[str]) -> None:
    """The table is made once for all hosts, so what goes into it must not depend on the host that happens to be the first."""
    first: Dict[str, Any] = {}
    for host in hosts:
        # Untemplated: a value that all hosts share is then one object, and comparing it costs nothing.
        values = hostvars.raw_get(host)
        first = first or values
        for name in CLUSTER_VARIABLES:
            value, expected = values.get(name), first.get(name)
            if value is not expected and value != expected:
                raise KindnetError(
                    name,
                    "differs between %s and %s" % (hosts[0], host),
                    "it holds for the cluster as a whole",
                    "Set it once, for the inventory group of the nodes.",
                )


def sample(addresses: Sequence[str], most: int = 16) -> List[str]:
    """A few addresses from all over the table: enough to tell which interfaces of a host lead to its peers."""
    if len(addresses) <= most:
        return list(addresses)
    return [addresses[i * (len(addresses) - 1) // (most - 1)] for i in range(most)]


def refuse_hosts_outside(names: Sequence[str], hosts: Sequence[str]) -> None:
    """Every host of the play must be a node of the table, or it would be converged to nothing."""
    known = set(names)
    strangers = [h for h in hosts if h not in known]
    if strangers:
        raise KindnetError(
            "node_name",
            shorten(strangers),
            "not in the node table (%s)" % shorten(list(names)),
            "Put each host of the play into the inventory group kindnet_nodes, or into kindnet_node_table under its inventory name.",
        )
