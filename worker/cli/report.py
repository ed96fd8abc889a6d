"""`cancelq report`: what a period's cancels came to, as a table, JSON, CSV or one HTML page."""

import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.moments import Moment, Zone, require_shown
from worker.cli.reach import reached_audit, show_live
from worker.cli.records import as_written, witnessed
from worker.errors import ConfigError
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.report.content import Report

# Each write to stdout is flushed.
PARTS_AT_ONCE = 1000


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
@click.option(
    *("--verify/--no-verify", "checking"),
    default=True,
    show_default=True,
    help="check the whole audit first, which takes its time; without, the report says that nobody did",
)
@click.option("--tz", "zone", type=Zone(), default="UTC", show_default=True, help="show times in this zone")
def report(form: str, path: Path | None, *, checking: bool, **limits: Any) -> None:
    """The audit report: unresolved first, totals, latency, one row a cancel. Exit 1 if the audit is not intact."""
    from worker.audit.engine import READING_BOUND
    from worker.audit.verify import not_verified
    from worker.report.build import audit_report
    from worker.report.content import Scope

    for limit in ("since", "until"):
        require_shown(f"--{limit}", limits[limit], limits["zone"])
    settings = load_settings()
    show_live(settings)
    with as_written(settings), reached_audit(settings, bound=READING_BOUND) as engine:
        known = witnessed(settings)._asdict() if checking else {"verification": not_verified(engine)}
        made = audit_report(engine, Scope(**limits), **known)
        _put(_rendered(made, form, colored=path is None and sys.stdout.isatty()), path)
    sys.exit(0 if made.verification.ok else 1)


def _rendered(made: "Report", form: str, *, colored: bool) -> Iterable[str]:
    """The report in parts: a year's json as one text would fill the memory."""
    match form:
        case "html":
            from worker.report.page import render_html

            return [render_html(made)]
        case "json":
            from worker.report.machine import json_parts

            return json_parts(made)
        case "csv":
            from worker.report.machine import csv_parts

            return csv_parts(made)
    from worker.report.table import render_table

    return [render_table(made, color=colored)]


def _put(parts: Iterable[str], path: Path | None) -> None:
    if path is None:
        parts = iter(parts)
        while some := "".join(islice(parts, PARTS_AT_ONCE)):
            click.echo(some, nl=False)
        return
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(parts)
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror}") from error
