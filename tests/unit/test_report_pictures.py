"""The pictures say what the numbers say: geometry to scale, every count told in words, nothing breaks at the edges."""

import itertools
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest

from tests.parts.cancels import at
from tests.parts.reports import HOSTILE, a_look, a_timeline, an_attempt, milliseconds
from worker.reasons import Meaning
from worker.report.content import ORDER, Event, Happening
from worker.report.drawing import SHAPES, WIDTH, Look, count_ticks, glyph, nice_ticks
from worker.report.figures import spread
from worker.report.pictures import Bar, Column, bars, columns, ladder
from worker.report.track import LEFT, OUTCOME_LOOKS, POSTS, READS, RIGHT, VERDICT_LOOKS, track

AXES = ("cancels", "hour")


def by_class(svg: str, tag: str, css: str) -> list[ET.Element]:
    return [found for found in ET.fromstring(svg).iter(tag) if css in (found.get("class") or "").split()]


def size(element: ET.Element, side: str) -> float:
    return float(element.get(side) or "nan")


def texts(svg: str) -> list[str]:
    return [found.text or "" for found in ET.fromstring(svg).iter("text")]


def test_bars_are_as_long_as_their_counts() -> None:
    drawn = bars("x", "t", [Bar("one", 10), Bar("two", 5), Bar("none", 0)], "cancel")
    assert [size(bar, "width") for bar in by_class(drawn, "rect", "bar")] == [WIDTH, WIDTH / 2]


def test_a_tiny_count_can_still_be_seen() -> None:
    drawn = bars("x", "t", [Bar("most", 10**9), Bar("one", 1)], "cancel")
    assert size(by_class(drawn, "rect", "bar")[1], "width") == 2


def test_each_bar_has_its_count_and_its_share() -> None:
    drawn = texts(bars("x", "t", [Bar("most", 1999), Bar("one", 1), Bar("none", 0)], "cancel"))
    assert drawn == ["most", "1,999 · > 99 %", "one", "1 · < 1 %", "none", "0 · 0 %"]


@pytest.mark.parametrize(
    "drawn",
    [
        bars("x", "Title", [Bar("a", 3)], "cancel"),
        columns("x", "Title", [Column("a", {"plain": 3})], AXES),
        ladder("x", "Title", {"stage": spread(milliseconds(3))}),
        track("x", a_timeline()),
    ],
    ids=["bars", "columns", "ladder", "track"],
)
def test_a_picture_can_be_read_aloud(drawn: str) -> None:
    root = ET.fromstring(drawn)
    title, told = root.find("title"), root.find("desc")
    assert title is not None
    assert told is not None
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", f"{title.get('id')} {told.get('id')}")
    assert title.text
    assert told.text


@pytest.mark.parametrize(
    "drawn",
    [bars("x", "t", [], "cancel"), columns("x", "t", [], AXES), ladder("x", "t", {"stage": spread([])})],
    ids=["bars", "columns", "ladder"],
)
def test_no_data_is_said(drawn: str) -> None:
    assert texts(drawn) == ["nothing in this period"]


def test_the_parts_of_a_column_stand_on_each_other() -> None:
    drawn = columns("x", "t", [Column("now", {"canceled": 3, "filled": 1})], AXES)
    (lower,), (upper,) = by_class(drawn, "rect", "canceled"), by_class(drawn, "rect", "filled")
    assert size(lower, "height") == pytest.approx(3 * size(upper, "height"), abs=0.2)
    assert size(upper, "y") + size(upper, "height") == pytest.approx(size(lower, "y"), abs=0.2)


def test_columns_share_one_scale_that_begins_at_zero() -> None:
    drawn = columns("x", "t", [Column("a", {"plain": 40}), Column("b", {"plain": 10})], AXES)
    tall, low = by_class(drawn, "rect", "plain")
    assert size(tall, "height") == pytest.approx(4 * size(low, "height"), abs=0.3)
    assert texts(drawn)[:5] == ["0", "10", "20", "30", "40"]


def test_many_columns_keep_inside_and_only_some_are_labelled() -> None:
    drawn = columns("x", "t", [Column(f"label {i}", {"plain": i + 1}) for i in range(72)], AXES)
    assert len(by_class(drawn, "rect", "plain")) == 72
    assert all(size(bar, "x") + size(bar, "width") <= WIDTH for bar in by_class(drawn, "rect", "plain"))
    assert len([text for text in texts(drawn) if text.startswith("label")]) <= 6


def test_a_histogram_has_a_bar_for_each_bin_to_the_scale_of_its_row() -> None:
    drawn = ladder("x", "t", {"stage": spread(milliseconds(2, 2, 2, 2, 200))})
    many, few = by_class(drawn, "rect", "plain")
    assert size(many, "height") == 4 * size(few, "height")
    assert size(few, "x") > size(many, "x")


def test_the_axis_of_time_is_logarithmic_and_labelled() -> None:
    drawn = ladder("x", "t", {"fast": spread(milliseconds(1)), "slow": spread(milliseconds(99_999))})
    lines = [size(line, "x1") for line in by_class(drawn, "line", "grid")]
    steps = {round(right - left, 1) for left, right in itertools.pairwise(lines)}
    assert max(steps) - min(steps) <= 0.11
    assert [text for text in texts(drawn) if text.endswith((" s", " ms"))][:6] == [
        "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s",
    ]  # fmt: skip


