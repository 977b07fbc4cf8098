# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the CNI plugins that a configuration names are there, run, speak its versions and know its fields. Converge only: it starts processes."""

from __future__ import annotations

__metaclass__ = type

import errno
import json
import os
import stat
import subprocess

from . import _files
from ._cni_fields import RELEASE_OF_FIELD
from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Sequence

TIMEOUT = 10.0  # seconds for one plugin to say its versions; it takes some milliseconds
PACKAGES = "Install the reference plugins (package containernetworking-plugins), or name their folder (plugin_dirs; of the roles: kindnet_cni_bin_dir)."

# Prints the name of the first sysctl that fails, and what the shell said.
SET = '''while [ $# -gt 0 ]; do said=$( { printf %s "$3" >"/proc/sys/$2"; } 2>&1) || { printf '%s\\n%s' "$1" "$said"; exit; }; shift 3; done'''


def find_plugin(kind: str, folders: Sequence[str]) -> Optional[str]:
    """The path of a plugin as a runtime finds it: the first regular file of that name."""
    for folder in folders:
        path = os.path.join(folder, kind)
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                return path
        except OSError:
            continue
    return None


def check_plugins(kinds: Sequence[str], versions: Sequence[str], plugin_dirs: Sequence[str], predicted: bool) -> None:
    """Raise for the first of ``kinds`` that is missing, does not run, or does not speak all of ``versions``.

    :param predicted: the same play would install what is missing.
    """
    for kind in kinds:
        path = find_plugin(kind, plugin_dirs)
        if path:
            _check(kind, path, versions, plugin_dirs)
        elif not predicted:
            raise KindnetError("CNI plugin", kind, "is in none of %s" % ", ".join(plugin_dirs), PACKAGES)


def check_fields(plugins: Sequence[Dict[str, Any]], plugin_dirs: Sequence[str]) -> None:
    """Raise for the first field that the installed plugin is too old for: it would leave it out without a word.

    A distribution's plugins do not tell their release. But a program in Go names every field that it reads from JSON in itself, as
    the tag of a structure. Of a program that has no such tags, as a script around the plugin, nothing can be told.
    """
    for plugin in plugins:
        kind = plugin["type"]
        fields = [name for name in RELEASE_OF_FIELD.get(kind, ()) if name in plugin]
        path = find_plugin(kind, plugin_dirs) if fields else None
        if not path:
            continue
        program = _files.read_bytes(path) or b""
        for name in fields:
            if _tag("cniVersion") in program and _tag(name) not in program:
                raise KindnetError(
                    "%s.%s" % (kind, name),
                    json.dumps(plugin[name]),
                    "is not known to the installed plugin %s" % path,
                    "Install the reference plugins of release %s or newer, or leave it out." % RELEASE_OF_FIELD[kind][name],
                )


def check_sysctls(sysctls: Dict[str, str]) -> None:
    """Raise for the first sysctl that could not be set in a pod. It is tried in a network namespace of its own, as the plugin tuning does."""
    if not sysctls:
        return
    # A new namespace has lo alone; IFNAME is what the plugin replaces by the pod's interface, which runtimes call eth0.
    places = {name: "/".join("lo" if part in ("IFNAME", "eth0") else part for part in name.split(".")) for name in sysctls}
    arguments = [text for name, value in sysctls.items() for text in (name, places[name], value)]
    try:
        done = subprocess.run(["unshare", "--net", "sh", "-c", SET, "sh"] + arguments, capture_output=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise KindnetError("tuning.sysctl", ", ".join(sysctls), "cannot be tried out (%s)" % e, "Install util-linux, whose command unshare this takes.")
    name, _newline, said = done.stdout.decode("utf-8", "replace").partition("\n")
    if done.returncode != 0 or name:
        raise KindnetError(
            "tuning.sysctl.%s" % name if name else "tuning.sysctl",
            sysctls.get(name, ", ".join(sysctls)),
            "cannot be set in a pod (%s)" % ascii((said or done.stderr.decode("utf-8", "replace")).strip().rpartition(": ")[2])[1:-1],
            "Correct name and value, or load the kernel module that has it.",
        )


def _tag(field: str) -> bytes:
    return ('json:"%s' % field).encode()


def _check(kind: str, path: str, versions: Sequence[str], plugin_dirs: Sequence[str]) -> None:
    environment = {"CNI_COMMAND": "VERSION", "CNI_PATH": ":".join(plugin_dirs), "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
    question = json.dumps({"cniVersion": versions[0]}).encode()
    try:
        done = subprocess.run([path], input=question, capture_output=True, env=environment, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise KindnetError("CNI plugin", path, "did not say its versions within %g s" % TIMEOUT, PACKAGES)
    except OSError as e:
        remedy = "Make it executable: chmod 755 %s. If it is no program: %s" % (path, PACKAGES) if e.errno == errno.EACCES else PACKAGES
        raise KindnetError("CNI plugin", path, "does not run (%s)" % e.strerror, remedy)
    try:
        spoken = json.loads(done.stdout)["supportedVersions"]
    except (ValueError, TypeError, KeyError):
        said = ascii((done.stderr or done.stdout)[:200].decode("utf-8", "replace"))
        raise KindnetError("CNI plugin", path, "does not say its versions: exit code %d, %s" % (done.returncode, said), PACKAGES)
    for version in versions:
        if not isinstance(spoken, list) or version not in spoken:
            raise KindnetError(
                "CNI plugin",
                path,
                "does not speak CNI %s, it speaks %s" % (version, ascii(spoken)),
                "Install plugins that do, or set cni_version (of the roles: kindnet_cni_version) to one that all of them speak.",
            )
