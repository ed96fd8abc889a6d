"""`cancelq migrate` and `verify`: the audit's schema, and whether it can be trusted."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from worker.cli.reach import LEDGER_PATIENCE, reached_audit, show_live, show_owner
from worker.errors import AuditUnavailable, LedgerUnavailable, NotAsWritten
from worker.gaps import Gap, reached
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.audit.journal import Journal
    from worker.audit.verify import Verification


@click.command()
def migrate() -> None:
    """Bring database and ledger functions to the newest version; safe to repeat, and to run twice at once."""
    from worker.audit.engine import audit_url
    from worker.audit.migrating import migrate as upgrade
    from worker.ledger.client import Ledger
    from worker.ledger.words import Rules
    from worker.rate_limit import limits_from

    settings = load_settings()
    show_live(settings)
    revision = upgrade(audit_url(settings))
    reached(Gap.SCHEMA_ON_DISK)
    click.echo(f"the audit's schema is at {revision}", err=True)
    with reached_audit(settings):  # which says whose it is
        pass
    if settings.redis_url is not None:  # the embedded one is made ready by whoever starts it
        with Ledger(
            settings.redis_url.get_secret_value(), settings.ledger, timeout=LEDGER_PATIENCE
        ) as ledger:
            ledger.prepare(Rules(dedupe_life=settings.dedupe_life, limits=limits_from(settings.rate_limit)))
            show_owner(ledger.survey().exchange)
        click.echo(f"the ledger {settings.ledger} has its functions", err=True)


def _digest(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    if text is not None and re.fullmatch("[0-9a-f]{64}", text) is None:
        raise click.BadParameter(
            f"{text!r} is no digest; give the 64 hex digits that verify or report printed"
        )
    return text


@click.command()
@click.option(
    "--expect",
    metavar="DIGEST",
    callback=_digest,
    help="one that was printed before: what was sealed then must be as it was",
)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def verify(expect: str | None, *, as_json: bool) -> None:
    """Recompute every digest of the audit and name the first bad row; exit 1 if there is one. Else seal what is new.

    With --expect nothing is written.
    """
    from worker.audit.engine import READING_BOUND
    from worker.audit.verify import verify as check

    settings = load_settings()
    show_live(settings)
    beside = witnessed(settings)
    with reached_audit(settings, bound=READING_BOUND) as engine:
        found = check(engine, **beside._asdict(), expect=expect)
        if found.ok and found.newer and expect is None:
            found = _sealed(settings, engine, found)
    click.echo(
        json.dumps(_finding(found, witnessed=beside.heads is not None)) if as_json else _sentence(found)
    )
    sys.exit(0 if found.ok else 1)


def _sealed(settings: Settings, engine: "Engine", found: "Verification") -> "Verification":
    """Seal what was just verified, if this user may; beside a seal that came meanwhile it need not be."""
    from worker.audit.engine import audit_url, open_engine
    from worker.audit.seals import add
    from worker.audit.stamp import owner

    environment = owner(engine) or settings.environment  # the audit's own, whatever this shell is set to
    quick = open_engine(audit_url(settings))
    try:
        made = add(quick, found.seals.newest, found.unsealed, environment)
    except AuditUnavailable as error:
        click.echo(f"cancelq: the newest rows were not sealed: {error}", err=True)
        return found
    finally:
        quick.dispose()
    if made is None:
        return found
    return replace(found, seals=found.seals._replace(newest=made), unsealed={}, newer=0)


class Beside(NamedTuple):
    """What is known of the audit's chains outside of the database."""

    heads: Mapping[str, tuple[int, str]] | None = None
    marks: Mapping[str, str] | None = None
    journal: "Journal | None" = None


def witnessed(settings: Settings) -> Beside:
    """The journal of this host, and what the ledger was told; where that cannot be asked it is said aloud."""
    from worker.audit.journal import journal_of
    from worker.embedded.places import is_known, redis_place
    from worker.ledger.client import Ledger

    journal = journal_of(settings, lambda *_told: None)
    beside = Beside(journal=journal if journal.exists else None)
    if not is_known(settings):
        return beside
    try:
        with redis_place(settings) as url, Ledger(url, settings.ledger, timeout=LEDGER_PATIENCE) as ledger:
            # Heads first: a mark that is gone by then means that its rows are in the database.
            return beside._replace(heads=ledger.heads())._replace(marks=ledger.marks())
    except LedgerUnavailable as error:
        click.echo(f"cancelq: a cut tail would not be seen, the ledger was not asked: {error}", err=True)
        return beside


@contextmanager
def as_written(settings: Settings) -> Iterator[None]:
    """Whoever reads rows in here and cannot is told which one nobody wrote; where all are sound the fault is ours."""
    from worker.audit.engine import READING_BOUND, UNREADABLE

    try:
        yield
    except UNREADABLE as error:
        from worker.audit.verify import verify as check

        with reached_audit(settings, bound=READING_BOUND) as engine:
            found = check(engine, **witnessed(settings)._asdict())
        if found.fault is None:
            raise
        raise NotAsWritten(f"the audit is NOT intact: {found.fault}") from error


def _finding(found: "Verification", *, witnessed: bool) -> dict[str, Any]:
    fault = found.fault
    return {
        "ok": found.ok,
        "rows": found.rows,
        "digest": found.digest or None,
        "seals": found.seals.newest.seq,
        "newer_rows": found.newer,
        "heads": {writer: {"seq": head.seq, "digest": head.digest} for writer, head in found.heads.items()},
        "witnessed": witnessed,
        "journal_trouble": found.journal_trouble or None,
        "views_trouble": found.views_trouble or None,
        "outstanding": [asdict(chain) for chain in found.outstanding],
        "conflicts": found.conflicts,
        "contradictions": [asdict(one) for one in found.contradictions],
        "fault": None
        if fault is None
        else {"table": fault.table, "writer": fault.writer, "seq": fault.seq, "what": fault.what},
    }


def _sentence(found: "Verification") -> str:
    if found.fault is not None:
        return f"the audit is NOT intact: {found.fault}"
    sealed = f"digest {found.digest}" if found.digest else "no seal yet"
    intact = "as it was written, but contradicts itself" if found.conflicts else "intact"
    extent = f"the audit is {intact}: {found.rows} rows in {len(found.heads)} chains, {sealed}"
    return "\n".join([extent, *found.remarks])
