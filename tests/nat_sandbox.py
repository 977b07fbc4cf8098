# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for a node in network and mount namespaces of its own, whose nat tables, /etc, /run, /usr/sbin and /var/lib a test may do anything to."""

from __future__ import annotations

import json
import os
import subprocess
import sys

BACKENDS = ("iptables-nft", "iptables-legacy", "nftables")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Overlays, so that not even an empty folder is left on the machine that the tests run on.
SETUP = """
mount -t tmpfs -o mode=755 none /run
for folder in /etc /usr/sbin /var/lib; do
  mkdir -p /run/over$folder /run/work$folder
  mount -t overlay -o lowerdir=$folder,upperdir=/run/over$folder,workdir=/run/work$folder none $folder
done
ip link set lo up
echo ready
exec sleep infinity
"""


class Sandbox:
    def __init__(self):
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-euc", SETUP]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def inside(self, argv):
        return ["nsenter", "--target", str(self.process.pid), "--net", "--mount", "--"] + argv

    def run(self, argv, stdin="", check=True, **options):
        """A command in the sandbox, as an argument list or a line for sh."""
        if isinstance(argv, str):
            argv = ["sh", "-euc", argv]
        done = subprocess.run(self.inside(argv), input=stdin, capture_output=True, text=True, timeout=600, check=False, **options)
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done

    def out(self, argv, **options):
        return self.run(argv, **options).stdout

    def python(self, code, *arguments, interpreter=sys.executable):
        """Python with the product's code in reach, in the sandbox."""
        env = dict(os.environ, PYTHONPATH=os.path.join(ROOT, ".ansible", "collections"), PYTHONDONTWRITEBYTECODE="1")
        return self.out([interpreter, "-c", code] + list(arguments), env=env)

    def module_argv(self, name):
        return self.inside([sys.executable, os.path.join(ROOT, "plugins", "modules", name + ".py")])

    def module_stdin(self, check, options):
        return json.dumps({"ANSIBLE_MODULE_ARGS": dict(options, _ansible_check_mode=check, _ansible_diff=True)})

    def module_env(self):
        return dict(os.environ, PYTHONPATH=os.path.join(ROOT, ".ansible", "collections"), PYTHONDONTWRITEBYTECODE="1")

    def module(self, name, check=False, **options):
        """Run a module for real; its result."""
        done = subprocess.run(
            self.module_argv(name),
            input=self.module_stdin(check, options),
            env=self.module_env(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.stdout.strip(), done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def replace_tool(self, name, script):
        """Put a shell script in the place of a program; $REAL is the program. The machine's own stays as it is."""
        real = os.path.basename(os.path.realpath("/usr/sbin/" + name))
        path = "/run/tool-" + name
        with_real = "#!/bin/sh\nREAL='/usr/sbin/%s %s'\n%s\n" % (real, self.applet(name), script)
        self.run("rm -f /usr/sbin/%s; cat >%s; chmod 755 %s; ln -s %s /usr/sbin/%s" % (name, path, path, path, name), stdin=with_real)

    @staticmethod
    def applet(name):
        """What a multi-call program of iptables is called by as an argument: iptables-nft-restore is iptables-restore of one of them."""
        return name.replace("-nft", "").replace("-legacy", "")
