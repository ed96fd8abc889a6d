"""How a command reaches the ledger and the audit that are configured, and says whose money is behind them."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from worker.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from worker.ledger.client import Ledger

LEDGER_PATIENCE = timedelta(seconds=1)
LIVE = "LIVE: real orders, real money"


def show_live(settings: Settings) -> None:
    """On every command that changes something."""
    if settings.is_live:
        click.secho(LIVE, err=True, fg="white", bg="red", bold=True)


def who() -> str:
    """The person at this machine, where nobody is named."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def reached_ledger(settings: Settings) -> Iterator["Ledger"]:
    """The configured ledger with its functions; without one the embedded Valkey of this home."""
    from worker.embedded.places import redis_place
    from worker.ledger.client import Ledger

    with redis_place(settings) as url, Ledger(url, settings.ledger, timeout=LEDGER_PATIENCE) as ledger:
        ledger.load_functions()
        yield ledger


@contextmanager
def reached_audit(settings: Settings, *, bound: timedelta | None = None) -> Iterator["Engine"]:
    """The migrated database; `bound` limits one statement, for long reads."""
    from worker.audit.engine import STATEMENT_BOUND, audit_url, open_engine
    from worker.audit.schema import require_head

    engine = open_engine(audit_url(settings), statement_bound=bound or STATEMENT_BOUND)
    try:
        require_head(engine)
        yield engine
    finally:
        engine.dispose()
