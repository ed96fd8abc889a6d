"""Brings the audit's schema to the newest revision, and tells whether it is there. Touches no rows."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

import migrations
from worker.audit.engine import (
    MIGRATION_BOUND,
    address,
    answering,
    ensure_folder,
    is_missing,
    open_engine,
    reading,
)
from worker.errors import ConfigError


def migrate(url: str) -> str:
    """Upgrade to the newest schema; safe to repeat and to run twice at once. Returns the revision it is at."""
    engine = open_engine(url, statement_bound=MIGRATION_BOUND)
    try:
        ensure_folder(engine)
        with answering(engine), engine.connect() as connection:
            _require_utf8(connection)
            connection.rollback()
            upgrade(connection)
            return revision(connection) or ""
    finally:
        engine.dispose()


def upgrade(connection: Connection, target: str = "head") -> None:
    """Run the scripts of the installed package on `connection`, in one transaction."""
    _refuse_newer(connection)
    command.upgrade(_config(connection), target)


def downgrade(connection: Connection, target: str) -> None:
    command.downgrade(_config(connection), target)


def require_head(engine: Engine) -> None:
    """Raise ConfigError, saying what to do, unless the schema is the one this program writes."""
    if is_missing(engine):
        raise ConfigError(f"there is no audit at {address(engine)}; run: cancelq migrate")
    with reading(engine) as connection:
        found = revision(connection)
        _refuse_newer(connection)
    if found != head():
        raise ConfigError(
            f"the audit at {address(engine)} has schema {found or 'none'}, this program needs {head()}; "
            "run: cancelq migrate"
        )


def head() -> str:
    """The newest revision this program knows."""
    return _scripts().get_current_head() or ""


def revision(connection: Connection) -> str | None:
    """The revision the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection) -> None:
    found = revision(connection)
    connection.rollback()
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise ConfigError(
            f"the audit at {address(connection.engine)} has schema {found}, which this version of cancelq "
            "does not know; use the newer cancelq"
        )


def _require_utf8(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise ConfigError(f"the database's encoding is {encoding}; the audit needs UTF8")


def _config(connection: Connection) -> Config:
    config = _located()
    config.attributes["connection"] = connection
    return config


def _located() -> Config:
    """The scripts are found through their package, never through the working directory."""
    config = Config()
    folder = str(Path(migrations.__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_located())
