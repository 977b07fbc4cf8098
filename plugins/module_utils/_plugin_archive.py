# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reference CNI plugins out of a release archive: /usr/local/lib/kindnet/cni/<digest>/. On the controller, the archive itself; on a node, the concern.

A folder is complete once MEMBERS is in it, which is written last and says what else is. So whatever a killed run left is made good by the next.
"""

from __future__ import annotations

__metaclass__ = type

import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
from collections import namedtuple

from . import _files
from ._errors import KindnetError
from ._plan import Change, Plan, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

    Section = Dict[str, Any]

    class Actual(NamedTuple):
        """What is there of archives."""

        state: str  # of the wanted one: "" if it is as it was unpacked, else what is wrong with it
        exists: bool  # whether there is anything of it
        others: Tuple[str, ...]  # digests of which there is something else
else:
    Actual = namedtuple("Actual", "state exists others")

SECTION = "cni_archive"  # never recorded in desired.json: a pass has no archive
FOLDER = "/usr/local/lib/kindnet/cni"
MEMBERS = ".members.json"
DIGEST = re.compile(r"[0-9a-f]{64}")
MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
LARGEST = 256 << 20  # bytes of one member; the largest plugin has a tenth
UNPACK, REMOVE = "unpack", "remove"
BLOCK = 1 << 20

CHECKSUM_REMEDY = "Give the one that the release names beside the archive, as sha256: and 64 hexadecimal digits (of the roles: kindnet_cni_archive_checksum)."
ARCHIVE_REMEDY = "Give a release archive of the reference plugins, as their project makes them (of the roles: kindnet_cni_archive)."


def parse_checksum(checksum: Any) -> str:
    """The digest in ``sha256:...``."""
    if checksum is None or checksum == "":
        raise KindnetError("checksum", "none", "is missing, and nothing is unpacked that nobody vouches for", CHECKSUM_REMEDY)
    kind, _colon, digest = str(checksum).strip().partition(":")
    if kind != "sha256" or not DIGEST.fullmatch(digest.lower()):
        raise KindnetError("checksum", ascii(checksum)[:100], "is not a SHA-256 checksum", CHECKSUM_REMEDY)
    return digest.lower()


def folder_of(digest: str) -> str:
    return os.path.join(FOLDER, digest)


def digests() -> List[str]:
    """Of the archives of which there is something on this host."""
    return sorted(name for name in _files.names_in(FOLDER) or () if DIGEST.fullmatch(name))


def verify(archive: str, path: str, digest: str) -> None:
    """Raise unless the file at ``path`` has ``digest``. ``archive`` is what the user calls it."""
    total = hashlib.sha256()
    try:
        with open(path, "rb") as f:
            block = f.read(BLOCK)
            while block:
                total.update(block)
                block = f.read(BLOCK)
    except OSError as e:
        raise KindnetError("archive", archive, "cannot be read (%s)" % e.strerror, ARCHIVE_REMEDY)
    if total.hexdigest() != digest:
        problem = "has SHA-256 %s, and not %s as checksum says" % (total.hexdigest(), digest)
        raise KindnetError("archive", archive, problem, "Get the archive again, or see who changed it. Nothing was unpacked.")


def members(archive: str, path: str) -> Dict[str, Tuple[int, int]]:
    """Size and mode of each program and text in the archive, by name. Raise for one that holds anything else."""
    return {name: (info.size, mode) for name, mode, info, _tar in _each(archive, path)}


def resolve(params: Dict[str, Any], recorded: Optional[Section]) -> Section:
    """See :class:`_converge.Concern`."""
    if params["state"] == "absent":
        return {"state": "absent", "digest": parse_checksum(params["checksum"]) if params["checksum"] else ""}
    if not params["archive"]:
        raise KindnetError("archive", "none", "is missing", ARCHIVE_REMEDY)
    return {"archive": params["archive"], "digest": parse_checksum(params["checksum"]), "src": params["src"]}


def read(section: Section, recorded: Optional[Section]) -> Actual:
    """See :class:`_converge.Concern`."""
    found = digests()
    digest = section["digest"]
    state = _state(folder_of(digest)) if digest in found else "it is not here"
    return Actual(state, digest in found, tuple(d for d in found if d != digest))


def plan(section: Section, actual: Actual) -> Plan:
    """See :class:`_converge.Concern`."""
    if section.get("state") == "absent":
        reason = "plugins of another archive are wanted" if section["digest"] else "it is ours"
        return Plan(tuple(Change("folder " + folder_of(d), "remove", "plugins of an archive", "", reason, (REMOVE, d)) for d in actual.others))
    if not actual.state:
        return Plan()
    after = "plugins of %s" % ascii(os.path.basename(section["archive"]))[1:-1]
    action, before = ("replace", "plugins of an archive") if actual.exists else ("add", "")
    return Plan((Change("folder " + folder_of(section["digest"]), action, before, after, actual.state, (UNPACK, section["digest"])),))


def apply(section: Section, plan: Plan) -> Tuple[Problem, ...]:
    """See :class:`_converge.Concern`."""
    failures: List[Problem] = []
    for change in plan.changes:
        what, digest = change.op
        try:
            if what == UNPACK:
                unpack(section["archive"], section["src"], digest)
            else:
                shutil.rmtree(folder_of(digest))
        except KindnetError as e:
            failures.append(Problem(change.subject, str(e)))
        except OSError as e:
            failures.append(Problem(change.subject, "%s: %s. Run as root on a writable file system." % (e.filename, e.strerror)))
    if section.get("state") == "absent" and _files.names_in(FOLDER) == ():
        _files.remove_folder(FOLDER)
    return tuple(failures)


def unpack(archive: str, path: str, digest: str) -> None:
    """Each file by itself, and not again where it is right by its looks; what else is in the folder goes."""
    verify(archive, path, digest)
    folder = folder_of(digest)
    wanted = members(archive, path)  # all are looked at before the first is written
    _files.make_folder(folder)
    os.chmod(folder, 0o755)
    os.chown(folder, 0, 0)
    _files.remove(os.path.join(folder, MEMBERS))
    for name in _files.names_in(folder) or ():
        if name not in wanted:
            _remove_any(os.path.join(folder, name))
    for name, mode, info, tar in _each(archive, path):
        content = tar.extractfile(info)
        if _looks(os.path.join(folder, name)) is None:
            _remove_any(os.path.join(folder, name))
        _files.write_atomic(os.path.join(folder, name), content.read() if content else b"", mode, 0, 0)
    _files.write_atomic(os.path.join(folder, MEMBERS), json.dumps(wanted, indent=1, sort_keys=True).encode())


def _each(archive: str, path: str) -> Iterator[Tuple[str, int, tarfile.TarInfo, tarfile.TarFile]]:
    """Name, mode and entry of each file. An entry that is anything else than a file at the top is refused, not passed over."""
    seen = set()
    try:
        with tarfile.open(path) as tar:
            for info in tar:
                name = info.name[2:] if info.name.startswith("./") else info.name
                if info.isdir() and name in (".", ""):
                    continue
                shown = ascii(info.name)[1:-1][:100]
                if not info.isreg():
                    raise KindnetError("archive", archive, "holds %s, which is no regular file" % shown, ARCHIVE_REMEDY)
                if not MEMBER.fullmatch(name):
                    raise KindnetError("archive", archive, "holds %s, which is not the name of a plugin" % shown, ARCHIVE_REMEDY)
                if name in seen:
                    raise KindnetError("archive", archive, "holds %s twice" % shown, ARCHIVE_REMEDY)
                if info.size > LARGEST:
                    raise KindnetError("archive", archive, "holds %s of %d bytes" % (shown, info.size), ARCHIVE_REMEDY)
                seen.add(name)
                yield name, 0o755 if info.mode & 0o111 else 0o644, info, tar
    except (tarfile.TarError, EOFError, OSError) as e:
        raise KindnetError("archive", archive, "is no tar archive that can be read (%s)" % e, ARCHIVE_REMEDY)
    if not seen:
        raise KindnetError("archive", archive, "holds nothing", ARCHIVE_REMEDY)


def _state(folder: str) -> str:
    """What is wrong with a folder, as half a sentence."""
    try:
        wanted = json.loads(_files.read_bytes(os.path.join(folder, MEMBERS)) or b"")
        expected = {str(name): tuple(looks) for name, looks in wanted.items()}
    except (KindnetError, ValueError, AttributeError, TypeError):
        return "it was not unpacked to the end"
    wrong = sorted(name for name, looks in expected.items() if _looks(os.path.join(folder, name)) != looks)
    return "not as unpacked: " + ", ".join(wrong) if wrong else ""


def _looks(path: str) -> Optional[Tuple[int, int]]:
    """Size and mode of a file of root's; None if it is anything else."""
    try:
        st = os.lstat(path)
    except OSError:
        return None
    return (st.st_size, stat.S_IMODE(st.st_mode)) if stat.S_ISREG(st.st_mode) and (st.st_uid, st.st_gid) == (0, 0) else None


def _remove_any(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        _files.remove(path)
