# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node table out of the inventory, on the controller. Documented in plugins/modules/kindnet_node_table.py."""

from __future__ import annotations

__metaclass__ = type

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._node_table import (
    as_list,
    dump_nodes,
    family_of,
    parse_address,
    parse_cidrs,
    parse_nodes,
    shorten,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence

# Each of these is one value for the whole cluster, wherever the inventory sets it.
CLUSTER_VARIABLES = ("kindnet_node_table", "kindnet_cluster_cidrs", "kindnet_cluster_name")


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
            }
        )
        try:
            cluster_cidrs = parse_cidrs("kindnet_cluster_cidrs", args["cluster_cidrs"])
            hosts = variables.get("ansible_play_hosts_all") or []
            refuse_differing_values(variables["hostvars"], hosts)
            rows = args["node_table"]
            if rows is None:
                rows = declared_nodes(variables["hostvars"], variables["groups"], args["group"])
            nodes = parse_nodes(rows, cluster_cidrs)
            refuse_hosts_outside([n.name for n in nodes], hosts)
        except KindnetError as e:
            result.update(failed=True, msg=str(e), field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        result.update(
            changed=False,
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


def declared_nodes(hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], group: str) -> List[Dict[str, Any]]:
    """What the inventory says of every member of ``group``, whoever takes part in the run.

    Membership, addresses and pod CIDRs are declared, never observed: a run limited to one host, or with a host down, makes the same table.
    """
    if not groups.get(group):
        raise KindnetError(
            "kindnet_nodes",
            group,
            "the inventory has no host in this group",
            "Put the nodes into it, name another one in kindnet_nodes, or write kindnet_node_table.",
        )
    rows = []
    for host in groups[group]:
        variables = hostvars[host]
        rows.append(
            {
                "name": str(host),
                "node_ips": declared_node_ips(host, variables),
                "pod_cidrs": value_of(host, variables, "kindnet_pod_cidrs"),
            }
        )
    give_pod_cidrs(rows)
    return rows


def declared_node_ips(host: str, variables: Mapping[str, Any]) -> List[str]:
    """``kindnet_node_ips``, else the address by which Ansible reaches the host, if it is one."""
    ips = value_of(host, variables, "kindnet_node_ips")
    if ips:
        return ips
    # Without ansible_host, Ansible itself takes the inventory's name for the address.
    literal = str(value_of_raw(host, variables, "ansible_host") or host)
    literal = literal[1:-1] if literal.startswith("[") and literal.endswith("]") else literal
    try:
        return [parse_address("ansible_host of %s" % host, literal).text]
    except KindnetError as e:
        raise KindnetError(
            "node_ips of %s" % host,
            literal,
            "kindnet_node_ips is not set, and ansible_host cannot stand in for it: it %s (a name is never looked up)" % e.problem,
            "Set kindnet_node_ips of this host to the address by which its peers reach it.",
        )


def give_pod_cidrs(rows: List[Dict[str, Any]]) -> None:
    """Every row has its pod CIDRs afterwards. They come from the inventory; whoever gives them out from a range does it here."""
    without = [row["name"] for row in rows if not row["pod_cidrs"]]
    if without:
        raise KindnetError(
            "kindnet_pod_cidrs",
            "none",
            "no pod CIDR is set for %s" % shorten(without),
            "Set kindnet_pod_cidrs of each of these hosts, such as ['10.244.1.0/24'].",
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
    for name in CLUSTER_VARIABLES:
        first, expected = None, None
        for host in hosts:
            # Untemplated: a value that all hosts share is then one object, and comparing it costs nothing.
            value = hostvars.raw_get(host).get(name)
            if first is None:
                first, expected = host, value
            elif value is not expected and value != expected:
                raise KindnetError(
                    name,
                    "differs between %s and %s" % (first, host),
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
