"""Lives of cancels, as facts: what a worker would have written. Times are counted from NOON."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine

from worker.audit.carry import carry_all
from worker.audit.facts import (
    Fact,
    Seen,
    action_fact,
    finding_fact,
    job_fact,
    late_reply_fact,
    outcome_fact,
    read_fact,
    reply_fact,
    request_fact,
    stamp_fact,
    start_fact,
    verdict_fact,
)
from worker.audit.journal import Journal
from worker.audit.seals import add
from worker.audit.verify import verify
from worker.audit.writer import AuditWriter
from worker.job import Action, CancelRequest, Job, JobId, Joiner, OrderId, Outcome, Priority, Steering, Step
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.verdict import classify

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ENVIRONMENT = "http://127.0.0.1:8080/v1"
POLICY = "policy-1"


def at(milliseconds: float) -> datetime:
    return NOON + timedelta(milliseconds=milliseconds)


def a_job(name: str = "job-1", **request: object) -> Job:
    asked = CancelRequest(
        **{
            "account": "DEMO1",
            "order_id": OrderId(123),
            "request_id": f"request-of-{name}",
            "requested_by": "momentum",
            "cl_ord_id": "mine",
            "custom_tag50": "tag",
            "activation_time": at(0),
            "deadline": at(60_000),
            "priority": Priority.NORMAL,
            **request,
        }
    )
    return Job(id=JobId(name), request=asked, enqueued_at=at(0), step=Step.POST, attempts=0)


def a_joiner(name: str = "joiner-1", deadline: datetime | None = None) -> Joiner:
    return Joiner(
        request_id=name,
        requested_by="hedger",
        priority=Priority.URGENT,
        deadline=deadline,
        requested_at=at(1),
    )


def a_start(job: str = "job-1", attempt: int = 1, *, after: float = 2) -> Fact:
    return start_fact(
        job, attempt, worker="host/1", started_at=at(after), policy_version=POLICY, body='{"orderId":123}'
    )


def answered(
    body: bytes = b'{"commandId":9007199254740993}', *, sent: float = 4, took: float = 30.5
) -> Reply:
    return Answered(status=200, body=body, sent_at=at(sent), answered_at=at(sent + took))


def unanswered(sent: float | None = 4) -> Reply:
    return Unanswered(error="reset", sent_at=None if sent is None else at(sent), ended_at=at(50))


def not_sent() -> Reply:
    return NotSent(error="refused")


def a_reply(reply: Reply, job: str = "job-1", attempt: int = 1) -> list[Fact]:
    """The raw reply and what it was taken for."""
    return [
        reply_fact(job, attempt, reply, recorded_at=at(60)),
        verdict_fact(job, attempt, classify(reply), policy_version=POLICY, decided_at=at(61)),
    ]


def a_read(job: str = "job-1", kind: str = "order", **seen: Any) -> Fact:
    shown = {"found": True, "status": "Canceled", "body": "{}", **seen}
    return read_fact(job, kind, answered(b"{}", sent=66, took=4), Seen(**shown))


def an_outcome(job: str = "job-1", outcome: Outcome = Outcome.CANCELED, *, after: float = 100) -> Fact:
    return outcome_fact(
        job, outcome, evidence="order_read", detail="Canceled", filled_qty=2, finished_at=at(after)
    )


def a_whole_life(name: str = "job-1", **request: object) -> list[Fact]:
    """All that a plain cancel leaves."""
    return [
        job_fact(a_job(name, **request)),
        request_fact(name, a_joiner(f"joiner-of-{name}", at(90_000))),
        a_start(name),
        *a_reply(answered(), name),
        a_read(name),
        an_outcome(name),
    ]


def a_late_reply(job: str = "job-1", attempt: int = 1, *, command_id: int | None = 77) -> Fact:
    return late_reply_fact(job, attempt, answered(), command_id=command_id, recorded_at=at(9000))


def a_finding(job: str = "job-1", name: str = "finding-1", *, after: float = 200_000) -> Fact:
    return finding_fact(job, name, Outcome.FILLED, by="alice", because="seen in the platform", at=at(after))


def an_action(name: str = "action-1", kind: Steering = Steering.PAUSE, *, after: float = 0) -> Fact:
    return action_fact(Action(id=name, kind=kind, by="bob", because=None, at=at(after)), ledger="cancelq")


def a_row_everywhere(name: str = "job-1") -> list[Fact]:
    """One row in every table of facts."""
    return [
        *a_whole_life(name),
        a_late_reply(name),
        a_finding(name),
        an_action(),
        stamp_fact("exchange", ENVIRONMENT, at=at(0)),
    ]


@contextmanager
def writing(
    engine: Engine, writer: str = "writer-1", *, journal: Journal | None = None
) -> Iterator[AuditWriter]:
    audit = AuditWriter(engine, writer=writer, environment=ENVIRONMENT, journal=journal)
    audit.start()
    yield audit
    audit.stop(timedelta(seconds=5))


def record(engine: Engine, *facts: Fact, writer: str = "writer-1") -> None:
    with writing(engine, writer) as audit:
        audit.commit(facts)


def displace(engine: Engine, fact: Fact, writer: str = "writer-9") -> None:
    """A row from a host's journal that finds its place taken."""
    with TemporaryDirectory() as home:
        journal = Journal(Path(home), "ledger", ENVIRONMENT, lambda *_told: None)
        audit = AuditWriter(engine, writer=writer, environment=ENVIRONMENT, journal=journal)
        audit.start(journaling=True)
        audit.commit([fact])
        audit.stop()
        carry_all(journal, engine, ending=lambda: False)
        journal.engine.dispose()


def at_once(work: Callable[[int], None], threads: int) -> None:
    """Run `work(0)` … `work(threads - 1)` side by side; an error of any of them is raised here."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


def seal(engine: Engine) -> str:
    """Seal all that is there; the digest that an auditor would write down."""
    found = verify(engine)
    assert found.ok
    made = add(engine, found.seals.newest, found.unsealed, ENVIRONMENT)
    assert made is not None
    return made.digest
