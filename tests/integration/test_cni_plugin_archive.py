# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plugins out of an archive that is made here of the distribution's, unpacked and linked, judged by the folders and by what the plugins say."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from cni_sandbox import ROOT, Sandbox

SOURCE = Path("/usr/lib/cni")
MODULE = "kindnet.host.cni_plugin_archive"
LINKS = "kindnet.host.cni_plugin_links"
FOLDER = "/usr/local/lib/kindnet/cni"
BIN = "/opt/cni/bin"
FOUR = ["host-local", "loopback", "portmap", "ptp"]
EIGHT = sorted([*FOUR, "bandwidth", "firewall", "sbr", "tuning"])

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not (SOURCE / "ptp").exists(), reason="needs root and the reference plugins")


class Archive:
    def __init__(self, path, write):
        self.path = path
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            write(tar)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.args = {"archive": str(path), "checksum": "sha256:" + self.digest}
        self.folder = "%s/%s" % (FOLDER, self.digest)


def entry(tar, name, content=b"", **more):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o755
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def release(tar, readme=b"read me\n"):
    """As the project of the plugins makes its releases."""
    entry(tar, "./", type=tarfile.DIRTYPE)
    for name in EIGHT:
        tar.add(SOURCE / name, "./" + name)
    entry(tar, "./README.md", readme, mode=0o644)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    return (
        Archive(folder / "cni-plugins-linux-amd64-v1.0.0.tgz", release),
        Archive(folder / "cni-plugins-linux-amd64-v2.0.0.tgz", lambda tar: release(tar, b"read this, too\n")),
    )


@pytest.fixture
def host(tmp_path):
    sandbox = Sandbox(tmp_path)
    yield sandbox
    sandbox.close()


@pytest.fixture
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


def unpacked(host, archive, **more):
    """Without the controller, as it is after the archive was sent."""
    return host.module(MODULE, dict(archive.args, src=str(archive.path), **more))


def is_right(host, archive):
    names = host.sh("ls -A " + archive.folder).split()
    assert names == sorted([".members.json", "README.md", *EIGHT])
    for name in EIGHT:
        assert host.sh("stat -c '%%a %%U:%%G %%F' %s/%s" % (archive.folder, name)) == "755 root:root regular file\n"
        host.sh("cmp %s/%s %s/%s" % (archive.folder, name, SOURCE, name))
    assert host.sh("stat -c %%a %s/README.md %s" % (archive.folder, archive.folder)) == "644\n755\n"
    return True


def links(host):
    return dict(line.split(" -> ") for line in host.sh("find %s -type l -printf '%%f -> %%l\\n' | sort" % BIN).splitlines())


# --- unpacking


def test_an_archive_is_unpacked_once(host, archives, scratch):
    mine = scratch / "mine.tgz"
    mine.write_bytes(archives[0].path.read_bytes())
    args = dict(archives[0].args, archive=str(mine))
    _check, real = host.played_quartets(MODULE, [args])[0]
    assert [(c["subject"], c["action"]) for c in real["changes"]] == [("folder " + archives[0].folder, "add")]
    assert real["folder"] == archives[0].folder and is_right(host, archives[0])
    # Nothing is read of it any more, here or there.
    mine.unlink()
    before = host.tree(FOLDER)
    again, missing = host.play(MODULE, [(args, False), (dict(archives[1].args, archive=str(mine)), False)])
    assert again["changed"] is False and not again.get("failed")
    assert missing["failed"] and "mine.tgz" in missing["msg"]
    assert host.tree(FOLDER) == before
    for name in FOUR:
        assert "supportedVersions" in host.run("%s/%s" % (archives[0].folder, name), stdin="{}", env={"CNI_COMMAND": "VERSION"}).stdout


