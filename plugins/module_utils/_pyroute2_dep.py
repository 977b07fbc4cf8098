# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pyroute2, by which routes are changed: where it is, whether it is new enough, and what to do when it is not.

Nothing here is imported, and no site-packages are looked through, before something must be changed.
"""

from __future__ import annotations

__metaclass__ = type

import os
import stat
import sys

from ._errors import KindnetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Tuple

MINIMUM = (0, 7)
# Where the role unpacks its pinned wheel if the distribution has none, or an older one. It comes first.
FOLDER = "/usr/local/lib/kindnet/pyroute2"

REMEDY = (
    "Install it on the host (Debian, Ubuntu and RHEL: python3-pyroute2), or run the role kindnet.host.prerequisites, "
    "which brings one along where the distribution has none"
)


def trouble() -> str:
    """Why pyroute2 cannot be used, as half a sentence; "" if it can. Looks, and does not import it: check mode asks too."""
    import importlib.metadata
    import importlib.util

    problem = _distrust()
    if problem:
        return problem
    _extend_path()
    if importlib.util.find_spec("pyroute2") is None:
        return "is not installed for %s" % sys.executable
    try:
        version = importlib.metadata.version("pyroute2")
    except importlib.metadata.PackageNotFoundError:
        return ""  # a copy without metadata says its version only when it is imported
    return _age(version)


def require() -> None:
    """Raise :class:`KindnetError` if pyroute2 cannot be used."""
    problem = trouble()
    if problem:
        raise _error(problem)


def load() -> Any:
    """Import what of it makes the messages by which routes are changed; their class, ``rtmsg``.

    Errors: :class:`KindnetError` if it is missing, too old, broken, or others than root may change it.
    """
    problem = _distrust()
    if problem:
        raise _error(problem)
    _extend_path()
    sys.dont_write_bytecode = True  # by root's umask it could be writable by a group, and then nothing there would be trusted
    try:
        made, version = _import()
    except ImportError as e:
        raise _error("cannot be imported by %s (%s)" % (sys.executable, e))
    problem = _age(version)
    if problem:
        raise _error(problem)
    return made


def _import() -> Tuple[Any, str]:
    """``rtmsg``, and the version of all of it.

    All of it takes ten times as long and twice the memory of these modules, as its ``__init__`` imports every protocol, its database and asyncio. So the
    package stands there without that for as long as they are imported.
    """
    from importlib.machinery import PathFinder

    known = sys.modules.get("pyroute2")
    spec = PathFinder.find_spec("pyroute2")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if known is None and places:
        sys.modules["pyroute2"] = package = type(sys)("pyroute2")
        package.__path__ = places
    try:
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        return rtmsg, next(filter(None, map(_version_in, places)), "")
    except Exception:  # whatever a package says that is too old, cannot be taken apart, or is not there: all of it says why
        return _import_all()
    finally:
        if known is None:
            _forget()  # whoever wants all of it gets that


def _forget() -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "pyroute2"]:
        del sys.modules[name]


def _import_all() -> Tuple[Any, str]:
    _forget()
    try:
        import pyroute2

        version = str(getattr(pyroute2, "__version__", ""))
        if _age(version):
            return None, version  # another layout
        from pyroute2.netlink.rtnl.rtmsg import rtmsg
    except Exception as e:  # a broken package may raise anything, and one that cannot be used is one error
        raise ImportError("%s: %s" % (type(e).__name__, e))
    return rtmsg, version


def _version_in(place: str) -> str:
    """The version in the file that says nothing else, which is cheaper to read than to import; "" if there is none, or of another form."""
    try:
        with open(os.path.join(place, "config", "version.py"), encoding="utf-8") as f:
            name, _equal, value = f.read(1000).partition("=")
    except OSError:
        return ""
    return value.strip().strip("\"'") if name.strip() == "__version__" else ""


def _distrust() -> str:
    """Why what is in FOLDER is not to be run by root, as half a sentence; "" if it is, or there is none."""
    if not os.path.lexists(FOLDER):
        return ""
    looked = [(place, os.lstat(place)) for place in (os.path.dirname(FOLDER), FOLDER)]
    pending = [FOLDER] if stat.S_ISDIR(looked[-1][1].st_mode) else []
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                st = entry.stat(follow_symlinks=False)
                looked.append((entry.path, st))
                if stat.S_ISDIR(st.st_mode):
                    pending.append(entry.path)
    for place, st in looked:
        # A link is none of ours, and what it leads to nobody has looked at.
        if st.st_uid != 0 or st.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or stat.S_ISLNK(st.st_mode):
            return "is not loaded: %s may be written by others than root, or is a link (owner %d, mode %04o); look who changed it" % (
                place,
                st.st_uid,
                stat.S_IMODE(st.st_mode),
            )
    return ""


def _age(version: str) -> str:
    numbers: List[int] = []
    for part in version.split(".")[:2]:
        if not part.isdigit():
            return ""  # a build of somebody's own
        numbers.append(int(part))
    if tuple(numbers) >= MINIMUM or not numbers:
        return ""
    return "is of version %s, and at least %d.%d is needed" % ((version,) + MINIMUM)


def _error(problem: str) -> KindnetError:
    return KindnetError("pyroute2", "python module", problem, REMEDY + ".")


def _extend_path() -> None:
    if os.path.isdir(FOLDER) and FOLDER not in sys.path:
        sys.path.insert(0, FOLDER)
    if sys.flags.no_site and not os.path.isfile(os.path.join(FOLDER, "pyroute2", "__init__.py")):
        # The pass starts with -S, which saves it half of its time; what it leaves out is made up for here.
        import site

        for folder in site.getsitepackages():
            if folder not in sys.path and os.path.isdir(folder):
                site.addsitedir(folder)
