# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of ours on a node: read whole, replaced whole. The only code that writes one."""

from __future__ import annotations

__metaclass__ = type

import errno
import os
import stat
from collections import namedtuple

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

    class Found(NamedTuple):
        """What is at a path."""

        kind: str  # "file", "folder", or what else it is, in words
        content: bytes  # of a file, or of the file that a symbolic link leads to
        mode: int
        uid: int
        gid: int
else:
    Found = namedtuple("Found", "kind content mode uid gid")

# linux/fcntl.h, linux/fs.h
AT_FDCWD = -100
RENAME_NOREPLACE = 1
LARGEST = 1 << 20  # no file of ours is nearly as long, and a pass reads it whole


def temporary_name(path: str) -> str:
    """Where the next content of ``path`` is made: same folder, a name that no container runtime or systemd loads.

    The name is fixed, so whatever a killed run left there is replaced by the next one, under the lock.
    """
    folder, name = os.path.split(path)
    return os.path.join(folder, ".%s.kindnet-tmp" % name)


def read_bytes(path: str) -> Optional[bytes]:
    """The content of ``path``; None when it does not exist."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be read", "Run as root, and see that it is a regular file.")


def look(path: str) -> Optional[Found]:
    """What is at ``path``, without waiting on what is not a file; None if nothing is."""
    try:
        st = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be looked at", "Run as root.")
    kind, content = "a device, a socket or a pipe", b""
    if stat.S_ISREG(st.st_mode):
        kind = "file"
    elif stat.S_ISDIR(st.st_mode):
        kind = "folder"
    elif stat.S_ISLNK(st.st_mode):
        kind = "a symbolic link to " + ascii(os.readlink(path))[1:-1]
    if kind == "file" or stat.S_ISLNK(st.st_mode) and os.path.isfile(path):
        content = _beginning_of(path, os.O_NOFOLLOW if kind == "file" else 0)
    return Found(kind, content, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid)


def _beginning_of(path: str, flags: int) -> bytes:
    """Of a file that has just been seen. Where others may write, it may be something else by now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be read", "Look what it is, and try again.")
    with open(fd, "rb") as f:
        return f.read(LARGEST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""


def image_of(path: str) -> Optional[Dict[str, Any]]:
    """What is at ``path``, as data from which :func:`put_back` makes it again; None if nothing is."""
    found = look(path)
    if found is None:
        return None
    if os.path.islink(path):
        return {"link": os.readlink(path)}
    if found.kind != "file":
        return {"other": found.kind}
    if len(found.content) == LARGEST:
        raise KindnetError(path, "%d bytes or more" % LARGEST, "is in our place, and too large to be kept until teardown", "Move it away.")
    image: Dict[str, Any] = {"mode": "%04o" % found.mode, "owner": [found.uid, found.gid]}
    try:
        image["text"] = found.content.decode()
    except UnicodeDecodeError:
        image["hex"] = found.content.hex()
    return image


def put_back(path: str, image: Dict[str, Any]) -> None:
    """Make what an image was taken of, in place of the file or link that is there."""
    if "link" in image:
        link_atomic(path, image["link"])
    elif "mode" in image:
        content = image["text"].encode() if "text" in image else bytes.fromhex(image["hex"])
        uid, gid = image["owner"]
        write_atomic(path, content, int(image["mode"], 8), uid, gid)


def names_in(folder: str) -> Optional[Tuple[str, ...]]:
    """The names in ``folder``; None if there is no such folder."""
    try:
        return tuple(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise KindnetError(folder, e.strerror, "cannot be listed", "Run as root.")


def missing_folders(folder: str) -> List[str]:
    """Those of ``folder`` and the folders above it that do not exist, the outermost first."""
    missing: List[str] = []
    while not os.path.isdir(folder):
        if os.path.lexists(folder):
            raise KindnetError(folder, "a file or a link that leads nowhere", "is no folder, and one is needed there", "Move it away.")
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    return missing


def left_empty(folders: Iterable[str], names: Dict[str, Optional[Tuple[str, ...]]], removed: Sequence[str]) -> List[str]:
    """Those of ``folders`` that hold nothing but what is ``removed``, the innermost first. ``names`` lists each that exists. Pure."""
    gone: Set[str] = set(removed)
    empty: List[str] = []
    for folder in sorted(folders, key=len, reverse=True):
        inside = names.get(folder)
        if inside is not None and all(os.path.join(folder, n) in gone for n in inside):
            gone.add(folder)
            empty.append(folder)
    return empty


def make_folder(folder: str) -> None:
    """Make ``folder`` and those above it, readable by all whatever the umask is."""
    for missing in missing_folders(folder):
        try:
            os.mkdir(missing, 0o755)
            fd = os.open(missing, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)  # the one just made, whoever owns the folder above
            try:
                os.fchmod(fd, 0o755)
            finally:
                os.close(fd)
        except OSError as e:
            raise KindnetError(missing, e.strerror, "the folder cannot be made", "Run as root on a writable file system.")


def remove_folder(folder: str) -> None:
    """Remove an empty folder. A mount point stays: it is the host's."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        pass
    except OSError as e:
        if e.errno == errno.EBUSY:
            return
        raise KindnetError(folder, e.strerror, "cannot be removed", "Look what is in it.")


def link_atomic(path: str, target: str) -> None:
    """Make ``path`` a symbolic link to ``target``, in place of whatever file or link is there."""
    temporary = temporary_name(path)
    try:
        make_folder(os.path.dirname(path))
        remove(temporary)
        os.symlink(target, temporary)
        os.rename(temporary, path)
        sync_folder(os.path.dirname(path))
    except OSError as e:
        raise KindnetError(path, e.strerror, "the link cannot be made", "Run as root on a writable file system.")


def write_atomic(path: str, content: bytes, mode: int = 0o644, uid: int = -1, gid: int = -1, lasting: bool = True) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old file or the new one, also after a power cut if it is to be ``lasting``.

    Missing folders are made 0755. Errors: :class:`KindnetError` naming the path; the old file is then untouched.
    """
    folder = os.path.dirname(path)
    temporary = temporary_name(path)
    try:
        make_folder(folder)
        fd = _create(temporary)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view):]
            if (uid, gid) != (-1, -1):  # the service of a pass may not call it at all
                os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
            if lasting:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        if lasting:
            sync_folder(folder)
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be written", "Run as root on a writable file system.")


