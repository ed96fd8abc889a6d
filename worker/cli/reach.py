"""How a command reaches the ledger and the audit that are configured, and says whose money is behind them."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from worker.settings import Settings, names_live

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.ledger.client import Ledger

LEDGER_PATIENCE = timedelta(seconds=1)
LIVE = "LIVE: real orders, real money"
DRY_RUN = "DRY RUN: CANCELQ_DRY_RUN is on, nothing is POSTed"
LONGEST_NAME = 128


def show_live(settings: Settings) -> None:
    """On every command that has to do with an exchange."""
    if settings.is_live:
        say_live()
    if settings.dry_run:
        click.secho(DRY_RUN, err=True, bold=True)


def show_owner(exchange: str | None) -> None:
    """LIVE as well where the ledger or the audit, not the caller's own setting, is a live exchange's."""
    if exchange is not None and names_live(exchange):
        say_live()


@cache
def say_live() -> None:
    """Once a command."""
    click.secho(LIVE, err=True, fg="white", bg="red", bold=True)


def who() -> str:
    """The person at this machine, where nobody is named."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def named(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | None:
    """A name or a reason that goes on record: one line of text."""
    if text is not None and not (text.strip() and text.isprintable() and len(text.encode()) <= LONGEST_NAME):
        raise click.BadParameter(f"must be one line of 1 to {LONGEST_NAME} bytes")
    return text


by_option = click.option(
    *("--by", "by"),
    metavar="NAME",
    default=who,
    callback=named,
    show_default="user@host",
    help="who does this",
)


def signed(command: Any) -> Any:
    """The options that put a name to what a person does with the ledger."""
    because = click.option("--because", metavar="TEXT", callback=named, help="why; kept in the audit")
    return by_option(because(command))


@contextmanager
def reached_ledger(settings: Settings) -> Iterator["Ledger"]:
    """The configured ledger, whose functions a worker or `cancelq migrate` loads; else the embedded Valkey of this home."""
    from worker.embedded.places import redis_place
    from worker.ledger.client import Ledger

    with redis_place(settings) as url, Ledger(url, settings.ledger, timeout=LEDGER_PATIENCE) as ledger:
        if settings.redis_url is None:
            ledger.load_functions()
        show_owner(ledger.survey().exchange)
        yield ledger


@contextmanager
def reached_audit(settings: Settings, *, bound: timedelta | None = None) -> Iterator["Engine"]:
    """The migrated database; `bound` limits one statement, for long reads."""
    from worker.audit.engine import STATEMENT_BOUND, audit_url, open_engine
    from worker.audit.schema import require_head
    from worker.audit.stamp import owner

    engine = open_engine(audit_url(settings), statement_bound=bound or STATEMENT_BOUND)
    try:
        require_head(engine)
        show_owner(owner(engine))
        yield engine
    finally:
        engine.dispose()
