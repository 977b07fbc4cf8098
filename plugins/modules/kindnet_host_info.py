#!/usr/bin/python
# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a host that the roles need to know."""

from __future__ import annotations

__metaclass__ = type

DOCUMENTATION = r"""
module: kindnet_host_info
short_description: Tell what a host has, lacks, and who else programs its routes
version_added: "0.1.0"
description:
  - Looks at the distribution, at packages, at tools, at pyroute2, and at running daemons that would fight over the same routes and rules.
  - Changes nothing. Takes the place of gathered facts, at a fraction of their cost, and needs nothing on the host but Python 3.9.
  - kindnetd assumes all this of the node image of kind.
options:
  packages:
    description:
      - Packages to look for, by distribution.
      - Keys are tried from the most specific one on, C(ID-VERSION_ID), C(ID) with the first number of C(VERSION_ID), C(ID), then the same two of
        each of C(ID_LIKE), all of C(/etc/os-release). On Rocky Linux 9.4 these are V(rocky-9.4), V(rocky-9), V(rocky), V(rhel-9), V(rhel) and so on.
      - The first key that is there wins.
    type: dict
    default: {}
  rival_daemons:
    description:
      - Daemons that program routes, rules or CNI configuration of the same kind. They are found by the name of their executable, also when they
        run in a container, unless that has a network of its own.
    type: list
    elements: str
    default: [kindnetd, flanneld, kube-router, ip-masq-agent]
  fail_on_rivals:
    description: Fail when such a daemon runs, naming it.
    type: bool
    default: false
  fail_on_pods:
    description: Fail when pods run that have their network from the recorded or usual CNI configuration, naming them.
    type: bool
    default: false
  nodes:
    description:
      - The node table as one JSON string, as M(kindnet.host.kindnet_route) takes it. Needs O(node_name).
      - With it the module fails if a pod CIDR overlaps a network by which this host reaches its peers. Only the host knows how large that is,
        and M(kindnet.host.kindnet_route), which refuses it as well, runs last.
    type: str
  node_name:
    description: The name of this host in O(nodes).
    type: str
attributes:
  check_mode:
    support: full
    description: Changes nothing, in check mode as otherwise.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
author:
  - the kindnet.host authors (@kindnet-host)
"""

EXAMPLES = r"""
- name: Look at the host
  kindnet.host.kindnet_host_info:
    packages:
      debian: [iproute2, iptables]
      rhel: [iproute, iptables-nft]
    fail_on_rivals: true
  register: host

- name: Say what is missing
  ansible.builtin.debug:
    var: host.missing_packages
"""

