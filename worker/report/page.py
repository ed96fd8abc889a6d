"""The report as one page for people: HTML with its pictures inside. Nothing is fetched, nothing runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache, partial
from heapq import nsmallest
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from worker.job import Outcome
from worker.report.content import OPEN, ORDER, Event, Happening, Line, Report, Timeline, Total
from worker.report.drawing import Look, glyph
from worker.report.periods import columns_of_time
from worker.report.pictures import QUANTILE_LOOKS, Bar, Column, bars, columns, ladder
from worker.report.shown import (
    brief,
    hour_words,
    many,
    moment_words,
    printable,
    share_words,
    short_span,
)
from worker.report.track import OUTCOME_LOOKS, READ_LOOK, VERDICT_LOOKS, track

# What a page holds and a person reads; csv and json have every job.
LISTED = 2000
GROUPS = 50
HOURS = 100
EVENTS = 30
# More attempts than this share one column.
MOST_ATTEMPTS = 12

STAGES = {
    "enqueue → wire": "enqueue_to_wire",
    "wire → answer": "wire_to_answer",
    "answer → proof": "answer_to_end",
    "enqueue → proof": "enqueue_to_end",
}
MEANINGS = {
    Outcome.UNRESOLVED: "deadline or budget spent without proof: a person must look at the order",
    Outcome.REFUSED: "the exchange will not cancel it: a person is needed",
    OPEN: "not ended when this report was made",
    Outcome.ACCEPTED: "the command was taken and nothing was read after it (confirmation is off)",
    Outcome.FILLED: "seen filled: the cancel lost the race",
    Outcome.GONE: "seen expired, rejected or otherwise ended",
    Outcome.CANCELED: "seen canceled",
}


def render_html(report: Report) -> str:
    """The whole page, well-formed as XML too; what came from outside is text, never markup."""
    listed = foremost(report.lines, LISTED)
    template = page_environment(report.scope.zone).get_template("page.html")
    page = template.render(
        report=report,
        pictures=_pictures(report),
        urgent=[(end, [line for line in listed if line.end == end]) for end in ORDER[:3]],
        found=sum(line.resolved_as is not None for line in report.unresolved),
        others=[line for line in listed if line.end not in ORDER[:3]],
        listed=len(listed),
        most_filled=nsmallest(GROUPS, report.filled, key=lambda line: -(line.filled_qty or 0)),
        stories=[(_drawn(f"story-{i}", told), told, story(told)) for i, told in enumerate(report.timelines)],
        totals=_totals(report),
        stages={label: getattr(report.latency, stage) for label, stage in STAGES.items()},
        meanings=MEANINGS,
        verdicts=VERDICT_LOOKS,
        read=READ_LOOK,
    )
    return page + "\n"


@lru_cache(maxsize=2)
def page_environment(zone: tzinfo = UTC) -> Environment:
    """Every value is escaped, and cleaned before that; a name that the template misspells is an error."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"time": partial(moment_words, zone=zone), "hour": partial(hour_words, zone=zone)}
    found.filters |= {"brief": brief, "span": short_span, "share": share_words}
    found.globals |= {"many": many, "sign": _sign, "look": _outcome_sign, "quantiles": QUANTILE_LOOKS}
    return found


def foremost(lines: Sequence[Line], limit: int) -> list[Line]:
    """What a person should see first: by outcome, those without a finding first, then by time."""
    rank = {end: place for place, end in enumerate(ORDER)}
    return nsmallest(
        limit,
        lines,
        key=lambda line: (rank[line.end], line.resolved_as is not None, line.enqueued_at, line.job_id),
    )


def _sign(look: Look) -> Markup:
    return Markup(glyph(look))  # noqa: S704  # made by the XML writer from our own constants


def _outcome_sign(end: str) -> Markup:
    return _sign(OUTCOME_LOOKS[end])


def _drawn(name: str, timeline: Timeline) -> Markup:
    return Markup(track(name, timeline))  # noqa: S704  # the XML writer has escaped every text


# ---------------------------------------------------------------------------------------------- pictures


def _pictures(report: Report) -> dict[str, Markup]:
    period, times = columns_of_time(report.by_hour, report.scope.zone)
    ends = [Bar(end, count, OUTCOME_LOOKS[end]) for end, count in report.outcomes.items()]
    reasons = [Bar(reason, count) for reason, count in islice(report.reasons.items(), GROUPS)]
    stages = {label: getattr(report.latency, stage) for label, stage in STAGES.items()}
    by_time = columns("hours", f"Cancels by {period}", times, ("cancels", f"{period} of their enqueue"))
    tries = columns(
        "attempts", "Attempts a cancel took", _attempts(report.attempts), ("cancels", "attempts (POSTs)")
    )
    drawn = {
        "outcomes": bars("outcomes", "Outcomes", ends, "cancel"),
        "reasons": bars("reasons", "Answers that were no acceptance", reasons, "attempt"),
        "latency": ladder("latency", "How long each stage took", stages),
        "attempts": tries,
        "hours": by_time,
    }
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704  # the XML writer has escaped them


def _attempts(counts: Mapping[int, int]) -> list[Column]:
    """One column for each number of attempts, without a gap; the last gathers what lies beyond."""
    if not counts:
        return []
    last = min(max(counts), MOST_ATTEMPTS)
    beyond = sum(jobs for attempts, jobs in counts.items() if attempts >= last)
    shown = [
        Column(str(attempts), {"plain": counts.get(attempts, 0)}) for attempts in range(min(counts), last)
    ]
    return [*shown, Column(f"{last}+" if max(counts) > last else str(last), {"plain": beyond})]


# ------------------------------------------------------------------------------------------------ tables


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a story as it is read: equal reads in a row are one."""

    event: Event
    times: int = 1
    skipped: int = 0  # entries left out before this one


def story(timeline: Timeline) -> list[Entry]:
    """At most EVENTS entries: how it began and how it ended."""
    entries = list(_gathered(timeline.events))
    if len(entries) <= EVENTS:
        return entries
    half = EVENTS // 2
    turn = entries[-half]
    gap = Entry(turn.event, turn.times, skipped=len(entries) - 2 * half)
    return [*entries[:half], gap, *entries[-half + 1 :]]


def _gathered(events: Sequence[Event]) -> Iterator[Entry]:
    def sort_of(event: Event) -> object:
        alike = event.kind is Happening.READ
        return (event.said, event.detail) if alike else id(event)

    for _, alike in groupby(events, key=sort_of):
        first, *more = alike
        yield Entry(first, times=1 + len(more))


def _totals(report: Report) -> list[dict[str, Any]]:
    """The groups with most cancels; of the hours the latest."""
    hours = dict(list(report.by_hour.items())[-HOURS:])
    groups: list[tuple[str, Mapping[Any, Total], Mapping[Any, Total]]] = [
        ("account", report.by_account, dict(islice(report.by_account.items(), GROUPS))),
        ("strategy", report.by_strategy, dict(islice(report.by_strategy.items(), GROUPS))),
        ("hour", report.by_hour, hours),
    ]
    return [{"by": by, "rows": shown, "more": len(found) - len(shown)} for by, found, shown in groups]
