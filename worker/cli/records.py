"""`cancelq migrate`, `report` and `verify`: the audit's schema, what it says, and whether it can be trusted."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

import click

from worker.cli.moments import Moment, Zone
from worker.errors import ConfigError, LedgerUnavailable
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.audit.verify import Verification
    from worker.report.content import Report, Scope

LEDGER_PATIENCE = timedelta(seconds=1)


@click.command()
def migrate() -> None:
    """Bring database and ledger functions to the newest version; safe to repeat, and to run twice at once."""
    from worker.audit.engine import audit_url
    from worker.audit.schema import migrate as upgrade
    from worker.ledger.client import Ledger

    settings = load_settings()
    revision = upgrade(audit_url(settings))
    click.echo(f"the audit's schema is at {revision}", err=True)
    if settings.redis_url is not None:  # the embedded one is made ready by whoever starts it
        with Ledger(
            settings.redis_url.get_secret_value(), settings.ledger, timeout=LEDGER_PATIENCE
        ) as ledger:
            ledger.prepare(settings.dedupe_life)
        click.echo(f"the ledger {settings.ledger} has its functions", err=True)


@click.command()
@click.option("--since", type=Moment(), help="enqueued at this time or later")
@click.option("--until", type=Moment(), help="enqueued before this time")
@click.option("--account", help="of this account only")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "html"]),
    default="table",
    show_default=True,
)
@click.option("--json", "form", flag_value="json", help="the same as --format json")
@click.option("--output", "-o", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--tz", "zone", type=Zone(), default="UTC", show_default=True, help="show times in this zone")
def report(form: str, path: Path | None, **limits: Any) -> None:
    """The audit report: unresolved first, totals, latency, one row a cancel. Exit 1 if the audit is not intact."""
    if form == "html":
        raise click.UsageError("--format html is not supported yet; use table, json or csv")
    from worker.report.content import Scope

    settings = load_settings()
    with _audit(settings) as engine:
        made = _made(engine, settings, Scope(**limits))
    _put(_rendered(made, form, colored=path is None and sys.stdout.isatty()), path)
    sys.exit(0 if made.verification.ok else 1)


@click.command()
@click.option("--expect", metavar="DIGEST", help="not supported yet")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def verify(expect: str | None, *, as_json: bool) -> None:
    """Recompute every digest of the audit and name the first bad row. Exit 1 if there is one."""
    if expect is not None:
        raise click.UsageError("--expect is not supported yet; compare the digest that verify prints")
    from worker.audit.verify import verify as check

    settings = load_settings()
    heads = _witnessed(settings)
    with _audit(settings) as engine:
        found = check(engine, heads)
    click.echo(json.dumps(_finding(found, heads)) if as_json else _sentence(found))
    sys.exit(0 if found.ok else 1)


@contextmanager
def _audit(settings: Settings) -> Iterator["Engine"]:
    """The migrated database, opened for long reads."""
    from worker.audit.engine import READING_BOUND, audit_url, open_engine
    from worker.audit.schema import require_head

    engine = open_engine(audit_url(settings), statement_bound=READING_BOUND)
    try:
        require_head(engine)
        yield engine
    finally:
        engine.dispose()


def _witnessed(settings: Settings) -> Mapping[str, tuple[int, str]] | None:
    """The chain heads that the ledger was told of; None, said aloud, when it cannot be asked."""
    from worker.embedded.places import is_known, redis_place
    from worker.ledger.client import Ledger

    if not is_known(settings):
        return None
    try:
        with redis_place(settings) as url, Ledger(url, settings.ledger, timeout=LEDGER_PATIENCE) as ledger:
            return ledger.heads()
    except LedgerUnavailable as error:
        click.echo(f"cancelq: a cut tail would not be seen, the ledger was not asked: {error}", err=True)
        return None


def _made(engine: "Engine", settings: Settings, scope: "Scope") -> "Report":
    from worker.report.build import audit_report

    return audit_report(engine, scope, heads=_witnessed(settings))


def _rendered(made: "Report", form: str, *, colored: bool) -> str:
    from worker.report.machine import render_csv, render_json
    from worker.report.table import PAGE_WIDTH, render_table

    if form == "table":
        width = max(get_terminal_size().columns, PAGE_WIDTH) if colored else PAGE_WIDTH
        return render_table(made, width=width, color=colored)
    return render_json(made) if form == "json" else render_csv(made)


def _put(text: str, path: Path | None) -> None:
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror}") from error


def _finding(found: "Verification", heads: Mapping[str, tuple[int, str]] | None) -> dict[str, Any]:
    fault = found.fault
    return {
        "ok": found.ok,
        "rows": found.rows,
        "digest": found.digest,
        "heads": {writer: {"seq": head.seq, "digest": head.digest} for writer, head in found.heads.items()},
        "witnessed": heads is not None,
        "fault": None
        if fault is None
        else {"table": fault.table, "writer": fault.writer, "seq": fault.seq, "what": fault.what},
    }


def _sentence(found: "Verification") -> str:
    if found.fault is not None:
        return f"the audit is NOT intact: {found.fault}"
    return f"the audit is intact: {found.rows} rows in {len(found.heads)} chains, digest {found.digest}"
