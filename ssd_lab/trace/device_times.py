"""A round's activities as its devices had them: the host is ahead of the target, and queues what has to wait."""

from __future__ import annotations

from dataclasses import replace

from ssd_lab.trace.records import Activity, RoundRecord

_ANSWERS = ("draft", "jit", "fast")


def on_devices(record: RoundRecord) -> list[Activity]:
    """The activities, where a verification begins when what it verifies is there, and the target waits until then and
    no longer.

    Spans of a verification begin when the host has queued it, and of waiting end when the host goes on. On a CPU that
    is the same.
    """
    verify = next((activity for activity in record.activities if activity.name == "verify"), None)
    if verify is None:
        return list(record.activities)
    there_s = max((a.end_s for a in record.activities if _answers(a, record)), default=verify.start_s)
    begins_s = there_s if verify.start_s < there_s < verify.end_s else verify.start_s
    return [part for activity in record.activities for part in _parts(activity, verify, begins_s)]


def _parts(activity: Activity, verify: Activity, begins_s: float) -> list[Activity]:
    if activity is verify:
        waits = [replace(verify, name="wait for draft", end_s=begins_s)] if begins_s > verify.start_s else []
        return [*waits, replace(verify, start_s=begins_s)]
    if activity.name != "wait for draft":
        return [activity]
    return [replace(activity, end_s=min(activity.end_s, begins_s))] if activity.start_s <= begins_s else []


def _answers(activity: Activity, record: RoundRecord) -> bool:
    """Does it make draft tokens of this round? A tree that grows beside the verification is for the next one."""
    is_earlier_tree = activity.name == "tree" and activity.start_s < record.start_s
    return activity.role == "draft" and (activity.name in _ANSWERS or is_earlier_tree)
