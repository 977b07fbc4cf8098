# Copyright (c) 2026, the kindnet.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What became of a packet, in one sentence: delivered, or the hop and the reason. Pure.

Lookups say what a kernel would do; probes, where they were sent, what it did. Where the two disagree the probes are right. What nobody could look
at is never called delivered.
"""

from __future__ import annotations

__metaclass__ = type

from collections import namedtuple

from ._walk import BACK, LEFT, LOST, UNKNOWN, is_inside
from ._walk_ends import NODE, OUTSIDE, POD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Mapping, NamedTuple, Optional

    from ._walk import Cluster, Way
    from ._walk_ends import End
    from ._walk_probe import Evidence

    Data = Dict[str, Any]

    class Verdict(NamedTuple):
        status: str
        sentence: str
        hop: str  # the node or pod that it is about; "" if all is right
        reason: str
else:
    Verdict = namedtuple("Verdict", "status sentence hop reason")

DELIVERED, HANDED_OVER = "delivered", "handed_over"
NOT_DELIVERED, TRANSLATED, DETOURED, TOO_LARGE, NOT_KNOWN = "lost", "translated", "detour", "too_large", "unknown"
RIGHT = (DELIVERED, HANDED_OVER)  # the others fail the play
NOT_EVALUATED = "what the filter tables make of it was not evaluated (-e probe=true sends real probes)"


def judge(
    cluster: Cluster, there: Way, back: Way, infos: Mapping[str, Data], today: str, evidence: Optional[Evidence] = None, unsent: str = ""
) -> Verdict:
    """The verdict.

    :param today: the date as ISO 8601 has it, which need not be repeated in a time of that day.
    :param unsent: why there is no evidence although it was asked for; "" otherwise.
    """
    ways = (there, back)
    if evidence is not None and evidence.lost:
        return _lost_by_probes(cluster, there, back, infos, today, evidence)
    for way in ways:
        if way.end == LOST and evidence is None:
            return _lost(way, infos, today)
    for way in ways:
        if way.end == UNKNOWN and way.node and evidence is None:
            return Verdict(NOT_KNOWN, "Not known: %s %s." % (way.node, way.reason), way.node, way.reason)
    for way in ways:
        for node, reason in way.silent:
            if evidence is None:
                return Verdict(NOT_KNOWN, "Not known: %s %s; -e probe=true tells whether it does now." % (node, reason), node, reason)
    for translated in there.translated:
        if is_inside(there.destination.address, cluster):
            reason = "gives it the source %s (%s by %s), so %s does not see %s" % (
                translated.source or "of another", translated.by, translated.rule, there.destination.name, there.source.address
            )
            if translated.doubts:
                reason += ", unless one that cannot be told decides otherwise (%s)" % translated.doubts[0]
            return Verdict(TRANSLATED, "Delivered with another source: %s %s." % (translated.node, reason), translated.node, reason)
    for way in ways:
        for detour in way.detours:
            reason = "sends it%s to %s, and not to %s (route '%s')" % (" back" if way.direction == BACK else "", detour.over, detour.to, detour.rule)
            state = _state(infos.get(detour.node, {}), detour.rule, today)
            return Verdict(DETOURED, "Delivered by a detour: %s %s%s." % (detour.node, reason, state), detour.node, reason)
    if evidence is not None and evidence.too_large:
        return _too_large_by_probes(there, back, evidence)
    for way in ways:
        narrow = way.narrowest
        if narrow and evidence is None:
            where = "on the way back" if way.direction == BACK else "on the way there"
            reason = "%s has an MTU of %d, and %s sends up to %d bytes" % (narrow.what, narrow.size, way.source.name, way.size)
            sentence = "Delivered up to %d bytes only: %s, %s; nothing larger with DF passes." % (way.least, where, reason)
            return Verdict(TOO_LARGE, sentence, narrow.node, reason)
    if unsent:
        reason = "sent no probe (%s)" % unsent
        return Verdict(NOT_KNOWN, "Not known: %s %s; no lookup says no." % (there.source.node, reason), there.source.node, reason)
    return _right(there, back, evidence)


def _lost(way: Way, infos: Mapping[str, Data], today: str) -> Verdict:
    node, reason = way.node, way.reason
    if way.detours and way.detours[0].node != node:
        first = way.detours[0]
        reason = "sends it to %s, and not to %s (route '%s'), and %s %s" % (first.over, first.to, first.rule, node, reason)
        node = first.node
    state = _state(infos.get(node, {}), reason, today)
    return Verdict(NOT_DELIVERED, "Not delivered: %s %s%s." % (node, reason, state), node, reason)


def _lost_by_probes(cluster: Cluster, there: Way, back: Way, infos: Mapping[str, Data], today: str, evidence: Evidence) -> Verdict:
    """Who drops it, by the best witness: a rule that the kernel named, then a lookup, then the last place where it was seen."""
    count = "%d of %d probes came back" % (evidence.received, evidence.sent) if evidence.sent else "no probe was sent"
    if evidence.dropped_at:
        reason = evidence.dropped_by
        state = _state(infos.get(evidence.dropped_at, {}), reason, today)
        return Verdict(NOT_DELIVERED, "Not delivered: %s %s (%s)%s." % (evidence.dropped_at, reason, count, state), evidence.dropped_at, reason)
    for way in (there, back):
        if way.end == LOST:
            found = _lost(way, infos, today)
            return found._replace(sentence="%s (%s)." % (found.sentence.rstrip("."), count))
    reason = evidence.last_seen
    return Verdict(NOT_DELIVERED, "Not delivered: %s, and %s." % (count, reason), evidence.last_node, reason)


def _too_large_by_probes(there: Way, back: Way, evidence: Evidence) -> Verdict:
    where, node = "", ""
    for way in (there, back):
        narrow = way.narrowest
        if narrow:
            where, node = "%s has an MTU of %d" % (narrow.what, narrow.size), narrow.node
            break
    else:
        where = evidence.large_reason or "no lookup says where"
        node = evidence.last_node
    reason = "%s, and a probe of %d bytes with DF does not come back" % (where, evidence.large_size)
    least = min((w.least for w in (there, back) if w.narrowest), default=0)
    head = "Delivered up to %d bytes only" % least if least else "Delivered in small packets only"
    return Verdict(TOO_LARGE, "%s: %s." % (head, reason), node, reason)


def _right(there: Way, back: Way, evidence: Optional[Evidence]) -> Verdict:
    ends = "%s reaches %s" % (called(there.source), called(there.destination))
    remarks = "".join("; %s" % remark for remark in dict.fromkeys(there.remarks + back.remarks))
    least = min((way.least for way in (there, back) if way.least), default=0)
    if evidence is not None:
        size = ", one of %d bytes with DF among them" % evidence.large_size if evidence.large_size else ""
        although = next(("; by its lookups %s %s" % (way.node, way.reason) for way in (there, back) if way.end == LOST), "")
        although = although or next(("; %s %s" % (way.node, way.reason) for way in (there, back) if way.end == UNKNOWN and way.node), "")
        sentence = "Delivered: %s, %d of %d probes came back%s%s" % (ends, evidence.received, evidence.sent, size, although)
        return Verdict(DELIVERED, "%s." % sentence, "", "")
    if there.end == LEFT or back.end in (LEFT, UNKNOWN):
        translated = there.translated[-1] if there.translated else None
        source = "the source %s (%s by %s)" % (translated.source, translated.by, translated.rule) if translated else "its own source %s" % there.source.address
        if not there.is_source_sure:
            source = "which source cannot be told for sure" if not translated else "for all that can be told " + source
        sentence = "Handed over: %s %s, with %s" % (there.node, there.reason, source)
        if back.end == UNKNOWN:
            sentence += "; %s" % back.reason
        return Verdict(HANDED_OVER, "%s; what is beyond was not looked at, and %s%s." % (sentence, NOT_EVALUATED, remarks), there.node, there.reason)
    sentence = "Delivered: %s, and the answer comes back, up to %d bytes, by every lookup" % (ends, least)
    return Verdict(DELIVERED, "%s; %s%s." % (sentence, NOT_EVALUATED, remarks), "", "")


def called(end: End) -> str:
    if end.kind == POD:
        return "%s (%s on %s)" % (end.name, end.address, end.node)
    if end.kind == NODE:
        return "%s (%s)" % (end.name, end.address)
    return end.address if end.kind == OUTSIDE else "%s of %s" % (end.address, end.node)


def _state(info: Data, about: str, today: str) -> str:
    """What keeps a node from mending itself, as the end of a sentence; "" if nothing does."""
    if not info:
        return ""
    timer = info.get("timer") or {}
    if not info.get("managed", True):
        return "; it was never converged"
    if timer.get("active") in ("inactive", "failed", "deactivating"):  # "" where there is no systemd
        since = timer.get("since") or ""
        return "; its timer is stopped%s" % (" since %s" % _clock(since, today) if since else "")
    if timer.get("paused_seconds"):
        return "; its passes are paused for another %d s" % timer["paused_seconds"]
    words = [word.strip("',.()") for word in about.split()]
    for problem in timer.get("problems") or ():
        if any(word in problem.get("subject", "").split() for word in words if "/" in word or "." in word):
            return "; its passes say: %s: %s" % (problem["subject"], problem["message"].rstrip("."))
    return ""


def _clock(since: str, today: str) -> str:
    """A time of ISO 8601 and UTC as a person says it."""
    day, _t, clock = since.rstrip("Z").partition("T")
    return "%s UTC" % clock[:5] if day == today and clock else "%s %s UTC" % (day, clock[:5])
