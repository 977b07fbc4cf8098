# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes write of themselves and the installation takes out: metrics, wherever they were written, and the history. No part of a pass."""

from __future__ import annotations

__metaclass__ = type

import os
import re

from . import _before, _files, _history, _metrics
from ._reconcile import TEXTFILE_DIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Tuple

    from ._files import Found

HISTORY = _history.FOLDER


def textfile_dir_of(service: Optional[Found]) -> str:
    """Pure. The folder that an installed service writes metrics into; "" if it writes none."""
    found = re.search(r"^Environment=%s=(/.*)$" % TEXTFILE_DIR, service.content.decode("utf-8", "replace"), re.MULTILINE) if service else None
    return found.group(1) if found else ""


def is_metrics(path: str) -> bool:
    return os.path.basename(path) == _metrics.NAME


def metrics_of_ours(service: Optional[Found], textfile_dir: str) -> Tuple[str, _before.Priors]:
    """The file with metrics in ``textfile_dir`` if what was there before is still to be recorded, else ""; and what was at those that are written no more."""
    wanted, installed = _metrics.file_in(textfile_dir), _metrics.file_in(textfile_dir_of(service))
    known = {path: entry["before"] for path, entry in _before.load(_before.FILES).items() if is_metrics(path)}
    if installed:
        known.setdefault(installed, None)  # also when the record is lost
    place = "" if wanted in known else wanted
    known.pop(wanted, None)
    return place, _before.Priors(known, {path: _files.image_of(path) for path, image in known.items() if image is not None})


def has_history() -> bool:
    """Whether there is something of it that is ours to remove."""
    names = _files.names_in(HISTORY)
    return names is not None and (not names or any(os.path.join(HISTORY, name) in _of_history() for name in names))


def remove_history() -> None:
    """Whatever somebody else put beside it stays, and so does the folder then."""
    for path in _of_history():
        _files.remove(path)


def _of_history() -> Tuple[str, str]:
    return _history.FILE, _files.temporary_name(_history.FILE)
