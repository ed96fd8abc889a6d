"""`cancelq pause`, `resume`, `drain`: what an operator does with the whole ledger, in somebody's name."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from worker.cli.reach import reached_ledger, show_live, who
from worker.job import Steering
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from worker.ledger.client import Ledger
    from worker.ledger.encoding import Survey

POLL = 0.2
# How long `drain` waits unless told: more than the default budgets of retrying and of proving.
DRAIN_WAIT = 600.0
LONGEST_WAIT = 7 * 86400.0


def _named(command: Any) -> Any:
    """The options that put a name to an action."""
    because = click.option("--because", metavar="TEXT", help="why; kept in the audit")
    by = click.option("--by", metavar="NAME", default=who, show_default="user@host", help="who does this")
    return by(because(command))


@click.command()
@_named
def pause(by: str, because: str | None) -> None:
    """Stop POSTing, for all workers of the ledger; requests are taken, reads and proofs go on."""
    _tell(_steer(Steering.PAUSE, by, because))


@click.command()
@_named
def resume(by: str, because: str | None) -> None:
    """End a pause or a drain."""
    _tell(_steer(Steering.RESUME, by, because))


@click.command()
@_named
@click.option(
    "--wait",
    type=click.FloatRange(0, LONGEST_WAIT),
    default=DRAIN_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="how long to wait for the open cancels",
)
def drain(by: str, because: str | None, wait: float) -> None:
    """Refuse new requests, wait until every open cancel has its end; then the workers exit. Exit 1 if some are left."""
    settings = load_settings()
    show_live(settings)
    with reached_ledger(settings) as ledger:
        survey = ledger.steer(Steering.DRAIN, action_id=str(uuid4()), by=by, because=because)
        survey = _until_drained(ledger, survey, wait)
    _tell(survey)
    if survey.open:
        click.echo(f"cancelq: {survey.open} cancels are still open; new requests stay refused", err=True)
        sys.exit(1)


def _steer(kind: Steering, by: str, because: str | None) -> "Survey":
    settings: Settings = load_settings()
    show_live(settings)
    with reached_ledger(settings) as ledger:
        return ledger.steer(kind, action_id=str(uuid4()), by=by, because=because)


def _until_drained(ledger: "Ledger", survey: "Survey", wait: float) -> "Survey":
    give_up, told = time.monotonic() + wait, None
    while survey.open and survey.draining and time.monotonic() < give_up:
        if survey.open != told:
            click.echo(f"{survey.open} cancels are open", err=True)
            told = survey.open
        time.sleep(POLL)
        survey = ledger.survey()
    return survey


def _tell(survey: "Survey") -> None:
    answer = {
        "paused": survey.paused,
        "pausedAt": survey.paused_at.isoformat() if survey.paused_at else None,
        "draining": survey.draining,
        "open": survey.open,
        "exchange": survey.exchange,
    }
    click.echo(json.dumps(answer))
