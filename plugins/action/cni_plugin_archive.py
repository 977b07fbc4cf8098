# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gets the archive of plugins to the nodes that lack it: from a file of the controller, or once from the network to the controller."""

from __future__ import annotations

__metaclass__ = type

import fcntl
import os
from typing import TYPE_CHECKING

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_native
from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase

from ..module_utils._errors import KindnetError
from ..module_utils._plugin_archive import ARCHIVE_REMEDY, BLOCK, members, parse_checksum, verify

if TYPE_CHECKING:
    from typing import Any

MODULE = "kindnet.host.cni_plugin_archive"
CACHE = "~/.cache/kindnet.host"
TIMEOUT = 30  # seconds that a server may be silent


class ActionModule(ActionBase):
    """Asks the node first, and sends the archive only where its plugins are not unpacked."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = dict(self._task.args)
        args.pop("src", None)
        try:
            if args.get("state", "present") == "absent":
                result.update(self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars))
                return result
            digest = parse_checksum(args.get("checksum"))
            if not args.get("archive"):
                raise KindnetError("archive", "none", "is missing", ARCHIVE_REMEDY)
            # Without src it changes nothing, and says what it would.
            looked = self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)
            if looked.get("failed") or not looked.get("changed") or self._task.check_mode:
                result.update(looked)
                return result
            local = self._archive(str(args["archive"]), digest)
        except (KindnetError, AnsibleError) as e:
            host = task_vars.get("inventory_hostname", "this host")
            result.update(failed=True, host=host, msg="%s: %s" % (host, to_native(e)))
            if isinstance(e, KindnetError):
                result.update(field=e.field, value=str(e.value), remedy=e.remedy)
            return result
        self._make_tmp_path()
        folder = self._connection._shell.tmpdir
        args["src"] = self._transfer_file(local, self._connection._shell.join_path(folder, "plugins"))
        self._fixup_perms2((folder, args["src"]))
        result.update(self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars))
        return result

    def _archive(self, archive: str, digest: str) -> str:
        """Path of the archive on the controller, whose checksum is right and which holds plugins and nothing else."""
        path = fetched(archive, digest) if "://" in archive else self._find_needle("files", archive)
        verify(archive, path, digest)
        members(archive, path)
        return path


def fetched(url: str, digest: str) -> str:
    """The archive at ``url``, which is fetched once however many hosts want it."""
    folder = os.path.expanduser(CACHE)
    path = os.path.join(folder, "cni-%s" % digest)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path + ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # each host's task is a process of its own
            if not os.path.exists(path):
                download(url, path + ".tmp", digest)
                os.rename(path + ".tmp", path)
    except OSError as e:
        raise KindnetError("archive", url, "cannot be kept in %s of the controller (%s)" % (folder, e.strerror or e), "See that it can be written.")
    return path


def download(url: str, path: str, digest: str) -> None:
    remedy = "See that the controller reaches it, or fetch it by hand and give its path."
    try:
        answer = open_url(url, timeout=TIMEOUT)
        with open(path, "wb") as f:
            block = answer.read(BLOCK)
            while block:
                f.write(block)
                block = answer.read(BLOCK)
    except Exception as e:  # of urllib, http, ssl and ansible, as the case may be
        raise KindnetError("archive", url, "cannot be fetched (%s)" % to_native(e), remedy)
    try:
        verify(url, path, digest)
    except KindnetError:
        os.unlink(path)
        raise
