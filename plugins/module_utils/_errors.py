# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of the domain: what was given where, what is wrong with it, and what to do."""

from __future__ import annotations

__metaclass__ = type

TYPE_CHECKING = False  # importing typing costs the 10-second pass 5 ms; type checkers know this name
if TYPE_CHECKING:
    from typing import Any


class KindnetError(Exception):
    """A failure an operator can act on.

    :param field: the option, file or kernel object that is wrong, as the operator knows it (``pod_cidrs``).
    :param value: the offending value; shown as it was given.
    :param problem: what is wrong, as half a sentence (``has host bits set``).
    :param remedy: what to do, as an imperative sentence (``Write 10.244.1.0/24.``).
    """

    def __init__(self, field: str, value: Any, problem: str, remedy: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy
        super().__init__("%s: %s: %s. %s" % (field, value, problem, remedy))


class Killed(KindnetError):
    """A program did not end. What it had done by then is to be looked at: iptables-nft and nft stand still after their transaction, in close(2), until
    the kernel has cleaned up behind the transactions of everybody (nft_rcv_nl_event), which takes as long as it takes on a busy host."""
