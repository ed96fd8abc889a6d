"""`cancelq migrate` and `verify`: the audit's schema, and whether it can be trusted."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from worker.cli.reach import LEDGER_PATIENCE, reached_audit
from worker.errors import LedgerUnavailable
from worker.gaps import Gap, reached
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.audit.verify import Verification


@click.command()
def migrate() -> None:
    """Bring database and ledger functions to the newest version; safe to repeat, and to run twice at once."""
    from worker.audit.engine import audit_url
    from worker.audit.schema import migrate as upgrade
    from worker.ledger.client import Ledger

    settings = load_settings()
    revision = upgrade(audit_url(settings))
    reached(Gap.SCHEMA_ON_DISK)
    click.echo(f"the audit's schema is at {revision}", err=True)
    if settings.redis_url is not None:  # the embedded one is made ready by whoever starts it
        with Ledger(
            settings.redis_url.get_secret_value(), settings.ledger, timeout=LEDGER_PATIENCE
        ) as ledger:
            ledger.prepare(settings.dedupe_life)
        click.echo(f"the ledger {settings.ledger} has its functions", err=True)


@click.command()
@click.option("--expect", metavar="DIGEST", help="not supported yet")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def verify(expect: str | None, *, as_json: bool) -> None:
    """Recompute every digest of the audit and name the first bad row. Exit 1 if there is one."""
    if expect is not None:
        raise click.UsageError("--expect is not supported yet; compare the digest that verify prints")
    from worker.audit.engine import READING_BOUND
    from worker.audit.verify import verify as check

    settings = load_settings()
    heads = witnessed(settings)
    with reached_audit(settings, bound=READING_BOUND) as engine:
        found = check(engine, heads)
    click.echo(json.dumps(_finding(found, heads)) if as_json else _sentence(found))
    sys.exit(0 if found.ok else 1)


def witnessed(settings: Settings) -> Mapping[str, tuple[int, str]] | None:
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
