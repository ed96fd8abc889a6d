"""Whether the database has the schema that this program writes. Asks, changes nothing; `migrating` brings it there."""

from sqlalchemy import Connection, Engine, inspect, text

from migrations import REVISIONS
from models import Base
from worker.audit.engine import address, is_missing, reading
from worker.errors import ConfigError


def require_head(engine: Engine) -> None:
    """Raise ConfigError, saying what to do, unless the schema is the one this program writes."""
    if is_missing(engine):
        raise ConfigError(f"there is no audit at {address(engine)}; run: cancelq migrate")
    with reading(engine) as connection:
        found = revision(connection)
        refuse_newer(connection)
    if found != head():
        raise ConfigError(
            f"the audit at {address(engine)} has schema {found or 'none'}, this program needs {head()}; "
            "run: cancelq migrate"
        )


def require_writer(engine: Engine) -> None:
    """Raise ConfigError unless this user may add to every table: found out later, it would have claimed by then."""
    if engine.dialect.name != "postgresql":
        return
    with reading(engine) as connection:
        user, denied = connection.execute(
            text(
                "SELECT current_user, array_agg(name ORDER BY name) FROM unnest(CAST(:tables AS text[])) AS name "
                "WHERE NOT has_table_privilege(name, 'INSERT')"
            ),
            {"tables": sorted(Base.metadata.tables)},
        ).one()
    if denied:
        raise ConfigError(
            f"CANCELQ_DATABASE_URL: {user} may not add to {', '.join(denied)} at {address(engine)}; "
            "connect as a member of cancelq_writer (deploy/roles.sql)"
        )


def head() -> str:
    """The newest revision this program knows."""
    return REVISIONS[-1]


def revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def refuse_newer(connection: Connection) -> None:
    """Raise ConfigError for a schema that a later version made."""
    found = revision(connection)
    connection.rollback()
    if found is not None and found not in REVISIONS:
        raise ConfigError(
            f"the audit at {address(connection.engine)} has schema {found}, which this version of cancelq "
            "does not know; use the newer cancelq"
        )