@pytest.mark.parametrize(
    "damage",
    [
        "rm ptp",
        "truncate -s 100 ptp",
        "chmod 644 ptp",
        "chown 1 ptp",
        "rm ptp; ln -s /bin/true ptp",
        "rm ptp; mkdir ptp",
        "rm -r *",
        "rm .members.json",
        "echo >.members.json",
    ],
)
def test_what_is_damaged_is_made_good(host, archives, damage):
    assert unpacked(host, archives[0])["changed"]
    host.sh("cd %s; %s; echo x >.ptp.kindnet-tmp; echo x >extra; mkdir -p folder/inner" % (archives[0].folder, damage))
    check = host.module(MODULE, archives[0].args, True)
    real = unpacked(host, archives[0])
    assert check["changes"] == real["changes"] and [c["action"] for c in real["changes"]] == ["replace"]
    assert is_right(host, archives[0])
    assert unpacked(host, archives[0])["changed"] is False


KILLED = """
import json, os, sys
sys.path.insert(0, %r)
from ansible_collections.kindnet.host.plugins.module_utils import _files, _plugin_archive
left = [int(sys.argv[1])]
def counted(real):
    def call(*args):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return real(*args)
    return call
for name in ("open", "write", "fsync", "rename", "mkdir", "unlink", "chmod"):
    setattr(os, name, counted(getattr(os, name)))
section = _plugin_archive.resolve(dict(json.loads(sys.argv[2]), state="present"), None)
plan = _plugin_archive.plan(section, _plugin_archive.read(section, None))
print(_plugin_archive.apply(section, plan))
"""


def test_killed_while_unpacking(host, archives):
    params = json.dumps(dict(archives[0].args, src=str(archives[0].path)))
    code = KILLED % str(ROOT / ".ansible" / "collections")
    kills = 0
    for calls in range(0, 200, 7):
        done = host.run(sys.executable, "-c", code, str(calls), params, check=False)
        if done.returncode == 0:
            break
        kills += 1
        assert done.returncode in (-9, 137), done.stderr
        # What is not complete is not taken for it.
        assert host.module(MODULE, archives[0].args, True)["changed"]
    assert kills > 5
    assert unpacked(host, archives[0])["changed"] is False and is_right(host, archives[0])
    host.sh("rm %s/ptp" % archives[0].folder)
    assert host.run(sys.executable, "-c", code, "9", params, check=False).returncode in (-9, 137)
    assert unpacked(host, archives[0])["changed"] and is_right(host, archives[0])


def link(name, kind, target):
    return lambda tar: entry(tar, name, type=kind, linkname=target)


BAD = {
    "a link": (link("./ptp", tarfile.SYMTYPE, "/bin/sh"), "holds ./ptp, which is no regular file"),
    "a hard link": (link("ptp", tarfile.LNKTYPE, "../../etc/passwd"), "holds ptp, which is no regular file"),
    "a device": (lambda tar: entry(tar, "ptp", type=tarfile.CHRTYPE), "holds ptp, which is no regular file"),
    "a folder": (lambda tar: entry(tar, "bin", type=tarfile.DIRTYPE), "holds bin, which is no regular file"),
    "upwards": (lambda tar: entry(tar, "../../../etc/evil", b"x"), "holds ../../../etc/evil, which is not the name of a plugin"),
    "absolute": (lambda tar: entry(tar, "/etc/evil", b"x"), "holds /etc/evil, which is not"),
    "in a folder": (lambda tar: entry(tar, "bin/ptp", b"x"), "holds bin/ptp, which is not"),
    "hidden": (lambda tar: entry(tar, ".members.json", b"{}"), "holds .members.json, which is not"),
    "a line break": (lambda tar: entry(tar, "ptp\nall is well", b"x"), "holds ptp\\nall is well, which is not"),
    "twice": (lambda tar: [entry(tar, "ptp", b"x"), entry(tar, "./ptp", b"y")], "holds ./ptp twice"),
    "behind good ones": (lambda tar: [entry(tar, "ptp", b"x"), link("evil", tarfile.SYMTYPE, "/")(tar)], "holds evil, which is no regular file"),
    "nothing": (lambda tar: None, "holds nothing"),
}


