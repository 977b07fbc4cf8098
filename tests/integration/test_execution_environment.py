# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""execution-environment.yml as ansible-builder reads it, up to the build itself, which wants a container registry."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
TARBALL = "kindnet-host-%s.tar.gz" % VERSION


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The definition, and the collection as it is built."""
    folder = tmp_path_factory.mktemp("ee")
    shutil.copy(ROOT / "execution-environment.yml", folder)
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", folder, cwd=ROOT)
    return folder


def test_its_build_context_has_the_collection_where_it_is_installed_from(folder: Path) -> None:
    run(BIN / "ansible-builder", "create", "--file", "execution-environment.yml", "--context", "context", cwd=folder)
    build = folder / "context/_build"
    (wanted,) = yaml.safe_load((build / "requirements.yml").read_text())["collections"]
    assert (build / wanted["name"]).samefile(build / "collection" / TARBALL)
    assert (build / wanted["name"]).read_bytes() == (folder / TARBALL).read_bytes()
    assert "ansible-galaxy collection install" in (folder / "context/Containerfile").read_text()


def test_the_collection_brings_nothing_along(folder: Path) -> None:
    installed = folder / "installed/ansible_collections/kindnet/host"
    installed.mkdir(parents=True)
    with tarfile.open(folder / TARBALL) as tar:
        tar.extractall(installed, filter="data")
    said = yaml.safe_load(run(BIN / "ansible-builder", "introspect", folder / "installed", cwd=folder))
    assert not said["python"] and not said["system"]


def test_neither_does_a_checkout(folder: Path) -> None:
    said = yaml.safe_load(run(BIN / "ansible-builder", "introspect", ROOT / ".ansible/collections", cwd=folder))
    assert not said["python"] and not said["system"]
