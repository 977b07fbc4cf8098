# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States of the folder of CNI configurations, arguments of cni_conflist, and what became of the one by the other, judged by the files."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from check_mode import BEFORE, DESIRED, File, Said, State, places_of
from hypothesis import strategies as st
from route_host import RouteHost

FOLDER = "/etc/cni/net.d"
PATHS = [FOLDER + "/10-kindnet.conflist", FOLDER + "/20-kindnet.conflist"]
ASIDE = ".kindnet-set-aside"
STORE = "/run/cni-ipam-state/kindnet"

# What may happen to the file {path}, and to what is beside it.
DAMAGE = [
    "rm -rf {path}",
    "rm -rf /etc/cni",
    "sed -i 's/1500/1400/' {path}",
    "sed -i 's/ //g' {path}",
    "head -c 40 {path} >/run/part; rm -rf {path}; mv /run/part {path}",
    "rm -rf {path}; : >{path}",
    "rm -rf {path}; printf '\\377\\000\\n{{' >{path}",
    "rm -rf {path}; echo '[1, 2]' >{path}",
    "rm -rf {path}; ln -s /etc/hostname {path}",
    "cp -a {path} /run/elsewhere; rm -rf {path}; ln -s /run/elsewhere {path}",
    "rm -rf {path}; ln -s /nowhere {path}",
    "rm -rf {path}; mkdir {path}; touch {path}/something",
    "rm -rf {path}; mkfifo {path}",
    "chmod 600 {path}",
    "chmod 666 {path}",
    "chown 1000:1000 {path}",
    "echo half >{folder}/.10-kindnet.conflist.kindnet-tmp",
    "mkdir {folder}/.10-kindnet.conflist.kindnet-tmp",
    """echo '{{"cniVersion": "0.3.1", "name": "other", "plugins": [{{"type": "bridge"}}]}}' >{path}""",
    """echo '{{"cniVersion": "0.3.1", "name": "other", "plugins": [{{"type": "bridge"}}]}}' >{folder}/05-other.conflist""",
    """echo '{{"type": "bridge"}}' >{folder}/06-other.conf""",
    "echo damaged >{folder}/07-other.conf",
    "echo old >{folder}/06-other.conf%s" % ASIDE,
    "mkdir {folder}/08-folder.conf",
    "echo of others >{folder}/90-other.conflist",
    "mkdir -p %s; echo container >%s/10.244.0.5" % (STORE, STORE),
    "rm -rf /etc/kindnet",
    "rm -rf /var/lib/kindnet",
]


class Case(NamedTuple):
    first: list[str]  # commands, before the earlier converge
    earlier: dict[str, Any] | None
    damage: list[str]
    args: dict[str, Any]  # often those of the earlier converge again


