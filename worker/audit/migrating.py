"""Brings the audit's schema to the newest revision, by Alembic. Touches no rows."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

import migrations
from worker.audit.engine import MIGRATION_BOUND, answering, ensure_folder, open_engine
from worker.audit.schema import refuse_newer, revision
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
    refuse_newer(connection)
    command.upgrade(_config(connection), target)


def downgrade(connection: Connection, target: str) -> None:
    command.downgrade(_config(connection), target)


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
