"""Which exchange an audit belongs to, said once by the first worker that writes into it, and each writer's ledger."""

from datetime import timedelta

from sqlalchemy import ColumnElement, Engine, literal, select
from sqlalchemy.orm import InstrumentedAttribute

from models import Stamped
from worker.audit.engine import address, reading
from worker.audit.facts import stamp_fact
from worker.audit.writer import AuditWriter
from worker.clock import utc_now
from worker.errors import AuditUnavailable, ConfigError

EXCHANGE = "exchange"
LEDGER_OF = "ledger of "
COMMIT_BOUND = timedelta(seconds=10)


def owner(engine: Engine) -> str | None:
    """The base URL of the exchange that this audit speaks of; None while nobody has said so."""
    value = select(Stamped.value).where(Stamped.name == EXCHANGE)
    with reading(engine) as connection:
        return connection.execute(value).scalar()


def require_owner(engine: Engine, exchange: str) -> None:
    """Raise ConfigError if the audit is another exchange's: two of them in one record prove nothing."""
    found = owner(engine)
    if found is not None and found != exchange:
        raise ConfigError(
            f"CANCELQ_DATABASE_URL: the audit at {address(engine)} belongs to the exchange {found}, "
            f"not to {exchange}; use another database, or set CANCELQ_EXCHANGE_URL right"
        )


def stamp(engine: Engine, writer: AuditWriter, exchange: str) -> None:
    """Make the audit this exchange's, or raise ConfigError if it is another's. Of two at once one wins."""
    if owner(engine) is None:
        writer.commit([stamp_fact(EXCHANGE, exchange, at=utc_now())], timeout=COMMIT_BOUND)
        if owner(engine) is None:  # it went into the journal
            raise AuditUnavailable(f"the database {address(engine)} does not take rows")
    require_owner(engine, exchange)


def stamp_writer(writer: AuditWriter, name: str, ledger: str) -> None:
    """Say for which ledger a writer works, before its first job: its jobs are that ledger's."""
    writer.commit([stamp_fact(LEDGER_OF + name, ledger, at=utc_now())], timeout=COMMIT_BOUND)


def ledger_stamp(writer: InstrumentedAttribute[str]) -> ColumnElement[str]:
    """The name of a writer's stamp, in SQL."""
    return literal(LEDGER_OF).concat(writer)
