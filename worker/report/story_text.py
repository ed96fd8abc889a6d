"""The story for a person at 3 a.m.: the conclusion first, then one line an event."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from worker.report.conclusion import present_words
from worker.report.links import Linked, Links
from worker.report.story import Event
from worker.report.why import AccountTale, JobTale, Tale
from worker.report.wording import clock_time, offset_words

# Longer lines are cut; --json has them whole.
LONGEST_LINE = 600


def render_text(tale: Tale) -> str:
    """The whole story as lines that no terminal can be driven by."""
    return "".join(f"{harmless(line)}\n" for line in _lines(tale))


def harmless(text: str) -> str:
    """Control characters, escapes and line ends become visible; nothing is longer than a few lines."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )
    if len(shown) <= LONGEST_LINE:
        return shown
    return f"{shown[:LONGEST_LINE]}… (cut; --json has all {len(shown)} characters)"


def _lines(tale: Tale) -> Iterator[str]:
    if tale.is_live:
        yield "*** LIVE: real orders, real money ***"
    yield f"Order {tale.order_id}; times in {tale.zone}"
    for note in tale.notes:
        yield f"note: {note}"
    for account in tale.accounts:
        yield ""
        yield from _account(account, tale)


def _account(account: AccountTale, tale: Tale) -> Iterator[str]:
    count = len(account.jobs)
    yield f"Account {account.account}: {count} job{'' if count == 1 else 's'}"
    for job in account.jobs:
        yield ""
        yield from _job(job, tale)
    yield ""
    yield from _links(account.links, tale)


def _job(job: JobTale, tale: Tale) -> Iterator[str]:
    row = job.facts.job
    live = " LIVE" if job.is_live else ""
    yield f"  Job {row.job_id} at {row.environment or 'the configured exchange'}{live}"
    yield f"  = {job.conclusion}"
    for _, alike in groupby(job.events, key=lambda event: (event.kind, event.says)):
        same = list(alike)
        yield _event(same[0], job, tale)
        yield from _repeats(same, job, tale)
    if job.now is not None:
        yield f"    now: {present_words(job.now, tale.zone)}"


def _event(event: Event, job: JobTale, tale: Tale) -> str:
    offset = offset_words(event.at - job.facts.job.enqueued_at)
    return f"    {clock_time(event.at, tale.zone)} {offset:>12}  {event.says}"


def _repeats(same: Sequence[Event], job: JobTale, tale: Tale) -> Iterator[str]:
    """A confirmation may take thousands of reads that all say the same."""
    if len(same) == 2:
        yield _event(same[1], job, tale)
    elif len(same) > 2:
        last = same[-1]
        offset = offset_words(last.at - job.facts.job.enqueued_at)
        times = f"the same {len(same) - 1} times more up to here"
        yield f"    {clock_time(last.at, tale.zone)} {offset:>12}  {times}"


def _links(links: Links, tale: Tale) -> Iterator[str]:
    if links.as_of is None:
        yield "  Linked orders: not known, no read of this order is on record"
        return
    named = f"as this order named them on {clock_time(links.as_of, tale.zone)}"
    yield f"  Linked orders, {named}:{'' if links.orders else ' none'}"
    for linked in links.orders:
        yield f"    {linked.relation} {linked.order_id}: {_linked(linked)}"


def _linked(linked: Linked) -> str:
    if linked.is_open is None:
        return ", ".join(part for part in (linked.ord_status, linked.note) if part)
    return f"{linked.ord_status}, {'STILL OPEN' if linked.is_open else 'ended'}"
