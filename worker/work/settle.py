"""Brings decisions to rest, many at a time: verdict rows, then the ledger, then outcomes. One thread."""

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from worker.audit.facts import Fact, job_fact, outcome_fact, request_fact
from worker.audit.writer import AuditWriter, Stored
from worker.clock import EPOCH, to_micros, utc_now
from worker.errors import CancelqError, FactRejected, LedgerUnavailable
from worker.gaps import Gap, reached
from worker.job import ClaimId, Job, JobId, Joiner, Outcome, Step
from worker.ledger.words import Closing, Settlement
from worker.policy import Again, Decision, End
from worker.reasons import Meaning
from worker.verdict import Verdict
from worker.work.attempt import COMMIT_BOUND
from worker.work.crew import Crew
from worker.work.happening import Replied, Settled, followed, named
from worker.work.recover import ended, on_record, unclosed

log = structlog.get_logger()
T = TypeVar("T")
# Decisions brought to rest in one round.
ROUND = 256
READ_BEAT = timedelta(milliseconds=50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """One job's decision, with the rows that must be on disk before the ledger hears of it."""

    job: Job
    claim: ClaimId
    decision: Decision
    facts: Sequence[Fact] = ()
    verdict: Verdict | None = None
    replied: Sequence[Replied] = ()  # the attempts that led here
    posts: int = 0  # made under this claim

    def fields(self) -> dict[str, str | None]:
        """What the ledger's job remembers and a status answer shows."""
        memory = self.decision.memory
        return {
            "attempts": str(self.job.attempts),
            "memory": memory.to_json(),
            "first_sent_at": _text(memory.first_sent_at),
            "command_id": _text(memory.command_id),
            "unknown_since": _text(memory.unknown_since),
            **({"reason": _reason(self.verdict)} if self.verdict else {}),
        }


class Settler:
    """One thread that settles what the others decided; what it cannot settle lapses and is done again."""

    def __init__(self, crew: Crew, wake_at: Callable[[timedelta], None]) -> None:
        self._crew = crew
        self._wake_at = wake_at
        self._waiting: queue.SimpleQueue[Decided | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="settler", daemon=True)
        self._ledger_calls = Retrying(
            retry=retry_if_exception_type(LedgerUnavailable),
            stop=stop_after_delay(crew.lease.total_seconds()),
            wait=wait_fixed(0.1),
            reraise=True,
        )

    def start(self) -> None:
        self._thread.start()

    def put(self, decided: Decided) -> None:
        self._waiting.put(decided)

    def stop(self, bound: timedelta) -> None:
        """Settle all that is waiting, then end; what is not settled within `bound` lapses."""
        self._waiting.put(None)
        self._thread.join(bound.total_seconds())

    def _run(self) -> None:
        while True:
            batch, last = self._next_round()
            if batch:
                self._settle_safely(batch)
            if last:
                return

    def _next_round(self) -> tuple[list[Decided], bool]:
        batch: list[Decided] = []
        item = self._waiting.get()
        while item is not None:
            batch.append(item)
            if len(batch) == ROUND or self._waiting.empty():
                return batch, False
            item = self._waiting.get()
        return batch, True

    def _settle_safely(self, batch: list[Decided]) -> None:
        try:
            self._settle(batch)
        except CancelqError as error:
            log.warning("settle.failed", jobs=len(batch), error=str(error))
        except Exception:
            log.exception("settle.broke", jobs=[d.job.id for d in batch])
        finally:
            self._let_go(batch)

    def _let_go(self, batch: Iterable[Decided]) -> None:
        self._crew.hand.drop((d.job.id, d.claim) for d in batch)

    def _settle(self, batch: list[Decided]) -> None:
        reached(Gap.DECIDED)
        batch = committed(self._crew.audit, [(d, d.facts) for d in batch])
        reached(Gap.VERDICT_ON_DISK)
        self._tell_attempts(replied for d in batch for replied in d.replied)
        self._come_back([d for d in batch if isinstance(d.decision, Again)])
        self._end([(d, d.decision) for d in batch if isinstance(d.decision, End)])

    def _tell_attempts(self, attempts: Iterable[Replied]) -> None:
        """Here and not by the senders: sixty-four threads would contend for a line each."""
        for replied in attempts:
            self._crew.tell(replied)
            log.info(
                "attempt.finished",
                **named(replied.job),
                attempt=replied.job.attempts,
                verdict=str(replied.verdict.meaning),
                rule=str(replied.verdict.rule),
                command=replied.verdict.command_id,
                **followed(replied.decision),
            )

    def _come_back(self, batch: list[Decided]) -> None:
        now = self._crew.clock.now()
        settlements = [_settlement(d, d.decision, now) for d in batch if isinstance(d.decision, Again)]
        if not settlements:
            return
        done = self._ledger_calls(self._crew.ledger.settle, settlements)
        reached(Gap.SETTLED)
        self._let_go(batch)  # at once: a renewal of what is settled would look for it as lost
        for decided, settlement, held in zip(batch, settlements, done, strict=True):
            if held:
                self._wake_at(settlement.delay)
                self._crew.tell(_settled(decided, utc_now()))
            else:
                self._crew.astray.note([decided.job.id])
                log.warning("settle.stale", **named(decided.job), claim=settlement.claim)

    def _end(self, batch: list[tuple[Decided, End]]) -> None:
        """Close (freezes the joiners) → outcome rows with all joiners → finish."""
        if not batch:
            return
        joiners = self._ledger_calls(self._crew.ledger.close, [_closing(d, end) for d, end in batch])
        reached(Gap.CLOSED)
        self._crew.astray.note(d.job.id for (d, _), who in zip(batch, joiners, strict=True) if who is None)
        finished_at = utc_now()
        work = [
            ((d, end), _outcome_facts(d, end, who, finished_at))
            for (d, end), who in zip(batch, joiners, strict=True)
            if who is not None
        ]
        on_disk = [
            (d, end if fates[-1] is Stored.NEW else self._on_record(d, end))
            for (d, end), fates in stored(self._crew.audit, work)
        ]
        reached(Gap.OUTCOME_ON_DISK)
        finishing = [_finishing(d, end, finished_at) for d, end in on_disk]
        if open_rows := unclosed(self._crew, [d.job for d, _ in on_disk]):
            self._crew.audit.commit(open_rows, timeout=COMMIT_BOUND)
        if finishing:
            self._ledger_calls(self._crew.ledger.finish, finishing)
            reached(Gap.FINISHED)
            self._let_go(d for d, _ in on_disk)
        for d, end in on_disk:
            self._crew.tell(_settled(replace(d, decision=end), finished_at))
            log.info(
                "job.finished",
                **named(d.job),
                attempts=d.job.attempts,
                outcome=str(end.outcome),
                evidence=end.evidence_text,
            )

    def _on_record(self, decided: Decided, end: End) -> End:
        """The audit has an outcome already: by a holder that died, or from before the ledger went back in time."""
        known = on_record(self._crew, [decided.job.id])[0][decided.job.id].outcome
        return end if known is None else ended(known.outcome, known.evidence, decided.job)


def committed(audit: AuditWriter, work: Sequence[tuple[T, Sequence[Fact]]]) -> list[T]:
    """The items whose facts are on disk."""
    return [item for item, _ in stored(audit, work)]


def stored(audit: AuditWriter, work: Sequence[tuple[T, Sequence[Fact]]]) -> list[tuple[T, Sequence[Stored]]]:
    """One transaction for all; where one item's facts are refused, each stands alone. What became of each fact."""
    try:
        fates = iter(audit.commit([fact for _, facts in work for fact in facts], timeout=COMMIT_BOUND))
    except FactRejected:
        return [(item, found) for item, facts in work if (found := _stored_alone(audit, facts)) is not None]
    except CancelqError as error:
        log.warning("settle.not_committed", items=len(work), error=str(error))
        return []
    return [(item, [next(fates) for _ in facts]) for item, facts in work]


def _stored_alone(audit: AuditWriter, facts: Sequence[Fact]) -> Sequence[Stored] | None:
    try:
        return audit.commit(facts, timeout=COMMIT_BOUND)
    except CancelqError as error:
        log.warning("settle.not_committed", error=str(error))
        return None


def _settled(decided: Decided, at: datetime) -> Settled:
    return Settled(
        job=decided.job,
        decision=decided.decision,
        verdict=decided.verdict,
        learned=bool(decided.facts) or decided.verdict is not None,
        at=at,
    )


def _settlement(decided: Decided, again: Again, now: datetime) -> Settlement:
    return Settlement(
        job=decided.job.id,
        claim=decided.claim,
        step=again.step,
        state=again.state,
        delay=again.delay if again.step is Step.POST else on_the_beat(again.delay, now),
        fields=decided.fields() | ({"recorded": "1"} if decided.job.recorded else {}),
        posts=decided.posts,
        activation=_wanted(decided.job) if again.memory.armed_for is not None else None,
    )


def _wanted(job: Job) -> str:
    at = job.request.activation_time
    return str(to_micros(at)) if at is not None else ""


def on_the_beat(delay: timedelta, now: datetime) -> timedelta:
    """Reads that wait fall due together: one claim, one call and one commit serve all orders of a beat."""
    return delay + (EPOCH - now - delay) % READ_BEAT if delay else delay


def _closing(decided: Decided, end: End) -> Closing:
    return Closing(
        job=decided.job.id,
        claim=decided.claim,
        outcome=end.outcome,
        evidence=end.evidence_text,
        deadline=decided.job.request.deadline,
        fields=decided.fields(),
        posts=decided.posts,
    )


def _finishing(decided: Decided, end: End, at: datetime) -> tuple[JobId, ClaimId, Outcome, str, datetime]:
    return (decided.job.id, decided.claim, end.outcome, end.evidence_text, at)


def _outcome_facts(decided: Decided, end: End, joiners: Sequence[Joiner], at: datetime) -> list[Fact]:
    job = decided.job
    outcome = outcome_fact(
        job.id, end.outcome, evidence=end.evidence_text, filled_qty=end.memory.filled_qty, finished_at=at
    )
    # Its row may be in the journal of a host that is gone, whatever attempts there were.
    unwritten = [] if job.recorded else [job_fact(job)]
    return [*unwritten, *(request_fact(job.id, joiner) for joiner in joiners), outcome]


def _reason(verdict: Verdict) -> str | None:
    """The exchange's word, or the rule that spoke in its place; none for what was accepted."""
    accepted = verdict.meaning is Meaning.ACCEPTED
    return None if accepted else verdict.reason or str(verdict.rule)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
