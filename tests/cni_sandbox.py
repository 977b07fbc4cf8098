# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host to run the CNI modules on: namespaces of its own over a copy-on-write /etc, /opt, /var/lib and /usr/local/lib and an empty /run of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SETUP = """
set -eu
mount -t tmpfs none "$1"
for place in etc opt var/lib usr/local/lib; do
  mkdir -p "$1/upper/$place" "$1/work/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/upper/$place,workdir=$1/work/$place" "/$place"
  # whatever else this machine has there
  rm -rf "/$place/cni" "/$place/kindnet"
done
mount -t tmpfs -o mode=0755 none /run
mkdir /run/netns
ip link set lo up
mkdir "$1/playbook"
echo ready
exec sleep infinity
"""


class Sandbox:
    """Commands and playbooks run inside, until ``close``.

    :param processes: with processes of its own as well, and a /proc that shows no others.
    """

    def __init__(self, folder: Path, processes: bool = False) -> None:
        self.folder = folder
        more = ["--pid", "--fork", "--kill-child", "--mount-proc"] if processes else []
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", *more, "sh", "-c", SETUP, "sh", str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid
        if processes:
            self.pid = int(Path("/proc/%d/task/%d/children" % (self.pid, self.pid)).read_text())
        self.namespaces = ["--target", str(self.pid), "--mount", "--net", *(["--pid"] if processes else [])]
        self.playbooks = folder / "playbook"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def command(self, *command: str) -> list[str]:
        return ["nsenter", *self.namespaces, "--wdns=%s" % ROOT, "--", *command]

    def run(self, *command: str, stdin: str = "", check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*command), input=stdin, capture_output=True, text=True, timeout=600, check=False, env=dict(os.environ, **(env or {}))
        )
        assert done.returncode == 0 or not check, "%s\n%s\n%s" % (command, done.stdout, done.stderr)
        return done

    def sh(self, script: str) -> str:
        return self.run("sh", "-euc", script).stdout

    def write(self, path: str, content: str) -> None:
        self.run("sh", "-euc", 'mkdir -p "$(dirname "$1")"; cat > "$1"', "sh", path, stdin=content)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def json(self, path: str) -> object:
        return json.loads(self.read(path))

    def exists(self, path: str) -> bool:
        return self.run("test", "-e", path, "-o", "-L", path, check=False).returncode == 0

    def tree(self, *places: str) -> str:
        """Everything there is below ``places``, with contents, to compare."""
        script = 'for p; do [ -e "$p" ] || continue; find "$p" -printf "%p %y %m %U:%G %i %T@ %l\\n"; find "$p" -type f -exec md5sum {} +; done | sort'
        return self.run("sh", "-euc", script, "sh", *places).stdout

    def play(self, module: str, tasks: list[tuple[dict[str, object], bool]], variables: dict[str, object] | None = None) -> list[dict[str, object]]:
        """Results of a module that is run with each of (arguments, check mode), by ansible-playbook."""
        plays = [
            {
                "hosts": "localhost",
                "connection": "local",
                "gather_facts": False,
                "vars": dict(variables or {}, ansible_python_interpreter="/usr/bin/python3"),
                "tasks": [
                    {"name": "T%d" % i, module: args, "check_mode": check, "diff": True, "register": "r%d" % i, "ignore_errors": True}
                    for i, (args, check) in enumerate(tasks)
                ]
                + [
                    {
                        "name": "Keep the results",
                        "ansible.builtin.copy": {
                            "content": "{{ [%s] | to_json }}" % ", ".join("r%d" % i for i in range(len(tasks))),
                            "dest": str(self.playbooks / "results.json"),
                            "mode": "0600",
                        },
                    }
                ],
            }
        ]
        self.write(str(self.playbooks / "play.yml"), json.dumps(plays))
        ansible = os.environ.get("ANSIBLE_PLAYBOOK", str(Path(sys.executable).parent / "ansible-playbook"))
        home = str(self.playbooks / "home")
        environment = {"ANSIBLE_HOME": home, "ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0", "ANSIBLE_NOCOLOR": "1"}
        done = self.run(ansible, "-vvv", str(self.playbooks / "play.yml"), env=environment)
        self.output = done.stdout
        results = self.json(str(self.playbooks / "results.json"))
        assert isinstance(results, list)
        return results

    def module(self, module: str, args: dict[str, object], check: bool = False) -> dict[str, object]:
        """Result of a module by itself, without Ansible's controller: much faster."""
        arguments = {"ANSIBLE_MODULE_ARGS": dict(args, _ansible_check_mode=check, _ansible_diff=True)}
        name = "ansible_collections.kindnet.host.plugins.modules." + module.rpartition(".")[2]
        environment = {"PYTHONPATH": str(ROOT / ".ansible" / "collections"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = self.run(sys.executable, "-m", name, stdin=json.dumps(arguments), check=False, env=environment)
        self.output = done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result

    def played_quartets(self, module: str, cases: list[dict[str, object]], variables: dict[str, object] | None = None) -> list[list[dict[str, object]]]:
        """A quartet for each of the arguments, in turn, in one run of ansible-playbook."""
        results = self.play(module, [(args, check) for args in cases for check in QUARTET], variables)
        return [checked(*results[i : i + 4]) for i in range(0, len(results), 4)]

    def quartet(self, module: str, args: dict[str, object]) -> list[dict[str, object]]:
        """The same for one, without the controller."""
        return checked(*(self.module(module, args, check) for check in QUARTET))


QUARTET = (True, False, False, True)


def checked(
    check: dict[str, object], real: dict[str, object], repeat: dict[str, object], again: dict[str, object]
) -> list[dict[str, object]]:
    """Check, real, repeat, repeat in check mode: each as it ought to be. The first two are returned."""
    for result in (check, real, repeat, again):
        assert not result.get("failed"), result.get("msg")
    assert check["changed"] is real["changed"] is True
    assert check["changes"] == real["changes"]
    assert check["diff"] == real["diff"]
    assert repeat["changed"] is again["changed"] is False, repeat["changes"]
    assert repeat["changes"] == again["changes"] == []
    return [check, real]