def conflist(subnets: list[str], mtu: int | None, name: str, portmap: bool) -> dict[str, Any]:
    ptp: dict[str, Any] = {"type": "ptp", "ipMasq": False, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state"}}
    ptp["ipam"]["routes"] = [{"dst": "::/0" if ":" in s else "0.0.0.0/0"} for s in subnets]
    ptp["ipam"]["ranges"] = [[{"subnet": s}] for s in subnets]
    if mtu:
        ptp["mtu"] = mtu
    return {"cniVersion": "0.3.1", "name": name, "plugins": [ptp] + ([{"type": "portmap", "capabilities": {"portMappings": True}}] if portmap else [])}


conflists = st.builds(
    conflist,
    st.sampled_from([["10.244.0.0/24"], ["10.244.0.0/24", "fd00:10:244::/64"], ["10.244.7.0/24"], ["fd00:10:244::/64"]]),
    st.sampled_from([1500, 1500, 1400, None]),
    st.sampled_from(["kindnet"] * 4 + ["cluster-a"]),
    st.booleans(),
)
options = st.fixed_dictionaries(
    {"conflist": conflists, "plugin_dirs": st.just(["/run/plugins"])},
    optional={
        "path": st.sampled_from(PATHS),
        "conflicts": st.sampled_from(["warn", "fail", "set_aside", "set_aside"]),
        "force_pod_cidr_change": st.just(True),
        "persist": st.just(False),
    },
)
_damage = st.builds(lambda line, path: line.format(path=path, folder=FOLDER), st.sampled_from(DAMAGE), st.sampled_from([PATHS[0]] * 5 + PATHS[1:]))
cases = st.builds(
    lambda first, earlier, damage, args: Case(first, earlier, damage, earlier if args is None and earlier else args or {"state": "absent"}),
    st.lists(_damage, max_size=1),
    st.one_of(st.none(), options, options),
    st.lists(_damage, max_size=3),
    st.one_of(*[options] * 3, st.none()),
)

PLUGINS = """
mkdir -p /run/plugins
for p in ptp host-local portmap loopback; do
  printf '#!/bin/sh\\necho %s\\n' "'{\\"supportedVersions\\": [\\"0.3.1\\"]}'" >/run/plugins/$p
  chmod 755 /run/plugins/$p
done
"""


def kernel(host: RouteHost) -> None:
    """There is nothing but files."""


def prepare(host: RouteHost, case: Case) -> None:
    host.sh("rm -rf /etc/cni /etc/kindnet /var/lib/kindnet /run/kindnet /run/cni-ipam-state /run/part /run/elsewhere; mkdir -p %s" % FOLDER)
    run(host, case.first)
    if case.earlier is not None:
        host.module(name="cni_conflist", **case.earlier)
    run(host, case.damage)


def run(host: RouteHost, commands: list[str]) -> None:
    if commands:
        host.sh("\n".join("( %s ) 2>/dev/null || true" % command for command in commands))


def judge(args: dict[str, Any]) -> Any:
    def judged(result: dict[str, Any], told: list[Said], before: State, after: State) -> None:
        for one in told:
            kind, _space, path = one.subject.partition(" ")
            if kind == "file":
                judge_file(one, path, before.files, after.files)
            elif kind == "folder":
                assert (path in before.files, path in after.files) == {"add": (False, True), "remove": (True, False)}[one.action], one
            elif one.subject != DESIRED:
                judge_prior(one, before.files, after.files)
        # And the other way round: what is another one has been said, by name.
        named = set(places_of(told))
        for path in before.files.keys() | after.files.keys():
            if path.startswith(FOLDER) and signature(before.files.get(path)) != signature(after.files.get(path)):
                assert path in named, ("changed, and not said", path, told)
        assert (priors(before.files) != priors(after.files)) == (BEFORE in named), told
        if not result.get("failed"):
            assert_as_wanted(args, before.files, after.files)

    return judged


def signature(found: File | None) -> Any:
    return found and (found.kind, found.content, found.mode, found.owner)


def judge_file(one: Said, path: str, before: dict[str, File], after: dict[str, File]) -> None:
    if one.after.startswith("renamed to ") or one.before.startswith("renamed to "):
        away = (one.after if one.after.startswith("renamed") else one.before)[len("renamed to ") :]
        source, target = (path, away) if one.after.startswith("renamed") else (away, path)
        assert before[source].identity == after[target].identity and source not in after and target not in before, one
        return
    was, now = before.get(path), after.get(path)
    assert one.action == ("add" if was is None else "remove" if now is None else "replace"), (one, was, now)
    for text, found in ((one.before, was), (one.after, now)):
        if found is None:
            assert text == "", one
        elif text.startswith("owner "):
            assert text == "owner %d:%d, mode %04o" % (*found.owner, found.mode), (one, found)
        elif found.kind == "link":
            assert text == "a symbolic link to " + found.content.decode(), (one, found)
        elif found.kind == "other":
            assert text == "a device, a socket or a pipe", (one, found)
        elif text.partition(" bytes")[0].isdigit():
            assert int(text.partition(" ")[0]) == len(found.content), (one, found)
        else:
            assert as_data(text) == as_data(found.content), (one, found)


def as_data(content: str | bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.strip() if isinstance(content, str) else content.decode("utf-8", "replace").strip()


def priors(files: dict[str, File]) -> dict[str, Any]:
    return json.loads(files[BEFORE].content)["before"] if BEFORE in files else {}


def judge_prior(one: Said, before: dict[str, File], after: dict[str, File]) -> None:
    """Something about the record of what was there before us."""
    if one.subject.startswith("folders made for "):
        entries = [(group, key) for group in ("conflist",) for text in (one.before, one.after) for key in text.removeprefix("recorded: ").split(", ") if key]
    elif one.subject.startswith("what was at "):
        entries = [("files", one.subject[len("what was at ") :])]
    else:
        entries = [("set aside", one.subject.removesuffix(" that was set aside"))]
    for group, key in entries:
        there = [key in priors(files).get(group, {}) for files in (before, after)]
        assert there == [one.action == "remove", one.action == "add"], (one, there)


def assert_as_wanted(args: dict[str, Any], before: dict[str, File], after: dict[str, File]) -> None:
    path = args.get("path", PATHS[0])
    if args.get("state") == "absent":
        # Of ours nothing is left, or what was there before is back.
        assert DESIRED not in after and BEFORE not in after
        return
    found = after[path]
    assert (found.kind, found.mode, found.owner) == ("file", 0o644, (0, 0)), found
    assert json.loads(found.content) == args["conflist"], found
    assert os.path.join(FOLDER, "." + os.path.basename(path) + ".kindnet-tmp") not in after or after[
        os.path.join(FOLDER, "." + os.path.basename(path) + ".kindnet-tmp")
    ].kind == "folder"
    if args.get("conflicts") == "set_aside":
        first = [p for p in after if p.startswith(FOLDER + "/0") and p.endswith((".conf", ".conflist")) and after[p].kind != "folder"]
        assert not first, first
