# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The code that passes run: /usr/local/lib/kindnet/<digest>/kindnet_host/*.py, compiled. The only code that writes there."""

from __future__ import annotations

__metaclass__ = type

import fcntl
import hashlib
import os
import re
import shutil
import sys
from collections import namedtuple
from importlib.util import MAGIC_NUMBER

from . import _files, _systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

    from ._files import Found

    class Code(NamedTuple):
        """What is in LIBRARY."""

        current: str  # where the link "current" leads to; "" without one
        installed: Tuple[str, ...]  # paths of folders of a digest
        leftovers: Tuple[str, ...]  # paths of folders whose making or removal was cut off
        tree: Optional[Dict[str, Found]]  # what is in the folder of the wanted digest, by relative path; None without one
        python_tag: str  # what the node's Python calls its bytecode
        python_magic: bytes  # and how that begins
        idle: Tuple[str, ...] = ()  # those of installed that are of another version, and that no pass runs
else:
    Code = namedtuple("Code", "current installed leftovers tree python_tag python_magic idle", defaults=((),))

LIBRARY = "/usr/local/lib/kindnet"
PACKAGE = "kindnet_host"
PYTHON = "/usr/bin/python3"  # the one of the command, whichever runs the module
STAGING = ".tmp"  # ends the name of a folder while it is made or removed
DIGEST = re.compile(r"[0-9a-f]{16}")
LINK = "a symbolic link to "

# Hash-based and unchecked: a folder's content never changes, so a pass need not look at the sources.
UNCHECKED = (0b01).to_bytes(4, "little")