RETURN = r"""
distribution:
  description: C(ID), C(VERSION_ID) and C(ID_LIKE) of os-release.
  returned: always
  type: dict
  sample: {id: ubuntu, version_id: "24.04", id_like: [debian]}
package_manager:
  description: V(apt), V(dnf), or empty when the host has neither.
  returned: always
  type: str
  sample: apt
packages:
  description: The packages of O(packages) that are those of this distribution.
  returned: always
  type: list
  elements: str
  sample: [iproute2, iptables]
missing_packages:
  description: Those of them that are not installed.
  returned: always
  type: list
  elements: str
  sample: [iptables]
complete:
  description: Whether no package is missing, and pyroute2 can be used.
  returned: always
  type: bool
  sample: true
tools:
  description: Where commands are; empty for one that is not there.
  returned: always
  type: dict
  sample: {ip: /usr/sbin/ip, iptables-nft: /usr/sbin/iptables-nft, iptables-legacy: ""}
cni_plugin_dirs:
  description: Folders with the reference plugins in them.
  returned: always
  type: list
  elements: str
  sample: [/usr/lib/cni]
cni_archives:
  description: Digests of the archives out of which M(kindnet.host.cni_plugin_archive) has unpacked plugins here.
  returned: always
  type: list
  elements: str
  sample: []
  version_added: "0.2.0"
check_mode:
  description: Whether the module ran in check mode, by whichever switch. C(ansible_check_mode) knows of C(--check) alone.
  returned: always
  type: bool
  sample: false
  version_added: "0.2.0"
python_version:
  description: Version of the Python that ran this module.
  returned: always
  type: str
  sample: 3.11.2
pyroute2_problem:
  description: Why pyroute2 cannot be used by this module's Python or by C(/usr/bin/python3), which C(kindnet-reconcile) runs on; empty if it can.
  returned: always
  type: str
  sample: is not installed for /usr/bin/python3
pods:
  description:
    - Addresses that host-local has given to pods, and the container that holds each.
    - The plugin C(ptp) makes a route to each pod, on C(interface), so what a crash left is told apart and not listed. Other plugins, such as
      C(bridge), leave no such sign; of them every address is listed, with an empty C(interface).
  returned: always
  type: list
  elements: dict
  sample: [{ip: 10.244.1.2, container: 3f5c2e, interface: veth1b2c3d}]
managed:
  description: Whether this collection has ever been at work here, and was not taken out since. What looks like its work elsewhere is kindnetd's.
  returned: always
  type: bool
  sample: true
rivals:
  description: Daemons of O(rival_daemons) that run.
  returned: always
  type: list
  elements: dict
  sample: [{name: kindnetd, pid: 812, command: /bin/kindnetd}]
"""

import os
import platform
import shlex
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.kindnet.host.plugins.module_utils import (
    _conflist,
    _desired,
    _gather_pods,
    _gather_routes,
    _plugin_archive,
    _pyroute2_dep,
)
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError
from ansible_collections.kindnet.host.plugins.module_utils._managed import is_managed
from ansible_collections.kindnet.host.plugins.module_utils._node_table import find_node, parse_nodes
from ansible_collections.kindnet.host.plugins.module_utils._rivals import running
from ansible_collections.kindnet.host.plugins.module_utils._routes import refuse_overlap_with_node_network

TOOLS = (
    "ip",
    "iptables",
    "iptables-nft",
    "iptables-legacy",
    "ip6tables",
    "nft",
    "systemctl",
    "containerd",
    "conntrack",
    "ping",
)
TOOL_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
CNI_PLUGIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
PASS_PYTHON = "/usr/bin/python3"
LEFTOVER = " If a crash left one that names no interface, remove the file of its name in host-local's dataDir."


def os_release():
    values = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as f:
                for line in f:
                    key, is_assignment, value = line.strip().partition("=")
                    if is_assignment and not key.startswith("#"):
                        values[key] = "".join(shlex.split(value)[:1])
            break
        except (OSError, ValueError):
            continue
    return {"id": values.get("ID", ""), "version_id": values.get("VERSION_ID", ""), "id_like": values.get("ID_LIKE", "").split()}


def packages_of(packages, distribution):
    """The value of the most specific key of ``packages``."""
    major = distribution["version_id"].split(".")[0]
    names = [distribution["id"]] + distribution["id_like"]
    keys = ["%s-%s" % (distribution["id"], distribution["version_id"])]
    for name in names:
        keys += ["%s-%s" % (name, major), name]
    for key in keys:
        if key in packages:
            return list(packages[key] or ())
    return []


def missing_of(module, packages):
    """Those that are not installed, asked of the package database itself: python3-apt is missing where it would be needed most."""
    if not packages:
        return []
    dpkg, rpm = find_tool("dpkg-query"), find_tool("rpm")
    if dpkg:
        _rc, out, _err = module.run_command([dpkg, "--show", "--showformat", "${binary:Package} ${db:Status-Status}\\n"] + packages)
        installed = {line.split()[0].split(":")[0] for line in out.splitlines() if line.endswith(" installed")}
        return [p for p in packages if p not in installed]
    if rpm:
        return [p for p in packages if module.run_command([rpm, "--query", "--quiet", "--whatprovides", p])[0] != 0]
    return packages


