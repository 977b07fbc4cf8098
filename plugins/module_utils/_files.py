# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of ours on a node: read whole, replaced whole. The only code that writes one."""

from __future__ import annotations

__metaclass__ = type

import os
import stat

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def temporary_name(path: str) -> str:
    """Where the next content of ``path`` is made: same folder, a name that no container runtime or systemd loads.

    The name is fixed, so whatever a killed run left there is overwritten by the next one, under the lock.
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


def write_atomic(path: str, content: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old file or the new one, also after a power cut.

    Missing folders are made 0755. Errors: :class:`KindnetError` naming the path; the old file is then untouched.
    """
    folder = os.path.dirname(path)
    temporary = temporary_name(path)
    try:
        os.makedirs(folder, 0o755, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view):]
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        sync_folder(folder)
    except OSError as e:
        raise KindnetError(path, e.strerror, "cannot be written", "Run as root on a writable file system.")


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
