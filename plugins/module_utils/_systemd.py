# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd, asked and told through systemctl. The only code that does either; no part of a pass."""

from __future__ import annotations

__metaclass__ = type

import os
import subprocess

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict

BOOTED = "/run/systemd/system"  # exists where systemd is the service manager
TIMEOUT = 90.0  # seconds; as long as systemd itself waits for a unit to stop

# Fixed, so that neither a login's PATH nor its language has a say in what is run and how it answers.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}


def run(*command: str) -> str:
    """What a command printed. Errors: :class:`KindnetError` with what it said."""
    try:
        done = subprocess.run(command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except OSError as e:
        raise KindnetError(command[0], e.strerror, "cannot be run", "Use a host whose service manager is systemd.")
    except subprocess.TimeoutExpired:
        raise KindnetError(" ".join(command), "%g s" % TIMEOUT, "did not end", "Look what systemd waits for: systemctl list-jobs.")
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or "nothing"
        raise KindnetError(" ".join(command), "exit code %d" % done.returncode, "failed; it said: %s" % said, "Run it by hand on the host.")
    return done.stdout


def systemctl(*arguments: str) -> str:
    if not os.path.isdir(BOOTED):
        raise KindnetError(BOOTED, "missing", "systemd does not run this host", "Use a host whose service manager is systemd.")
    return run("systemctl", "--no-ask-password", *arguments)


def show(unit: str, *properties: str) -> Dict[str, str]:
    """Properties of a unit as systemd holds them now; also of a unit that does not exist."""
    out = systemctl("show", "--property=" + ",".join(properties), "--", unit)
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
