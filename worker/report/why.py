"""The story of one order's cancels as values: what is on record, what the ledger says now, and what both come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from worker.audit.order_story import MOST_JOBS, JobFacts, JobRow, OrderFacts
from worker.report.conclusion import conclusion
from worker.report.links import Links
from worker.report.story import Event, Surroundings, events
from worker.settings import names_live


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTale:
    """One job: its rows, its timeline, and one sentence."""

    facts: JobFacts
    now: Mapping[str, Any] | None  # the ledger's status answer, of a job without an outcome on record
    redriven_as: tuple[str, ...]
    events: tuple[Event, ...]
    conclusion: str

    @property
    def is_live(self) -> bool:
        environment = self.facts.job.environment
        return environment is not None and names_live(environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountTale:
    account: str
    jobs: tuple[JobTale, ...]  # oldest first
    links: Links


@dataclass(frozen=True, slots=True, kw_only=True)
class Tale:
    """All that is known of an order; `notes` say what could not be asked, and why."""

    order_id: int
    zone: tzinfo
    accounts: tuple[AccountTale, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        return any(job.is_live for account in self.accounts for job in account.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was learned, before anybody made sense of it."""

    recorded: OrderFacts
    present: Mapping[str, Mapping[str, Any]]  # job id → the ledger's status answer
    links: Mapping[str, Links]  # by account
    notes: Sequence[str] = ()


def tell(order_id: int, sources: Sources, zone: tzinfo) -> Tale:
    """One section an account, in the order of the names."""
    known = [*sources.recorded.jobs, *_unrecorded(sources)]
    accounts = [
        AccountTale(
            account=account,
            jobs=tuple(_job_tale(facts, known, sources, zone) for facts in _of_account(known, account)),
            links=sources.links.get(account, Links()),
        )
        for account in sorted({facts.job.account for facts in known})
    ]
    cut = [f"only the newest {MOST_JOBS} jobs are told"] if len(sources.recorded.jobs) >= MOST_JOBS else []
    return Tale(order_id=order_id, zone=zone, accounts=tuple(accounts), notes=(*sources.notes, *cut))


def _of_account(known: Iterable[JobFacts], account: str) -> list[JobFacts]:
    return [facts for facts in known if facts.job.account == account]


def _job_tale(facts: JobFacts, known: Sequence[JobFacts], sources: Sources, zone: tzinfo) -> JobTale:
    now = sources.present.get(facts.job.job_id) if facts.outcome is None else None
    redrives = tuple(other for other in known if other.job.redrive_of == facts.job.job_id)
    around = Surroundings(redrives=redrives, actions=sources.recorded.actions)
    return JobTale(
        facts=facts,
        now=now,
        redriven_as=tuple(other.job.job_id for other in redrives),
        events=events(facts, around, zone),
        conclusion=conclusion(facts, now, redrives, zone),
    )


def _unrecorded(sources: Sources) -> list[JobFacts]:
    """Jobs so young that the audit has not heard of them."""
    recorded = {facts.job.job_id for facts in sources.recorded.jobs}
    return [
        JobFacts(job=_row(answer), recorded=False)
        for job_id, answer in sources.present.items()
        if job_id not in recorded
    ]


def _row(answer: Mapping[str, Any]) -> JobRow:
    return JobRow(
        job_id=answer["jobId"],
        account=answer["account"],
        order_id=answer["orderId"],
        deadline=_time(answer["deadline"]),
        enqueued_at=datetime.fromisoformat(answer["enqueuedAt"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