def digest_of(sources: Dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name in sorted(sources):
        total.update(b"%s %d\0" % (name.encode(), len(sources[name])) + sources[name])
    return total.hexdigest()[:16]


def read(digest: str) -> Code:
    names = sorted(_files.names_in(LIBRARY) or ())
    link = _files.look(os.path.join(LIBRARY, "current"))
    tree = read_tree(os.path.join(LIBRARY, digest))
    tag, magic = asked_python() if tree is not None else ("", b"")
    installed = tuple(os.path.join(LIBRARY, n) for n in names if DIGEST.fullmatch(n))
    return Code(
        link.kind[len(LINK):] if link and link.kind.startswith(LINK) else link.kind if link else "",
        installed,
        tuple(os.path.join(LIBRARY, n) for n in names if n.endswith(STAGING)),
        tree,
        tag,
        magic,
        tuple(folder for folder in installed if os.path.basename(folder) != digest and _while_idle(folder, lambda: None)),
    )


def read_tree(folder: str) -> Optional[Dict[str, Found]]:
    found = _files.look(folder)
    if found is None:
        return None
    tree = {"": found}
    for name in (_files.names_in(folder) or ()) if found.kind == "folder" else ():
        for path, inner in (read_tree(os.path.join(folder, name)) or {}).items():
            tree[os.path.join(name, path) if path else name] = inner
    return tree


def asked_python() -> Tuple[str, bytes]:
    """The tag and the magic number of the bytecode of the Python that will run a pass."""
    if os.path.exists(PYTHON) and os.path.realpath(PYTHON) == os.path.realpath(sys.executable):
        return sys.implementation.cache_tag or "", MAGIC_NUMBER
    script = "import sys, importlib.util as u; print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"
    tag, magic = _systemd.run(PYTHON, "-I", "-S", "-c", script).split()
    return tag, bytes.fromhex(magic)


def damaged(tree: Dict[str, Found], sources: Dict[str, bytes]) -> List[str]:
    """Pure. What in the folder of a digest is not as it was installed. Bytecode counts only by who may write it."""
    cache = os.path.join(PACKAGE, "__pycache__")
    wanted = {os.path.join(PACKAGE, name): content for name, content in sources.items()}
    wrong = [path for path in wanted if path not in tree]
    for path, found in tree.items():
        is_folder = path in ("", PACKAGE, cache)
        is_bytecode = os.path.dirname(path) == cache and path.endswith(".pyc")
        expected = "folder" if is_folder else "file"
        if (
            found.kind != expected
            or found.uid != 0
            or found.mode & 0o022
            or not (is_folder or is_bytecode or wanted.get(path) == found.content)
        ):
            wrong.append(path or "the folder itself")
    return sorted(wrong)


def is_compiled(code: Code, sources: Dict[str, bytes]) -> bool:
    """Pure. Whether each source has bytecode that the node's Python takes as it is."""
    tree = code.tree or {}
    for name in sources:
        found = tree.get(os.path.join(PACKAGE, "__pycache__", "%s.%s.pyc" % (name[: -len(".py")], code.python_tag)))
        if found is None or not found.content.startswith(code.python_magic + UNCHECKED):
            return False
    return True


def install(digest: str, sources: Dict[str, bytes]) -> None:
    """Make the folder under another name, complete and on disk, then rename it."""
    folder = os.path.join(LIBRARY, digest)
    staging = folder + STAGING
    remove(staging)
    _files.make_folder(os.path.join(staging, PACKAGE))
    _write(staging, sources)
    _compile(staging, folder)
    os.rename(staging, folder)
    _files.sync_folder(LIBRARY)


def repair(digest: str, sources: Dict[str, bytes]) -> None:
    """In place, file by file: each is missing, as it was, or right. Bytecode goes first, since it may be that of a changed source."""
    folder = os.path.join(LIBRARY, digest)
    keep = {"", PACKAGE} | {os.path.join(PACKAGE, name) for name in sources}
    for path, found in sorted((read_tree(folder) or {}).items(), reverse=True):
        expected = "folder" if path in ("", PACKAGE) else "file"
        if path not in keep or found.kind != expected:
            _remove_any(os.path.join(folder, path))
    _files.make_folder(os.path.join(folder, PACKAGE))
    for place in (folder, os.path.join(folder, PACKAGE)):
        os.chown(place, 0, 0)
        os.chmod(place, 0o755)
    _write(folder, sources)
    _compile(folder, folder)


def recompile(digest: str) -> None:
    folder = os.path.join(LIBRARY, digest)
    _compile(folder, folder)


def _write(folder: str, sources: Dict[str, bytes]) -> None:
    for name, content in sources.items():
        path = os.path.join(folder, PACKAGE, name)
        if _files.look(path) != _files.Found("file", content, 0o644, 0, 0):
            _files.write_atomic(path, content)


def _compile(folder: str, final: str) -> None:
    """By the Python that will run it, and on disk: what a power cut leaves of bytecode would otherwise be believed."""
    shutil.rmtree(os.path.join(folder, PACKAGE, "__pycache__"), ignore_errors=True)
    mode = "unchecked-hash"
    _systemd.run(PYTHON, "-I", "-S", "-m", "compileall", "-q", "-s", folder, "-p", final, "--invalidation-mode", mode, os.path.join(folder, PACKAGE))
    for path, _folders, names in os.walk(folder):
        for name in names:
            fd = os.open(os.path.join(path, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        _files.sync_folder(path)


def remove(folder: str) -> None:
    """Away from its name first, so that what is left of it when this is cut off is nobody's code."""
    if not folder.endswith(STAGING):
        aside = folder + STAGING
        _remove_any(aside)
        try:
            os.rename(folder, aside)
        except FileNotFoundError:
            return
        folder = aside
    _remove_any(folder)


def remove_idle(folder: str) -> None:
    """Unless a pass under way runs it by now; then it goes with the next run."""
    _while_idle(folder, lambda: remove(folder))


def _while_idle(folder: str, do: Callable[[], None]) -> bool:
    """Do it under the lock on ``folder`` that each pass shares on the code it runs. False, and nothing done, where one does."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False  # whatever it is, it is no code of ours
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        do()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _remove_any(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        _files.remove(path)
