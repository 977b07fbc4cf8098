# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are not there. For fleet.py."""

from __future__ import annotations

DOCUMENTATION = """
name: dry_host
short_description: run modules in namespaces of their own, or answer what another host answered
description:
  - A module sees a host with an address of its own, nothing on it, and no file that it could write but in C(/run) and C(/tmp). All that ends with it.
  - A host that is an echo runs nothing. It answers what the first host that is none answered to the same module.
author: the kindnet.host authors
options:
  folder:
    description: Holds what hosts have in C(/etc), C(/opt), C(/usr/local) and C(/var/lib) beside what this machine has there, and their answers.
    type: str
    vars:
      - name: dry_host_folder
  address:
    description: The address of the host, with its prefix length.
    type: str
    vars:
      - name: dry_host_address
  echo:
    description: Whether the host runs nothing.
    type: bool
    vars:
      - name: dry_host_echo
extends_documentation_fragment:
  - connection_pipelining
"""

import os
import re
import resource
import shlex
import time
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

# As root, in fresh namespaces.
BEGIN = """
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/systemd/system
for place in etc opt usr/local var/lib; do mount -t overlay -o "lowerdir=$1/$place:/$place" overlay "/$place"; done
mount -t tmpfs none /tmp
mount -o remount,bind,ro /
cd /
ip -batch - <<END
link set lo up
link add eth0 type veth peer name far
link set far up
link set eth0 up
address add $2 dev eth0
END
exec /bin/sh -c "$3"
"""
PATIENCE = 300  # seconds for the host whose answer is echoed


class Connection(Local):
    transport = "dry_host"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        folder = Path(self.get_option("folder"))
        found = re.search(rb"ansible_module=['\"]([\w.]+)", in_data or b"")
        if found is None:
            raise AnsibleConnectionFailure("this is no module, and not pipelined: %s" % cmd)
        answer = folder / "answers" / found.group(1).decode()
        if self.get_option("echo"):
            return 0, _wait_for(answer), b""
        begin = ["unshare", "--net", "--mount", "--propagation", "private", "/bin/sh", "-euc", BEGIN, "sh", str(folder), self.get_option("address"), cmd]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code, out, err = super().exec_command(shlex.join(begin), in_data, sudoable)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (folder / "cpu").open("a") as f:
            f.write("%f\n" % (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
        if code == 0 and not answer.exists():
            part = answer.with_suffix(".%d" % os.getpid())
            part.write_bytes(out)
            part.rename(answer)
        return code, out, err


def _wait_for(answer: Path) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while not answer.exists():
        if time.monotonic() > deadline:
            raise AnsibleConnectionFailure("no host answered to %s" % answer.name)
        time.sleep(0.1)
    return answer.read_bytes()
