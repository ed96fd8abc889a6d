"""`cancelq why`: the whole story of one order's cancels."""

import json
import sys
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any

import click

from worker.cli.intake import UNKNOWN, order_number, utf8
from worker.cli.moments import Zone
from worker.cli.reach import show_live, show_owner
from worker.cli.records import as_written
from worker.errors import AuditUnavailable, ConfigError
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.audit.order_story import OrderFacts
    from worker.report.present import Present
    from worker.report.why import Tale

DEFAULT_ACCOUNT = "default"


@click.command()
@click.argument("order_id", callback=order_number)
@click.option("--account", callback=utf8, help="of this account only  [all]")
@click.option("--json", "as_json", is_flag=True, help="one JSON object, times in UTC")
@click.option("--tz", "zone", type=Zone(), default="UTC", show_default=True, help="show times in this zone")
def why(order_id: int, account: str | None, zone: tzinfo, *, as_json: bool) -> None:
    """Tell the story of ORDER_ID's cancels: who asked, what came back, what decided, what proved the end."""
    settings = load_settings()
    show_live(settings)
    with as_written(settings):
        tale = _tale(settings, order_id, account, UTC if as_json else zone)
        if not tale.accounts:
            _say_unknown(tale, account, as_json=as_json)
            sys.exit(1)
        if as_json:
            from worker.report.story_json import render_story as render
        else:
            from worker.report.story_text import render_text as render
        story = render(tale)
    if as_json:
        _say_notes(tale)
    click.echo(story, nl=False)


def _tale(settings: Settings, order_id: int, account: str | None, zone: tzinfo) -> "Tale":
    from worker.report.links import linked_orders
    from worker.report.why import Sources, tell

    recorded, not_read = _recorded(settings, order_id, account)
    present = _present(settings, order_id, account, recorded)
    sources = Sources(
        recorded=recorded,
        present=present.answers,
        links=linked_orders(recorded.jobs, settings),
        notes=[note for note in (not_read, present.note) if note],
    )
    return tell(order_id, sources, zone)


def _recorded(settings: Settings, order_id: int, account: str | None) -> tuple["OrderFacts", str | None]:
    """What the audit knows, or why it could not be asked: then the ledger's word still helps."""
    from worker.audit.engine import audit_url, is_missing, open_engine
    from worker.audit.order_story import OrderFacts, order_story
    from worker.audit.schema import require_head
    from worker.audit.stamp import owner

    engine = open_engine(audit_url(settings))
    try:
        if is_missing(engine):
            return OrderFacts(), "there is no audit yet"
        require_head(engine)
        show_owner(owner(engine))
        return order_story(engine, order_id, account=account, ledger=settings.ledger), None
    except (AuditUnavailable, ConfigError) as error:
        return OrderFacts(), f"the audit could not be asked: {error}"
    finally:
        engine.dispose()


def _present(settings: Settings, order_id: int, account: str | None, recorded: "OrderFacts") -> "Present":
    from worker.embedded.places import is_known, redis_place
    from worker.report.present import Present, ask_ledger

    if not is_known(settings):
        return Present(note="there is no ledger yet")
    accounts = (
        {account} if account is not None else {DEFAULT_ACCOUNT, *(f.job.account for f in recorded.jobs)}
    )
    with redis_place(settings) as url:
        present = ask_ledger(
            url,
            settings.ledger,
            order_id=order_id,
            accounts=sorted(accounts),
            open_jobs=[facts.job.job_id for facts in recorded.jobs if facts.outcome is None],
        )
    show_owner(present.exchange)
    return present


def _say_unknown(tale: "Tale", account: str | None, *, as_json: bool) -> None:
    """Neither knows the order; without --account the ledger was asked for the default account alone."""
    if as_json:
        answer: dict[str, Any] = {
            **UNKNOWN,
            "orderId": tale.order_id,
            "account": account,
            "notes": tale.notes,
        }
        click.echo(json.dumps(answer))
    whose = "" if account is None else f" of account {account}"
    if any("could not be asked" in note for note in tale.notes):
        said = "not everything could be asked"
    elif account is not None:
        said = "no cancel was ever asked for"
    else:
        said = "the audit knows of no cancel; a request that is not on record yet is found with --account"
    click.echo(f"cancelq: order {tale.order_id}{whose}: {said}", err=True)
    _say_notes(tale)


def _say_notes(tale: "Tale") -> None:
    """The page has them too."""
    for note in tale.notes:
        click.echo(f"cancelq: {note}", err=True)
