# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode tells the truth: over generated states of routes, chain and file, the predicted change is the change then made, and the
following run changes nothing.

The states are the same ones in every run. With ``KINDNET_CHECK_MODE_STATES=N`` there are N in each test, and others each time. What fails is
printed, shrunk to the least that fails.
"""

from __future__ import annotations

import os

import check_mode_chain
import check_mode_conflist
import check_mode_routes
import pytest
from check_mode import prove
from hypothesis import HealthCheck, Phase, given, settings
from route_host import RouteHost

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# In a run by itself; together more than 500, also on a kernel without legacy iptables.
STATES = {"routes": 190, "chain": 60, "conflist": 210}
MORE = int(os.environ.get("KINDNET_CHECK_MODE_STATES", "0"))


@pytest.fixture
def host():
    host = RouteHost(warm=True)
    yield host
    host.close()


def over(kind, cases, one):
    """Run ``one`` over so many generated cases, and see that there were as many."""
    seen = []
    wanted = MORE or STATES[kind]

    @settings(
        max_examples=wanted,
        deadline=None,
        database=None,
        derandomize=not MORE,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def generated(case):
        seen.append(one(case))

    generated()
    assert len(seen) >= wanted
    # Of many there was something to tell, and of some nothing.
    assert wanted / 3 < sum(bool(r.get("changed")) for r in seen) < wanted


def test_of_routes(host):
    def one(case):
        check_mode_routes.prepare(host, case)
        return prove(host, "kindnet_route", case.args, check_mode_routes.kernel, check_mode_routes.judge(case.args))

    over("routes", check_mode_routes.cases, one)


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy", "nftables"])
def test_of_the_chain(host, backend):
    if backend == "iptables-legacy":
        lacks = host.sh("{ iptables-legacy -t nat -S && ip6tables-legacy -t nat -S; } 2>&1 >/dev/null || true")
        if lacks:
            pytest.skip("this kernel has no legacy iptables: " + lacks)

    def one(case):
        check_mode_chain.prepare(host, case, backend)
        return prove(host, "kindnet_masq", case.args, check_mode_chain.kernel, check_mode_chain.judge(case.args))

    over("chain", check_mode_chain.cases(backend), one)


def test_of_the_conflist(host):
    host.sh(check_mode_conflist.PLUGINS)

    def one(case):
        check_mode_conflist.prepare(host, case)
        return prove(host, "cni_conflist", case.args, check_mode_conflist.kernel, check_mode_conflist.judge(case.args))

    over("conflist", check_mode_conflist.cases, one)