def _create(path: str) -> int:
    """A file that is new, in place of what is there: where others may write, that may be a pipe, or a second name of a file of somebody else."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o600)


def rename_new(path: str, new: str) -> None:
    """Rename ``path``, whatever it is, to ``new`` in the same folder. What is at ``new`` by then is never replaced."""
    import ctypes  # a run of the operator's alone comes here

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(new), RENAME_NOREPLACE) != 0:
        problem = "cannot be renamed to %s (%s)" % (new, os.strerror(ctypes.get_errno()))
        raise KindnetError(path, "as it is", problem, "Look what is there, and rename it by hand.")
    sync_folder(os.path.dirname(path))


def remove(path: str) -> None:
    """Remove ``path`` if it is there."""
    try:
        os.unlink(path)
        sync_folder(os.path.dirname(path))
    except FileNotFoundError:
        pass
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be removed", "Run as root on a writable file system.")


def sync_folder(folder: str) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refuse_writable_by_others(path: str) -> None:
    """Raise unless ``path`` and its folder belong to root and nobody else may write them.

    What is read from them decides where a production host sends its packets.
    """
    for place in (path, os.path.dirname(path)):
        st = os.stat(place)
        if st.st_uid != 0 or st.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise KindnetError(
                place,
                "owner %d, mode %04o" % (st.st_uid, stat.S_IMODE(st.st_mode)),
                "may be written by others than root, so it is not trusted",
                "Look who changed it, then: chown root:root %s; chmod go-w %s." % (place, place),
            )