def test_what_is_wrong_with_an_archive_is_refused(host, archives, scratch):
    cases = []
    for i, (write, said) in enumerate(BAD.values()):
        cases.append((Archive(scratch / ("%d.tgz" % i), write).args, said))
    good = archives[0]
    for text, said in ((good.path.read_bytes()[:100000], "is no tar archive"), (b"hello\n", "is no tar archive"), (b"", "is no tar archive")):
        path = scratch / ("%d.tgz" % len(cases))
        path.write_bytes(text)
        cases.append(({"archive": str(path), "checksum": "sha256:" + hashlib.sha256(text).hexdigest()}, said))
    cases += [
        ({"archive": str(good.path)}, "checksum: none: is missing"),
        (dict(good.args, checksum=""), "checksum: none: is missing"),
        (dict(good.args, checksum=good.digest), "is not a SHA-256 checksum"),
        (dict(good.args, checksum="sha256:" + good.digest[1:]), "is not a SHA-256 checksum"),
        (dict(good.args, checksum="md5:" + good.digest[:32]), "is not a SHA-256 checksum"),
        (dict(good.args, checksum=archives[1].args["checksum"]), "has SHA-256 %s, and not %s as checksum says" % (good.digest, archives[1].digest)),
        (dict(good.args, archive="nowhere.tgz"), "nowhere.tgz"),
        ({"checksum": good.args["checksum"]}, "archive: none: is missing"),
        (dict(good.args, archive="http://127.0.0.1:1/x.tgz"), "archive: http://127.0.0.1:1/x.tgz: cannot be fetched"),
    ]
    results = host.play(MODULE, [(args, False) for args, _said in cases])
    for (args, said), result in zip(cases, results):
        assert result.get("failed") and said in result["msg"], (args, result)
    assert not host.exists(FOLDER) and not host.exists("/etc/evil") and "Traceback" not in host.output
    # The node looks for itself, whatever the controller sent.
    sent = host.module(MODULE, dict(good.args, src=str(archives[1].path)))
    assert sent["failed"] and "has SHA-256 %s" % archives[1].digest in sent["msg"]
    for args, said in cases[: len(BAD)]:
        sent = host.module(MODULE, dict(args, src=args["archive"]))
        assert sent["failed"] and said in sent["msg"].replace("\\\\", "\\")
    assert not host.exists(FOLDER)


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(sys.argv[2], "a") as f:
            print(self.path, file=f)
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        with open(sys.argv[1], "rb") as f:
            self.wfile.write(f.read())
    def log_message(self, *unused):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def test_an_archive_of_the_network_is_fetched_once(host, archives, scratch, monkeypatch):
    monkeypatch.setenv("HOME", str(scratch / "home"))
    asked = scratch / "asked"
    server = subprocess.Popen(host.command(sys.executable, "-c", SERVER, str(archives[0].path), str(asked)), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "ready\n"
        url = "http://127.0.0.1:8000/cni-plugins.tgz"
        wrong = dict(archives[1].args, archive=url)
        missing = dict(archives[0].args, archive="http://127.0.0.1:8000/missing.tgz")
        args = dict(archives[0].args, archive=url)
        results = host.play(MODULE, [(wrong, False), (missing, False), (args, True), (args, False), (args, False)])
        assert "has SHA-256 %s" % archives[0].digest in results[0]["msg"] and "404" in results[1]["msg"]
        assert [r["changed"] for r in results[2:]] == [True, True, False] and results[2]["changes"] == results[3]["changes"]
        assert asked.read_text().split() == ["/cni-plugins.tgz", "/missing.tgz", "/cni-plugins.tgz"]
        assert is_right(host, archives[0])
        # For further hosts it is there.
        host.sh("rm -r " + FOLDER)
        assert host.play(MODULE, [(args, False)])[0]["changed"] and is_right(host, archives[0])
        assert len(asked.read_text().split()) == 3
        kept = scratch / "home" / ".cache" / "kindnet.host"
        assert sorted(p.name for p in kept.iterdir() if not p.name.endswith(".lock")) == ["cni-" + archives[0].digest]
    finally:
        server.kill()
        server.communicate()


def test_other_archives_go(host, archives):
    for archive in archives:
        unpacked(host, archive)
    host.sh("mkdir %s/others" % FOLDER)
    _check, real = host.quartet(MODULE, {"state": "absent", "checksum": archives[1].args["checksum"]})
    assert [c["subject"] for c in real["changes"]] == ["folder " + archives[0].folder]
    assert is_right(host, archives[1])
    host.quartet(MODULE, {"state": "absent"})
    assert host.sh("ls -A " + FOLDER) == "others\n"
    unpacked(host, archives[0])
    host.sh("rmdir %s/others" % FOLDER)
    host.quartet(MODULE, {"state": "absent"})
    assert not host.exists(FOLDER)


# --- links

PASS = """
import sys
sys.path.insert(0, ".")
from plugins.module_utils import _desired, _plugin_links as links
section = _desired.load().sections["cni_plugins"]
plan = links.plan(section, links.read(section, None))
%s
assert not links.apply(section, plan)
print([change.subject for change in plan.changes])
"""
PACKAGE = {"plugins": EIGHT}


def of(archive):
    return {"plugins": EIGHT, "source_dirs": [archive.folder]}


def leads(folder, names=tuple(EIGHT)):
    return {name: "%s/%s" % (folder, name) for name in names}


@pytest.mark.parametrize("record_is_lost", [False, True])
def test_links_are_switched_and_what_others_put_there_stays(host, archives, record_is_lost):
    host.sh(f"mkdir -p {BIN}; cp {SOURCE}/ptp {BIN}; ln -s {SOURCE}/tuning {BIN}/tuning; echo x >{BIN}/flannel")
    theirs = f"cd {BIN}; stat -c '%n %F %i %Y %s' ptp tuning flannel; readlink tuning"
    before = host.sh(theirs)
    ours = [name for name in EIGHT if name not in ("ptp", "tuning")]
    for archive in archives:
        unpacked(host, archive)
    for wanted, folder in ((PACKAGE, SOURCE), (of(archives[0]), archives[0].folder), (of(archives[1]), archives[1].folder), (PACKAGE, SOURCE)):
        if record_is_lost:
            host.sh("rm -f /etc/kindnet/desired.json")
        _check, real = host.quartet(LINKS, wanted)
        assert {c["action"] for c in real["changes"] if c["subject"].startswith("link ")} <= {"add", "replace"}
        assert links(host) == dict(leads(folder, ours), tuning=str(SOURCE / "tuning"))
        assert host.run("/usr/bin/python3", "-I", "-c", PASS % "").stdout == "[]\n"
    assert host.sh(theirs) == before
    host.quartet(LINKS, dict(of(archives[0])))
    host.quartet(LINKS, {"state": "absent"})
    assert host.sh(theirs) == before and host.sh("ls -A " + BIN).split() == ["flannel", "ptp", "tuning"]
    assert not host.exists("/var/lib/kindnet")


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("then", ["a pass", "the same", "back", "the other", "taken out"])
def test_killed_while_switching(host, archives, number, then):
    for archive in archives:
        unpacked(host, archive)
    host.quartet(LINKS, PACKAGE)
    code = """
import json, os, sys
sys.path.insert(0, %r)
from ansible_collections.kindnet.host.plugins.module_utils import _converge, _files, _plugin_links
real, left = _files.link_atomic, [%d]
def link(*args):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    real(*args)
_files.link_atomic = link
_converge.converge(_plugin_links, json.loads(sys.argv[1]), "kindnet", True, False, 5)
""" % (str(ROOT / ".ansible" / "collections"), number)
    params = dict(of(archives[0]), bin_dir=BIN, state="present", persist=True)
    assert host.run(sys.executable, "-c", code, json.dumps(params), check=False).returncode in (-9, 137)
    moved = [t for t in links(host).values() if t.startswith(FOLDER)]
    assert len(moved) == number and set(links(host)) == set(EIGHT)
    if then == "a pass":
        host.run("/usr/bin/python3", "-I", "-c", PASS % "")
        assert links(host) == leads(archives[0].folder)
    elif then == "the same":
        host.quartet(LINKS, of(archives[0]))
        assert links(host) == leads(archives[0].folder)
    elif then == "back":
        host.module(LINKS, PACKAGE)
        assert links(host) == leads(SOURCE) and host.module(LINKS, PACKAGE)["changed"] is False
    elif then == "the other":
        host.quartet(LINKS, of(archives[1]))
        assert links(host) == leads(archives[1].folder)
    host.quartet(LINKS, {"state": "absent"})
    assert not host.exists("/opt/cni") and not host.exists("/var/lib/kindnet")


# --- roles


class Cluster:
    """One node of it, and a controller outside."""

    def __init__(self, host, scratch):
        self.host, self.folder = host, scratch
        host.sh("ip link add eth0 type veth peer name lan; ip link set eth0 up; ip link set lan up; ip address add 172.18.0.2/16 dev eth0")
        host.sh("mkdir -p /usr/local/lib/kindnet/pyroute2")  # nothing is to be fetched for it
        python = scratch / "python"
        python.write_text("#!/bin/sh\nexec nsenter --target %d --mount --net -- %s \"$@\"\n" % (host.process.pid, sys.executable))
        python.chmod(0o755)
        rows = {name: {"kindnet_node_ips": ["172.18.0.%d" % i], "kindnet_pod_cidrs": ["10.244.%d.0/24" % i]} for i, name in ((2, "a"), (3, "b"))}
        rows["a"].update(ansible_connection="local", ansible_python_interpreter=str(python))
        inventory = {"kindnet_nodes": {"hosts": rows, "vars": {"kindnet_cluster_cidrs": ["10.244.0.0/16"], "kindnet_install_packages": False}}}
        (scratch / "inventory.yml").write_text(yaml.safe_dump(inventory))
        roles = [{"hosts": "kindnet_nodes", "gather_facts": False, "roles": ["kindnet.host.prerequisites", "kindnet.host.conflist"]}]
        (scratch / "play.yml").write_text(yaml.safe_dump(roles))

    def play(self, variables, *more):
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory.yml", "play.yml", "--limit", "a", "-e", json.dumps(variables), *more]
        env = dict(
            os.environ,
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible/collections"),
            HOME=str(self.folder / "home"),
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_BECOME="0",
            LC_ALL="C.UTF-8",
        )
        done = subprocess.run(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
        return done.returncode, " ".join(done.stdout.split())

    def changed(self, *args):
        """What tasks changed, or would."""
        status, out = self.play(*args)
        assert status == 0, out
        return [task.split("] ")[0] for task in out.split("TASK [")[1:] if "changed: [a]" in task]


def test_the_roles_take_the_plugins_from_where_they_are_told(host, archives, scratch):
    cluster = Cluster(host, scratch)
    first = {"kindnet_cni_archive": str(archives[0].path), "kindnet_cni_archive_checksum": "sha256:" + archives[0].digest.upper()}
    second = {"kindnet_cni_archive": str(archives[1].path), "kindnet_cni_archive_checksum": archives[1].args["checksum"]}
    status, out = cluster.play({"kindnet_cni_archive": str(archives[0].path)})
    assert status == 2 and "a: checksum: none: is missing" in out and "kindnet_cni_archive_checksum" in out
    assert not host.exists(BIN) and not host.exists("/etc/kindnet") and not host.exists("/var/lib/kindnet")

    # Where there are no plugins at all before the first run.
    host.sh("mount -t tmpfs none %s" % SOURCE)
    try:
        predicted = cluster.changed(first, "--check")
        assert not host.exists(FOLDER) and not host.exists(BIN)
        assert cluster.changed(first) == predicted
    finally:
        host.sh("umount %s" % SOURCE)
    assert links(host) == leads(archives[0].folder) and is_right(host, archives[0])
    for variables, folder in ((second, archives[1].folder), ({}, SOURCE)):
        predicted = cluster.changed(variables, "--check")
        assert cluster.changed(variables) == predicted
        assert links(host) == leads(folder)
        # Without an archive the folder is gone, and there is nothing to list.
        assert host.sh("ls -A %s 2>/dev/null || true" % FOLDER).split() == ([archives[1].digest] if folder != SOURCE else [])
    assert cluster.changed({}) == []
