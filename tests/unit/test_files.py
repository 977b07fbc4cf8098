# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a node: what must not be lost."""

from __future__ import annotations

import pytest
from ansible_collections.kindnet.host.plugins.module_utils import _files
from ansible_collections.kindnet.host.plugins.module_utils._errors import KindnetError


def test_renaming_replaces_nothing(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    with pytest.raises(KindnetError, match="cannot be renamed to .*new .File exists"):
        _files.rename_new(str(old), str(new))
    assert (old.read_text(), new.read_text()) == ("old", "new")
    new.unlink()
    _files.rename_new(str(old), str(new))
    assert new.read_text() == "old" and not old.exists()
