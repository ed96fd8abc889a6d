"""`cancelq pause`, `resume`, `drain`: what an operator does with the whole ledger, in somebody's name."""

import json
import sys
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from worker.cli.reach import reached_ledger, show_live, signed
from worker.clock import iso
from worker.job import Steering
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.ledger.client import Ledger
    from worker.ledger.encoding import Survey

POLL = 0.2
# How long `pause` waits for what was in hand: more than a request's default bound.
PAUSE_WAIT = 10.0
# How long `drain` waits unless told: more than the default budgets of retrying and of proving.
DRAIN_WAIT = 600.0
LONGEST_WAIT = 7 * 86400.0


@click.command()
@signed
def pause(by: str, because: str | None) -> None:
    """Stop POSTing, for all workers of the ledger; requests are taken, reads and proofs go on."""
    settings = load_settings()
    show_live(settings)
    with reached_ledger(settings) as ledger:
        survey = ledger.steer(Steering.PAUSE, action_id=str(uuid4()), by=by, because=because)
        survey = _until_quiet(ledger, survey)
    _tell(survey)
    if survey.posting:
        click.echo(f"cancelq: {survey.posting} cancels are still in hand and may be on the wire", err=True)
    if survey.draining:
        click.echo(
            "cancelq: the ledger was being drained; nothing gets finished until `cancelq resume`", err=True
        )


@click.command()
@signed
def resume(by: str, because: str | None) -> None:
    """End a pause or a drain."""
    settings = load_settings()
    show_live(settings)
    with reached_ledger(settings) as ledger:
        _tell(ledger.steer(Steering.RESUME, action_id=str(uuid4()), by=by, because=because))


@click.command()
@signed
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


def _until_quiet(ledger: "Ledger", survey: "Survey") -> "Survey":
    """What was in hand when the pause came has its answer, or will have a lease that lapsed."""
    give_up = time.monotonic() + PAUSE_WAIT
    while survey.posting and survey.paused and time.monotonic() < give_up:
        time.sleep(POLL)
        survey = ledger.survey()
    return survey


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
        "pausedAt": iso(survey.paused_at) if survey.paused_at else None,
        "draining": survey.draining,
        "open": survey.open,
        "posting": survey.posting,
        "exchange": survey.exchange,
    }
    click.echo(json.dumps(answer))
