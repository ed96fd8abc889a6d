"""One cancel's story as a small picture: POSTs and reads on two lanes, from the enqueue to the end. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from xml.etree import ElementTree as ET

from worker.report.content import OPEN, Event, Happening, Timeline
from worker.report.drawing import WIDTH, Look, mark, nice_ticks, part, picture, words, write
from worker.report.shown import many, short_span

# Shape and colour say the same; the list beside the picture says it in words.
OUTCOME_LOOKS = {
    "unresolved": Look("unresolved", "triangle"),
    "refused": Look("refused", "cross"),
    OPEN: Look("open", "hollow"),
    "accepted": Look("accepted", "ring"),
    "filled": Look("filled", "diamond"),
    "gone": Look("gone", "bar"),
    "canceled": Look("canceled", "dot"),
}
VERDICT_LOOKS = {
    "accepted": Look("v-accepted", "dot"),
    "transient": Look("v-transient", "square"),
    "throttled": Look("v-throttled", "bar"),
    "unauthorized": Look("v-unauthorized", "triangle"),
    "refused": Look("v-refused", "cross"),
    "ambiguous": Look("v-ambiguous", "diamond"),
    None: Look("v-none", "hollow"),
}
READ_LOOK = Look("read", "ring")

# Pixels.
LEFT, RIGHT = 40.0, WIDTH - 14
POSTS, READS, AXIS = 24.0, 50.0, 66.0
NUMBER_ROOM = 9.0


def track(name: str, timeline: Timeline) -> str:
    """The story to scale; what lies closer than a pixel is drawn on top of itself and counted in the title."""
    start, length = timeline.line.enqueued_at, _length(timeline)
    root = picture(name, f"Order {timeline.line.order_id}, cancel's timeline", _told(timeline), 92.0)
    _lanes(root, length)
    _reads(root, timeline.events, start, length)
    _posts(root, timeline.events, start, length)
    for event in timeline.events:
        if event.kind is Happening.FINISHED:
            x = _across(event.at - start, length)
            part(root, "line", x1=x, y1=8.0, x2=x, y2=AXIS, css="end")
            mark(root, OUTCOME_LOOKS[timeline.line.end], x, AXIS, 5.0)
    return write(root)


def _lanes(root: ET.Element, length: timedelta) -> None:
    words(root, (0.0, POSTS + 4), "POST", css="tick")
    words(root, (0.0, READS + 4), "read", css="tick")
    for y in (POSTS, READS):
        part(root, "line", x1=LEFT, y1=y, x2=RIGHT, y2=y, css="grid")
    part(root, "line", x1=LEFT, y1=AXIS, x2=RIGHT, y2=AXIS, css="rung")
    for tick in nice_ticks(length / timedelta(seconds=1), 5):
        moment = timedelta(seconds=tick)
        if moment <= length:
            x = _across(moment, length)
            part(root, "line", x1=x, y1=AXIS, x2=x, y2=AXIS + 4, css="rung")
            label = "enqueued" if not tick else f"+{_tick_words(tick)}"
            words(root, (x, AXIS + 19), label, css="tick", text_anchor="middle" if tick else "start")


def _reads(root: ET.Element, events: Sequence[Event], start: datetime, length: timedelta) -> None:
    for event in events:
        if event.kind is Happening.READ:
            mark(root, READ_LOOK, _across(event.at - start, length), READS, 3.2)


def _posts(root: ET.Element, events: Sequence[Event], start: datetime, length: timedelta) -> None:
    free = 0.0
    for event in events:
        if event.kind is not Happening.ATTEMPT:
            continue
        x = _across(event.at - start, length)
        if event.until is not None:
            answered = _across(event.until - start, length)
            part(root, "line", x1=x, y1=POSTS, x2=answered, y2=POSTS, css="wire")
        mark(root, VERDICT_LOOKS.get(event.said, VERDICT_LOOKS[None]), x, POSTS)
        if x >= free:
            words(root, (x, POSTS - 9), str(event.number), css="value small middle")
            free = x + NUMBER_ROOM


def _length(timeline: Timeline) -> timedelta:
    """To the end; what a person finds days later is for the list only."""
    start = timeline.line.enqueued_at
    last = timeline.line.finished_at or max(event.until or event.at for event in timeline.events)
    return max(last - start, timedelta(milliseconds=1))


def _across(since: timedelta, length: timedelta) -> float:
    share = min(max(since / length, 0.0), 1.0)  # another clock may say that it was before the enqueue
    return LEFT + (RIGHT - LEFT) * share


def _tick_words(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def _told(timeline: Timeline) -> str:
    kinds = [event.kind for event in timeline.events]
    posts, reads = kinds.count(Happening.ATTEMPT), kinds.count(Happening.READ)
    took = short_span(timeline.line.to_end) or "not yet ended"
    return f"{many(posts, 'attempt')}, {many(reads, 'read')}, {timeline.line.end}, {took}"
