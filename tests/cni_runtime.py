# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container runtime does with a CNI configuration, by libcni's rules, with the plugins of this machine inside a sandbox."""

from __future__ import annotations

import json

from cni_sandbox import Sandbox

Data = dict[str, object]


def cni(host: Sandbox, command: str, pod: str, conflist: Data, result: Data | None = None, runtime: Data | None = None) -> Data | None:
    """Each plugin in turn, with the result of the one before; in reverse for DEL, each with ``result``, that of the ADD, if it is given.

    :param runtime: what the runtime has for this pod, by the name of the capability.
    """
    plugins = conflist["plugins"]
    assert isinstance(plugins, list)
    for plugin in plugins if command == "ADD" else plugins[::-1]:
        config = dict(plugin, cniVersion=conflist["cniVersion"], name=conflist["name"])
        capabilities = config.pop("capabilities", {})
        config["runtimeConfig"] = {name: value for name, value in (runtime or {}).items() if capabilities.get(name)}
        if result:
            config["prevResult"] = result
        done = host.run(
            "/usr/lib/cni/" + plugin["type"],
            stdin=json.dumps(config),
            env={"CNI_COMMAND": command, "CNI_CONTAINERID": pod, "CNI_NETNS": "/run/netns/" + pod, "CNI_IFNAME": "eth0", "CNI_PATH": "/usr/lib/cni"},
        )
        if command == "ADD":
            result = json.loads(done.stdout)
    return result if command == "ADD" else None


def ip(host: Sandbox, *args: str) -> list[dict[str, object]]:
    return json.loads(host.run("ip", "-json", *args).stdout or "[]")
