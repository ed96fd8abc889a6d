"""Triggers that keep an audit table append-only, per dialect. Used by migrations only; never changes rows."""

from collections.abc import Iterator, Sequence

REFUSAL = "the audit is append-only"

POSTGRESQL_FUNCTION = f"""
CREATE FUNCTION cancelq_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '{REFUSAL}: % on % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$"""
POSTGRESQL_DROP_FUNCTION = "DROP FUNCTION cancelq_append_only()"


def defend(dialect: str, table: str, keys: Sequence[str]) -> Iterator[str]:
    """The statements that defend `table`, whose unique keys are `keys` (comma-joined columns)."""
    if dialect == "postgresql":
        # A statement trigger for UPDATE fires for ON CONFLICT DO UPDATE too, whether or not a row conflicts.
        yield (
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION cancelq_append_only()"
        )
        # What is defended may be added to, if roles.sql was there first.
        yield (
            "DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'cancelq_writer') "
            f"THEN GRANT INSERT ON {table} TO cancelq_writer; END IF; END $$"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}: {verb} on {table} is refused'); END"
        )
    yield _no_replace(table, keys)


def _no_replace(table: str, keys: Sequence[str]) -> str:
    """INSERT OR REPLACE deletes without firing a DELETE trigger: no insert may meet a row that stands there.

    The rowid is a key as well; where an insert does not name one it reads as -1 here.
    """
    conditions = [" AND ".join(f"{column} = NEW.{column}" for column in key.split(",")) for key in keys]
    meets = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} WHERE {condition})"
        for condition in [*conditions, "rowid = NEW.rowid"]
    )
    return (
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {meets} "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}: a row of {table} with this key stands there already'); END"
    )