def test_a_quantile_stands_where_its_span_is() -> None:
    drawn = ladder("x", "t", {"stage": spread(milliseconds(1, 10, 10, 10, 1000))})
    (median,) = by_class(drawn, "circle", "quantile")
    ten = by_class(drawn, "line", "grid")[1]
    assert size(median, "cx") == size(ten, "x1")


def test_one_span_and_a_stage_without_any_are_drawn() -> None:
    drawn = ladder("x", "t", {"once": spread(milliseconds(5)), "never": spread([])})
    assert "none measured" in texts(drawn)
    assert "p50 5.00 ms · p95 5.00 ms · n = 1" in texts(drawn)


@pytest.mark.parametrize(
    "span", [timedelta(days=-3), timedelta(), timedelta(microseconds=1), timedelta(days=400)]
)
def test_a_span_beyond_all_sense_keeps_inside(span: timedelta) -> None:
    root = ET.fromstring(ladder("x", "t", {"stage": spread([span, timedelta(milliseconds=3)])}))
    places = [float(found.get(name) or 0) for found in root.iter() for name in ("x", "x1", "x2", "cx")]
    assert 0 <= min(places) <= max(places) <= WIDTH


def test_a_story_is_drawn_to_scale() -> None:
    told = a_timeline(
        an_attempt(1, sent=500, took=250),
        a_look(seen=900),
        Event(kind=Happening.FINISHED, at=at(1000), said="canceled"),
    )
    drawn = track("x", told)
    (post,), (look,) = by_class(drawn, "circle", "v-accepted"), by_class(drawn, "circle", "read")
    (wire,), (end,) = by_class(drawn, "line", "wire"), by_class(drawn, "line", "end")
    whole = RIGHT - LEFT
    assert (size(post, "cx"), size(post, "cy")) == (LEFT + whole / 2, POSTS)
    assert (size(look, "cx"), size(look, "cy")) == (pytest.approx(LEFT + whole * 0.9, abs=0.05), READS)
    assert size(wire, "x2") == pytest.approx(LEFT + whole * 0.75, abs=0.05)
    assert size(end, "x1") == RIGHT


def test_an_attempt_without_an_answer_has_a_mark_of_its_own() -> None:
    drawn = track("x", a_timeline(an_attempt(1, sent=5, took=None, said=None)))
    assert len(by_class(drawn, "polygon", "v-none")) == 1
    assert by_class(drawn, "line", "wire") == []


def test_attempts_at_one_moment_do_not_write_over_each_other() -> None:
    told = a_timeline(*(an_attempt(i, sent=500 + i * 0.001) for i in range(1, 40)))
    assert [text for text in texts(track("x", told)) if text.isdigit()] == ["1"]


def test_what_another_clock_puts_before_the_enqueue_is_drawn_at_its_edge() -> None:
    drawn = track("x", a_timeline(an_attempt(1, sent=-50)))
    assert size(by_class(drawn, "circle", "v-accepted")[0], "cx") == LEFT


def test_what_a_person_finds_days_later_does_not_squeeze_the_story() -> None:
    found = Event(kind=Happening.FOUND, at=at(86_400_000), said="filled")
    without = a_timeline(an_attempt(1, sent=500), outcome="unresolved")
    (post,) = by_class(track("x", a_timeline(*without.events[1:], found)), "circle", "v-accepted")
    assert size(post, "cx") == LEFT + (RIGHT - LEFT) / 2


def test_an_open_story_ends_with_its_last_event() -> None:
    drawn = track("x", a_timeline(a_look(seen=100), outcome=None, finished_at=None))
    assert size(by_class(drawn, "circle", "read")[0], "cx") == RIGHT
    assert by_class(drawn, "line", "end") == []


def test_every_outcome_and_every_verdict_has_a_look_of_its_own() -> None:
    assert set(OUTCOME_LOOKS) == set(ORDER)
    assert set(VERDICT_LOOKS) == {*Meaning, None}
    for looks in (OUTCOME_LOOKS, VERDICT_LOOKS):
        assert len({look.shape for look in looks.values()}) == len(looks)
        assert {look.shape for look in looks.values()} <= set(SHAPES)


def test_every_shape_is_drawn_differently() -> None:
    assert len({glyph(Look("any", shape)).replace(" ring", "") + shape for shape in SHAPES}) == len(SHAPES)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_from_outside_stays_text(text: str) -> None:
    drawn = bars("x", text, [Bar(text, 1)], "cancel")
    tags = {element.tag for element in ET.fromstring(drawn).iter()}
    assert tags <= {"svg", "title", "desc", "text", "rect"}


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [(0, [0, 1]), (1, [0, 1]), (3, [0, 1, 2, 3]), (7, [0, 2, 4, 6, 8]), (400, [0, 100, 200, 300, 400])],
)
def test_counts_have_whole_ticks(largest: int, ticks: list[int]) -> None:
    assert count_ticks(largest) == ticks


@pytest.mark.parametrize("largest", [1e-6, 0.3, 1, 7, 99, 1e9])
def test_ticks_reach_over_the_largest(largest: float) -> None:
    ticks = nice_ticks(largest)
    assert ticks[0] == 0
    assert ticks[-1] >= largest * (1 - 1e-6)
    assert len(ticks) <= 7
