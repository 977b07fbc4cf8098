# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host to install kindnet-reconcile on: namespaces of its own over a copy-on-write view of this machine, and a stand-in for systemctl.

The real systemd has its say on the nodes of the lab. What the stand-in knows of it: units are read from disk when told to, a timer
runs or does not, and enabling makes a link.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODULE = "kindnet.host.kindnet_reconcile"
COMMAND = "/usr/local/sbin/kindnet-reconcile"
# A pass to which stderr is the journal, so that it remembers what it said there.
AS_THE_TIMER = ("sh", "-c", "JOURNAL_STREAM=$(stat -Lc %%d:%%i /proc/self/fd/2) exec %s" % COMMAND)

SETUP = """
set -eu
mount -t tmpfs none "$1"
for place in etc opt var/lib usr/local; do
  mkdir -p "$1/upper/$place" "$1/work/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/upper/$place,workdir=$1/work/$place" "/$place"
done
rm -rf /etc/kindnet /etc/cni /opt/cni /var/lib/kindnet /usr/local/lib/kindnet
mount -t tmpfs -o mode=0755 none /run
mkdir -p /run/netns /run/systemd/system
ip link set lo up
echo ready
exec sleep infinity
"""

SYSTEMCTL = r'''#!/usr/bin/python3 -IS
import json, os, signal, subprocess, sys, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a test may end the watch that reads this
UNITS, STATE = "/etc/systemd/system/", "/run/systemctl.json"
TIMER, SERVICE, WATCH = "kindnet-reconcile.timer", "kindnet-reconcile.service", "kindnet-watch.service"
LINKS = {TIMER: UNITS + "timers.target.wants/" + TIMER, WATCH: UNITS + "multi-user.target.wants/" + WATCH}
def text(unit):
    try:
        return open(UNITS + unit).read() or None  # an empty file is a masked unit
    except OSError:
        return None
words = [w for w in sys.argv[1:] if not w.startswith("-")]
verb, units = words[0], words[1:]
if "--property=ExecMainStartTimestampMonotonic" in sys.argv:
    print(open("/run/passes").read().split()[-1])
    sys.exit()
if (verb, units) == ("start", [SERVICE]):  # a pass, without the journal
    with open("/run/passes", "a") as passes:
        passes.write("%d\n" % (time.monotonic() * 1e6))
    with open("/run/journal", "a") as journal:
        sys.exit(subprocess.run(["/usr/local/sbin/kindnet-reconcile"], stdout=journal, stderr=journal).returncode not in (0, 1))
try:
    state = json.load(open(STATE))
except OSError:
    state = {"read": {}, "active": [], "log": []}
if verb == "show":
    for unit in units:
        read = state["read"].get(unit)
        print("ActiveState=" + ("active" if unit in state["active"] else "inactive"))
        print("SubState=" + ("waiting" if unit in state["active"] else "dead"))
        print("UnitFileState=" + ("enabled" if os.path.lexists(LINKS.get(unit, "/none")) else "disabled" if text(unit) else ""))
        print("NeedDaemonReload=" + ("yes" if unit in state["read"] and read != text(unit) else "no"))
    sys.exit()
state["log"].append(" ".join(words))
if verb == "daemon-reload":
    state["read"] = {u: text(u) for u in (TIMER, SERVICE, WATCH) if text(u)}
elif verb in ("restart", "start"):
    if not state["read"].get(units[0]):
        sys.exit("Unit %s not found." % units[0])
    state["active"] = sorted({*state["active"], units[0]})
elif verb == "stop":
    state["active"] = [u for u in state["active"] if u != units[0]]
elif verb == "enable":
    link = LINKS[units[0]]
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.path.lexists(link) or os.symlink(UNITS + units[0], link)
elif verb == "disable":
    os.unlink(LINKS[units[0]])
elif verb != "reset-failed":
    sys.exit("unknown verb " + verb)
json.dump(state, open(STATE, "w"))
'''


def copy_collection(root: Path) -> Path:
    """The collection below ``root``, where Ansible finds it, and where an edit of the checkout does not change it under a test."""
    collection = root / "ansible_collections/kindnet/host"
    for part in ("plugins", "templates", "meta"):
        shutil.copytree(ROOT / part, collection / part, ignore=shutil.ignore_patterns("__pycache__"))
    return collection


def without_priorities(text: str) -> str:
    return "".join(line.removeprefix("<3>") for line in text.splitlines(keepends=True))


class Sandbox:
    def __init__(self, folder: Path) -> None:
        self.collections = folder / "collections"
        copy_collection(self.collections)
        folder = folder / "host"
        folder.mkdir()
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh", str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.write("/usr/local/bin/systemctl", SYSTEMCTL)
        self.run("chmod", "0755", "/usr/local/bin/systemctl")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def command(self, *command: str) -> list[str]:
        return ["nsenter", "--target", str(self.process.pid), "--mount", "--net", "--wdns=%s" % ROOT, "--", *command]

    def run(self, *command: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.command(*command), input=stdin, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0 or not check, "%s\n%s\n%s" % (command, done.stdout, done.stderr)
        return done

    def sh(self, script: str) -> str:
        return self.run("sh", "-euc", script).stdout

    def write(self, path: str, content: str) -> None:
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")"; cat >"$1"', "sh", path, stdin=content)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, check=False).returncode == 0

    def module(self, *flags: str, name: str = MODULE, expect: int = 0, **options: Any) -> dict[str, Any]:
        """Run a module the way a playbook does, action plugin and all, and return its result."""
        return self.adhoc(name, dict({"state": "present"}, **options), *flags, expect=expect)

    def adhoc(self, name: str, options: dict[str, Any], *flags: str, expect: int = 0) -> dict[str, Any]:
        ansible = [sys.executable, "-m", "ansible", "adhoc"]
        argv = ["localhost", "-m", name, "-a", json.dumps(options), "-e", "ansible_python_interpreter=/usr/bin/python3", *flags]
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        }
        done = self.run("env", *("%s=%s" % pair for pair in environment.items()), *ansible, *argv, check=False)
        assert (done.returncode != 0) == bool(expect), "%s\n%s" % (done.stdout, done.stderr)
        head = done.stdout.index("=> {")
        result: dict[str, Any] = json.JSONDecoder().raw_decode(done.stdout[head + 3 :])[0]
        result["diff"] = done.stdout[: done.stdout.rindex("\n", 0, head) + 1] if "--diff" in flags else ""  # as an operator sees it
        return result

    def desired(self, **sections: Any) -> None:
        self.write("/etc/kindnet/desired.json", json.dumps({"schema": 1, "cluster_name": "kindnet", "sections": sections}))

    def reconcile(self, *arguments: str, by_hand: bool = False) -> subprocess.CompletedProcess[str]:
        """The command; without arguments as the timer starts it, to which stderr is the journal, unless it is to be by hand."""
        if arguments or by_hand:
            return self.run(COMMAND, *arguments, check=False)
        done = self.run(*AS_THE_TIMER, check=False)
        done.stderr = without_priorities(done.stderr)
        return done
