"""`cancelq redrive` and `resolve`: what a person sets right afterwards. The old outcome always stays."""

import json
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from worker.cli.moments import Moment
from worker.cli.reach import by_option, named, reached_audit, reached_ledger, show_live
from worker.errors import ConfigError, Refused
from worker.gaps import Gap, reached
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.audit.amend import EndedJob
    from worker.audit.facts import Fact
    from worker.ledger.client import Ledger

COMMIT_BOUND = timedelta(seconds=10)
LONGEST_REASON = 4096


def _told(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    if not text.strip() or len(text.encode(errors="replace")) > LONGEST_REASON:
        raise click.BadParameter(f"must say something, in at most {LONGEST_REASON} bytes")
    return text


@click.command()
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--since", type=Moment(), help="jobs that ended at this time or later; with --reason")
@click.option("--reason", help="a failureReason, a rule, or the evidence's first word; with --since")
@click.option("--account", help="of this account only; with --since")
@click.option(
    "--deadline", type=click.FloatRange(min=0), metavar="SECONDS", help="no POST after so many seconds"
)
@by_option
def redrive(job_ids: tuple[str, ...], **options: Any) -> None:
    """Ask again for cancels that ended refused or unresolved: a new job each, which reads the order first.

    One JSON object per job to stdout; exit 1 if one of them could not be redriven.
    """
    from worker.audit.stamp import require_owner

    since, reason, account = options["since"], options["reason"], options["account"]
    scoped = since is not None and reason is not None
    if bool(job_ids) == scoped or (job_ids and (since or reason or account)) or (bool(since) != bool(reason)):
        raise click.UsageError("which jobs? give JOB_ID…, or --since TIME with --reason REASON")
    settings = load_settings()
    show_live(settings)
    with reached_audit(settings) as engine:
        require_owner(engine, settings.exchange_url)
        jobs = _named_jobs(engine, job_ids) if job_ids else _matching_jobs(engine, since, reason, account)
    with reached_ledger(settings) as ledger:
        ledger.require_owner(settings.exchange_url)
        redriven = [
            _redriven(ledger, job_id, job, options["by"], options["deadline"]) for job_id, job in jobs
        ]
    for answer in redriven:
        click.echo(json.dumps(answer))
    sys.exit(0 if all("jobId" in answer for answer in redriven) else 1)


@click.command()
@click.argument("job_id")
@click.option(
    "--as",
    "finding",
    required=True,
    type=click.Choice(["canceled", "filled", "gone"]),
    help="what became of it",
)
@click.option("--by", required=True, metavar="NAME", callback=named, help="who found out")
@click.option("--because", required=True, metavar="TEXT", callback=_told, help="how it is known")
def resolve(job_id: str, finding: str, by: str, because: str) -> None:
    """Add a person's finding to an unresolved job: a new row beside its outcome, never an edit."""
    from worker.audit.facts import finding_fact
    from worker.clock import utc_now
    from worker.job import Outcome

    settings = load_settings()
    show_live(settings)
    with reached_audit(settings) as engine:
        _require_unresolved(engine, job_id)
        fact = finding_fact(job_id, str(uuid4()), Outcome(finding), by=by, because=because, at=utc_now())
        _record(settings, engine, fact)
    click.echo(json.dumps({"jobId": job_id, "outcome": "unresolved", "resolvedAs": finding, "by": by}))


# --- redrive


def _named_jobs(engine: "Engine", job_ids: tuple[str, ...]) -> "list[tuple[str, EndedJob | None]]":
    from worker.audit.amend import jobs_by_id

    wanted = list(dict.fromkeys(job_ids))
    known = jobs_by_id(engine, wanted)
    return [(job_id, known.get(job_id)) for job_id in wanted]


def _matching_jobs(
    engine: "Engine", since: datetime, reason: str, account: str | None
) -> "list[tuple[str, EndedJob | None]]":
    from worker.audit.amend import MOST, badly_ended_since

    found = badly_ended_since(engine, since, reason, account=account)
    if len(found) > MOST:
        raise Refused(f"more than {MOST} jobs match; nothing was done. Narrow it, or give --account")
    if not found:
        click.echo(
            "cancelq: no job that ended badly since then has this reason and was not redriven yet", err=True
        )
    return [(job.job_id, job) for job in found]


def _redriven(
    ledger: "Ledger", job_id: str, job: "EndedJob | None", by: str, deadline: float | None
) -> dict[str, Any]:
    from worker.job import JobId
    from worker.ledger.receipt import write_letter

    error = _why_not(job)
    if job is None or error is not None:
        click.echo(f"cancelq: {job_id}: {error}", err=True)
        return {"redriveOf": job_id, "status": "refused", "error": error}
    wish: dict[str, object] = {
        "order_id": job.order_id,
        "account": job.account,
        "cl_ord_id": job.cl_ord_id,
        "custom_tag50": job.custom_tag50,
        "is_automated": job.is_automated,
        "priority": job.priority,
        "requested_by": by,
        "deadline": deadline,
    }
    letter = write_letter(wish)
    if letter.fault is not None:
        raise ConfigError(letter.fault)
    receipt = ledger.redrive(letter, JobId(job_id))
    reached(Gap.REDRIVEN)
    return {"redriveOf": job_id} | receipt.to_dict()


def _why_not(job: "EndedJob | None") -> str | None:
    if job is None:
        return "the audit knows no such job"
    if job.outcome is None:
        return "it is still open"
    if not job.ended_badly:
        return f"it ended as {job.outcome}; only refused and unresolved jobs are redriven"
    if job.redriven_by is not None:
        return f"it was redriven already, as {job.redriven_by}; redrive that one if it ended badly too"
    return None


# --- resolve


def _require_unresolved(engine: "Engine", job_id: str) -> None:
    from worker.audit.amend import jobs_by_id
    from worker.job import Outcome

    job = jobs_by_id(engine, [job_id]).get(job_id)
    if job is None:
        raise Refused(f"the audit knows no job {job_id}")
    if job.resolved_as is not None:
        click.echo(
            f"cancelq: it was resolved as {job.resolved_as} before; the newest finding is shown", err=True
        )
    if job.outcome is not Outcome.UNRESOLVED:
        state = f"ended as {job.outcome}" if job.outcome else "is still open"
        raise Refused(f"the job {job_id} {state}; only an unresolved one can be resolved")


def _record(settings: Settings, engine: "Engine", fact: "Fact") -> None:
    """A chain of its own for this one process, as each worker has one; the ledger is told of its head."""
    from worker.audit.stamp import require_owner
    from worker.audit.writer import AuditWriter
    from worker.errors import LedgerUnavailable

    require_owner(engine, settings.exchange_url)
    chain = str(uuid4())
    writer = AuditWriter(engine, writer=chain, environment=settings.environment)
    writer.start()
    try:
        writer.commit([fact], timeout=COMMIT_BOUND)
        reached(Gap.FINDING_ON_DISK)
        head = writer.head()
    finally:
        writer.stop()
    try:
        with reached_ledger(settings) as ledger:
            ledger.witness(chain, *head)
    except LedgerUnavailable as error:
        click.echo(f"cancelq: recorded; the ledger could not be told of it: {error}", err=True)
