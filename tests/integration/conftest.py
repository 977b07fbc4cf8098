# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for the tests of what masquerades, and each way in which it can."""

from __future__ import annotations

import pytest
from nat_sandbox import BACKENDS, Sandbox


@pytest.fixture
def sandbox():
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


@pytest.fixture(params=BACKENDS)
def backend(request, sandbox):
    if request.param == "iptables-legacy" and sandbox.run("iptables-legacy -t nat -S && ip6tables-legacy -t nat -S", check=False).returncode:
        pytest.skip("this kernel has no legacy iptables")
    return request.param
