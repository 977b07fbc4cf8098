# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the CNI plugins that a configuration names are there, run, and speak its version. Converge only: it starts processes."""

from __future__ import annotations

__metaclass__ = type

import errno
import json
import os
import stat
import subprocess

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Sequence

TIMEOUT = 10.0  # seconds for one plugin to say its versions; it takes some milliseconds
PACKAGES = "Install the reference plugins (package containernetworking-plugins), or name their folder (plugin_dirs; of the roles: kindnet_cni_bin_dir)."


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


def check_plugins(kinds: Sequence[str], cni_version: str, plugin_dirs: Sequence[str], predicted: bool) -> None:
    """Raise for the first of ``kinds`` that is missing, does not run, or does not speak ``cni_version``.

    :param predicted: the same play would install what is missing.
    """
    for kind in kinds:
        path = find_plugin(kind, plugin_dirs)
        if path:
            _check(kind, path, cni_version, plugin_dirs)
        elif not predicted:
            raise KindnetError("CNI plugin", kind, "is in none of %s" % ", ".join(plugin_dirs), PACKAGES)


def _check(kind: str, path: str, cni_version: str, plugin_dirs: Sequence[str]) -> None:
    environment = {"CNI_COMMAND": "VERSION", "CNI_PATH": ":".join(plugin_dirs), "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
    question = json.dumps({"cniVersion": cni_version}).encode()
    try:
        done = subprocess.run([path], input=question, capture_output=True, env=environment, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise KindnetError("CNI plugin", path, "did not say its versions within %g s" % TIMEOUT, PACKAGES)
    except OSError as e:
        remedy = "Make it executable: chmod 755 %s. If it is no program: %s" % (path, PACKAGES) if e.errno == errno.EACCES else PACKAGES
        raise KindnetError("CNI plugin", path, "does not run (%s)" % e.strerror, remedy)
    try:
        versions = json.loads(done.stdout)["supportedVersions"]
    except (ValueError, TypeError, KeyError):
        said = ascii((done.stderr or done.stdout)[:200].decode("utf-8", "replace"))
        raise KindnetError("CNI plugin", path, "does not say its versions: exit code %d, %s" % (done.returncode, said), PACKAGES)
    if not isinstance(versions, list) or cni_version not in versions:
        raise KindnetError(
            "CNI plugin",
            path,
            "does not speak CNI %s, it speaks %s" % (cni_version, ascii(versions)),
            "Install plugins that do, or set cni_version to one that all of them speak (with the roles: in a template of your own).",
        )
