# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ansible-test runs to put pip into an empty environment, in place of a script that it would download from a site of its own.

The pip that comes with Python does it, and installs what is asked for from wherever the machine gets packages.
"""

from __future__ import annotations

import subprocess
import sys

if __name__ == "__main__":
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    arguments = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
    sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=False).returncode)