def find_tool(name):
    for folder in TOOL_FOLDERS:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return ""


def pyroute2_problem(module):
    problem = _pyroute2_dep.trouble()
    if problem or os.path.realpath(sys.executable) == os.path.realpath(PASS_PYTHON) or os.path.isdir(_pyroute2_dep.FOLDER):
        return problem
    code = "import importlib.metadata as m; print(m.version('pyroute2'))"
    if module.run_command([PASS_PYTHON, "-I", "-c", code])[0] != 0:
        return "is not installed for %s" % PASS_PYTHON
    return ""


def pods():
    """Allocations of host-local, by the configuration in use. Of those by ptp only the ones to which a host route leads: others are what a crash left."""
    conflist = _conflist.in_use(_desired.load().sections.get("conflist"))
    if conflist is None:
        return []
    routed = _gather_routes.host_routes()
    given, _notes = _gather_pods.allocated([conflist], routed)
    return [{"ip": a.ip, "container": a.container[:64], "interface": routed.get(a.ip, "")} for _network, a in given]


def named(pod):
    return "%s (container %s)" % (pod["ip"], ", ".join(filter(None, (pod["container"], pod["interface"]))))


def refuse(module, result, problem):
    module.fail_json(msg="%s: %s" % (module.params["node_name"] or platform.node(), problem), rivals=result["rivals"], pods=result["pods"])


def main():
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "dict", "default": {}},
            "rival_daemons": {"type": "list", "elements": "str", "default": ["kindnetd", "flanneld", "kube-router", "ip-masq-agent"]},
            "fail_on_rivals": {"type": "bool", "default": False},
            "fail_on_pods": {"type": "bool", "default": False},
            # Hidden, or the journal of every host would repeat the whole table in every run.
            "nodes": {"type": "str", "no_log": True},
            "node_name": {"type": "str"},
        },
        required_together=[("nodes", "node_name")],
        supports_check_mode=True,
    )
    distribution = os_release()
    packages = packages_of(module.params["packages"], distribution)
    missing, problem = missing_of(module, packages), pyroute2_problem(module)
    try:
        running_pods = pods()
        if module.params["nodes"] is not None:
            nodes = parse_nodes(module.params["nodes"])
            find_node(nodes, module.params["node_name"])
            refuse_overlap_with_node_network(nodes, module.params["node_name"])
    except KindnetError as e:
        module.fail_json(msg="%s: %s" % (module.params["node_name"] or platform.node(), e), field=e.field, value=str(e.value), remedy=e.remedy)
    result = {
        "changed": False,
        "distribution": distribution,
        "package_manager": "apt" if find_tool("apt-get") else "dnf" if find_tool("dnf") else "",
        "packages": packages,
        "missing_packages": missing,
        "complete": not (missing or problem),
        "tools": {name: find_tool(name) for name in TOOLS},
        "cni_plugin_dirs": [d for d in CNI_PLUGIN_DIRS if os.path.exists(os.path.join(d, "host-local"))],
        "cni_archives": _plugin_archive.digests(),
        "python_version": platform.python_version(),
        "pyroute2_problem": problem,
        "pods": running_pods,
        "check_mode": module.check_mode,
        "managed": is_managed(),
        "rivals": running(set(module.params["rival_daemons"])),
    }
    if result["rivals"] and module.params["fail_on_rivals"]:
        refuse(
            module,
            result,
            "%s: runs here and would fight over the same routes and rules. Stop it and keep it from starting again; nothing was changed."
            % ", ".join("%s (pid %d: %s)" % (r["name"], r["pid"], r["command"]) for r in result["rivals"]),
        )
    if running_pods and module.params["fail_on_pods"]:
        refuse(
            module,
            result,
            "pods: %s: run here and would lose their network. Stop them, or force it with -e kindnet_teardown_force=true; nothing was changed.%s"
            % (", ".join(map(named, running_pods)), "" if all(p["interface"] for p in running_pods) else LEFTOVER),
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
