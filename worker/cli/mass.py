"""`cancelq cancel-all`: every open order of an account, until the exchange's own list shows none."""

import logging
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.intake import utf8
from worker.cli.reach import reached_ledger, show_live, signed
from worker.errors import AuditUnavailable, ConfigError
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.ledger.client import Ledger
    from worker.work.listing import Lists
    from worker.work.mass import MassCancel
    from worker.work.mass_course import Course, Scope

# An account that got new orders in so many rounds gets them from something that has to be stopped first.
ROUNDS = 20
MOST_ROUNDS = 1000
# Longer than the default budgets of retrying and of proving, for several rounds.
SPAN = 600.0
LONGEST = 86400.0
LONGEST_ACCOUNT = 64
# One call of the ledger: 500 requests, each with its fsync.
QUEUE_BOUND = timedelta(seconds=5)


def _account(_ctx: click.Context, _param: click.Parameter, text: str) -> str:
    if not text.isprintable() or not 0 < len(text.encode(errors="replace")) <= LONGEST_ACCOUNT:
        raise click.BadParameter(f"must be one line of 1 to {LONGEST_ACCOUNT} bytes")
    return text


@click.command("cancel-all")
@click.option(
    "--account", required=True, callback=_account, help="whose orders: its name, as producers write it"
)
@click.option("--contract", callback=utf8, help="of this contract only: its name, or its id in digits")
@click.option("--dry-run", is_flag=True, help="show what would be canceled; nothing is asked for")
@click.option("--manual", is_flag=True, help="a person's cancels: isAutomated is false")
@signed
@click.option(
    "--rounds",
    type=click.IntRange(1, MOST_ROUNDS),
    default=ROUNDS,
    show_default=True,
    help="how often orders that appear meanwhile are taken up",
)
@click.option(
    "--for",
    "span",
    type=click.FloatRange(1, LONGEST),
    default=SPAN,
    show_default=True,
    metavar="SECONDS",
    help="how long in all",
)
@click.option("--format", "form", type=click.Choice(["json", "html"]), default="json", show_default=True)
@click.option("--json", "form", flag_value="json", help="the same as --format json")
@click.option("--output", "-o", "path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
def cancel_all(form: str, path: Path | None, *, dry_run: bool, **options: Any) -> None:
    """Cancel every open order of an account, and look again until the exchange lists none.

    An evidence sheet to stdout or FILE, progress to stderr. Exit 0 only if the last list shows none left. Started
    again after a crash, it goes on with the same mass cancel.
    """
    from worker.app.logs import set_up_logs

    settings = load_settings()
    set_up_logs(settings.log, logging.WARNING)
    show_live(settings)
    _require_place(path)
    try:
        course, made = _played(settings, options, dry_run=dry_run or settings.dry_run)
    except KeyboardInterrupt:
        click.echo(
            "cancelq: stopped looking; the cancels that were asked for go on. The same command goes on",
            err=True,
        )
        sys.exit(1)
    _say(course)
    _put(made, form, path)
    sys.exit(0 if made["noneLeft"] or made["dryRun"] else 1)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What one mass cancel works with."""

    scope: "Scope"
    mass: "MassCancel"
    ledger: "Ledger"
    audit: "Audit"


def _played(
    settings: Settings, options: Mapping[str, Any], *, dry_run: bool
) -> "tuple[Course, dict[str, Any]]":
    from worker.report.sheet import sheet
    from worker.work.mass_course import Asker, Bounds

    asker = Asker(by=options["by"], because=options["because"], manual=options["manual"])
    span = timedelta(seconds=options["span"])
    with _staged(settings, options["account"], options["contract"], span=span) as stage:
        if dry_run:
            course = stage.mass.preview(asker)
        else:
            bounds = Bounds(rounds=options["rounds"], span=span)
            course = stage.mass.run(stage.ledger.mass(stage.scope.key), asker, bounds)
        jobs = [one.job_id for order in course.orders for one in order.tries if one.job_id is not None]
        return course, sheet(
            course,
            exchange=settings.exchange_url,
            live=settings.is_live,
            proofs=stage.audit.proofs(jobs),
            notes=[*stage.audit.notes, *_standing(stage.ledger)],
        )


def _standing(ledger: "Ledger") -> list[str]:
    """What keeps cancels from being sent."""
    found = ledger.survey()
    notes = ["the ledger is paused: nothing is POSTed until `cancelq resume`"] if found.paused else []
    notes += ["the ledger is being drained: it takes no new cancels"] if found.draining else []
    return notes + (
        ["no worker runs on the ledger: nothing is POSTed until one does"] if found.workers == 0 else []
    )


@contextmanager
def _staged(settings: Settings, account: str, contract: str | None, *, span: timedelta) -> "Iterator[_Stage]":
    """All parts, joined as a worker joins them: one login's connections, budget, lock-outs and token."""
    from worker.embedded.places import redis_place
    from worker.ledger.producer import CancelQueue
    from worker.work.mass import MassCancel
    from worker.work.mass_course import Scope

    with ExitStack() as opened:
        ledger = opened.enter_context(reached_ledger(settings))
        ledger.require_owner(settings.exchange_url)
        lists = _lists(settings, ledger, account, opened, patience=span)
        at_exchange = lists.account(account)
        which = lists.contract(contract) if contract is not None else None
        scope = Scope(account=account, at_exchange=at_exchange, contract=which)
        url = opened.enter_context(redis_place(settings))
        queue = opened.enter_context(CancelQueue(url, settings.ledger, bound=QUEUE_BOUND))
        audit = Audit(settings, opened)
        mass = MassCancel(scope, lists, queue, record=audit, standing=lambda: _standing(ledger), tell=_tell)
        yield _Stage(scope, mass, ledger, audit)


def _lists(
    settings: Settings, ledger: "Ledger", account: str, opened: ExitStack, *, patience: timedelta
) -> "Lists":
    from worker.exchange.clients import clients
    from worker.exchange.line import Timeouts
    from worker.logins import login_of, logins_from
    from worker.policy import policy_from
    from worker.rate_limit import limits_from
    from worker.work.governing import governor_for_commands
    from worker.work.keeper import keepers
    from worker.work.listing import PATIENCE, Lists

    login = login_of(logins_from(settings), account)
    if login is None:
        raise ConfigError(f"--account: no login of CANCELQ_CREDENTIALS serves the account {account!r}")
    timeouts = Timeouts(
        connect=settings.connect_timeout, read=settings.read_timeout, total=settings.total_timeout
    )
    limited = bool(limits_from(settings.rate_limit))
    governor = governor_for_commands(ledger, policy_from(settings, random.random), limited=limited)
    found = clients(settings.exchange_url, [login], timeouts, governor=governor)
    opened.callback(found.close)
    kept = keepers(found, ledger, governor, timeouts=timeouts, lockout=settings.lockout)
    for keeper in kept:
        opened.callback(keeper.close)
    return Lists(found.by_name[login.name], kept, patience=min(patience, PATIENCE))


class Audit:
    """What the audit adds, while it can be asked: a mass cancel must not wait for it."""

    def __init__(self, settings: Settings, opened: ExitStack) -> None:
        from worker.audit.engine import audit_url, open_engine

        self.notes: list[str] = []
        self._engine: Engine = open_engine(audit_url(settings))
        opened.callback(self._engine.dispose)

    def status(self, job_id: str) -> Mapping[str, Any]:
        from worker.audit.queries import status

        return self._asked(lambda: status(self._engine, job_id=job_id), {})

    def known_open(self, account: str) -> Mapping[Any, str]:
        from worker.audit.known_open import known_open
        from worker.clock import utc_now
        from worker.session import last_reset

        return self._asked(lambda: known_open(self._engine, account, last_reset(utc_now())), {})

    def proofs(self, job_ids: list[str]) -> Mapping[Any, Any]:
        from worker.audit.queries import proofs
        from worker.job import JobId

        return (
            self._asked(lambda: proofs(self._engine, [JobId(one) for one in job_ids]), {}) if job_ids else {}
        )

    def _asked(self, ask: Any, otherwise: Mapping[str, Any]) -> Mapping[Any, Any]:
        from worker.audit.schema import require_head

        try:
            require_head(self._engine)
            found: Mapping[Any, Any] = ask()
        except (AuditUnavailable, ConfigError) as error:
            note = f"the audit could not be asked: {error}"
            self.notes += [note] if note not in self.notes else []
            return otherwise
        return found


def _tell(text: str) -> None:
    click.echo(f"cancelq: {text}", err=True)


def _say(course: "Course") -> None:
    from worker.report.sheet import MEANINGS

    if course.resumed:
        _tell(f"went on with cancel-all {course.id}, asked for by {course.by}")
    _tell(f"{course.result}: {MEANINGS[course.result]}")
    for order in course.left[:20]:
        _tell(f"order {order.order_id}: {course.why_left(order)}")
    if len(course.left) > 20:
        _tell(f"and {len(course.left) - 20} more; the sheet has them all")
    for note in course.notes:
        _tell(note)


def _require_place(path: Path | None) -> None:
    """Before anything is asked for: a sheet that cannot be written afterwards is lost."""
    if path is None:
        return
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror}") from error


def _put(made: Mapping[str, Any], form: str, path: Path | None) -> None:
    from worker.report.sheet import render_html, render_json

    text = render_html(made) if form == "html" else render_json(made)
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error.strerror}") from error
