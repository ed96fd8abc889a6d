"""Celery's task events, one story per cancel, made from what happens. Bounded: the oldest news are dropped, and counted."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.clock import utc_now
from worker.job import Job, JobId, Outcome, Step
from worker.ledger.encoding import storable
from worker.ledger.words import Claimed
from worker.policy import Again, End
from worker.reasons import Meaning
from worker.verdict import Verdict
from worker.work.happening import Happening, Settled

TASK = "cancelq.cancel"
# Some seconds at full speed; what Flower was not told by then it will never miss.
MOST = 5000
MOST_EVIDENCE = 200
FAILED = {Outcome.REFUSED, Outcome.UNRESOLVED}
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Began:
    """A POST is about to leave."""

    job: Job
    at: datetime


class News:
    """What Flower has not been told yet. Any thread adds in constant time; one takes."""

    def __init__(self) -> None:
        self._waiting: deque[Began | Settled] = deque(maxlen=MOST)
        self._held: dict[JobId, Began | Settled] = {}
        self._unsent: deque[Event] = deque(maxlen=MOST)
        self.dropped = 0  # at least: threads that drop at the same moment may count as one

    def __call__(self, happening: Happening) -> None:
        match happening:
            case Claimed(jobs=jobs) if jobs:
                now = utc_now()
                for job in jobs:
                    if job.step is Step.POST:
                        self._add(Began(job, now))
            case Settled():
                self._add(happening)
            case _:
                pass

    def _add(self, news: Began | Settled) -> None:
        if len(self._waiting) == MOST:
            self.dropped += 1
        self._waiting.append(news)

    def pending(self, clock: Callable[[], int], *, last: bool = False) -> list[Event]:
        """Events that were not `sent` yet, at most one for each job and turn; the last time all of them.

        A retry is told at once, all else waits for a turn, and what is overtaken in it is not told: a cancel that
        ends within a turn costs one event. And another worker's word about an earlier attempt is out before the end:
        Flower lets the last word about a retry win, and would show an ended cancel as waiting for ever.
        """
        newest = {news.job.id: news for news in self._drained()}
        due = [news for job, news in self._held.items() if job not in newest or _is_end(news)]
        due += [news for news in newest.values() if last or _is_retry(news)]
        self._held = {} if last else {job: news for job, news in newest.items() if not _is_retry(news)}
        self.dropped += max(0, len(self._unsent) + len(due) - MOST)
        self._unsent.extend(event(news, clock()) for news in due)
        return list(self._unsent)

    def sent(self) -> None:
        """All that was pending has been published."""
        self._unsent.clear()

    def _drained(self) -> Iterator[Began | Settled]:
        while self._waiting:
            yield self._waiting.popleft()


def _is_end(news: Began | Settled) -> bool:
    return isinstance(news, Settled) and isinstance(news.decision, End)


def _is_retry(news: Began | Settled) -> bool:
    verdict = news.verdict if isinstance(news, Settled) and not _is_end(news) else None
    return verdict is not None and verdict.meaning is Meaning.TRANSIENT


# ----------------------------------------------------------------------------------------- as Flower reads it


def event(news: Began | Settled, clock: int) -> Event:
    """One Celery task event with all that is known: whatever came before it may have been dropped.

    Without `utcoffset`, by which a Flower in another time zone would move a time that has no zone.
    """
    match news:
        case Began(job=job, at=at):
            told: Event = {"type": "task-started", "result": None, "exception": None}
            attempts, first_sent = job.attempts + 1, job.memory.first_sent_at
        case Settled(job=job, decision=decision, at=at):
            attempts, first_sent = job.attempts, decision.memory.first_sent_at
            told = _end(news, decision) if isinstance(decision, End) else _progress(news.verdict, decision)
    request = job.request
    told.update(
        uuid=job.id,
        name=TASK,
        kwargs=f"{{'order': {request.order_id}, 'account': {request.account!r}, 'attempt': {attempts}}}",
        retries=max(0, attempts - 1),
        received=job.enqueued_at.timestamp(),
        started=at.timestamp() if first_sent is None else first_sent / 1e6,
        timestamp=at.timestamp(),
        clock=clock,
    )
    return told


def _end(settled: Settled, end: End) -> Event:
    evidence = storable(end.evidence_text[:MOST_EVIDENCE])
    told = f"{end.outcome} {_command(end.memory.command_id)}({evidence})"
    since = end.memory.first_sent_at
    began = settled.job.enqueued_at.timestamp() if since is None else since / 1e6
    facts: Event = {"result": told, "runtime": max(0.0, settled.at.timestamp() - began)}
    if end.outcome in FAILED:
        return facts | {"type": "task-failed", "exception": told}
    return facts | {"type": "task-succeeded", "exception": None}


def _progress(verdict: Verdict | None, again: Again) -> Event:
    """A transient answer is Celery's retry; whatever else comes back is still being worked on."""
    if verdict is not None and verdict.meaning is Meaning.TRANSIENT:
        reason = storable(verdict.reason or verdict.rule)
        return {"type": "task-retried", "result": reason, "exception": reason}
    told = f"{again.state} {_command(again.memory.command_id)}".rstrip()
    return {"type": "task-started", "result": told, "exception": None}


def _command(command_id: int | None) -> str:
    return "" if command_id is None else f"commandId={command_id} "
