"""What every audit table shares: constraint names, UTC times and a place in its writer's chain."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Index, MetaData, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TIMESTAMP, TypeDecorator, TypeEngine

# A constraint's name names the table and column, so that a refusal by the database names them too.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "pk": "pk_%(table_name)s",
}
# Chains are merged in byte order; a database's own collation would sort the writers otherwise.
BYTEWISE_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes: timestamptz on PostgreSQL, `2026-11-23T20:00:00.000000Z` elsewhere (sorts as text)."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        zoned = TIMESTAMP(timezone=True) if dialect.name == "postgresql" else Text()
        return dialect.type_descriptor(zoned)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class Chained:
    """A fact's place: row `seq` of `writer`, whose digest covers every column and the digest before it."""

    writer: Mapped[str] = mapped_column(BYTEWISE_TEXT, primary_key=True, sort_order=-5)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False, sort_order=-4)
    prev: Mapped[str] = mapped_column(Text, sort_order=-3)
    digest: Mapped[str] = mapped_column(Text, sort_order=-2)
    environment: Mapped[str] = mapped_column(Text, sort_order=-1)


def index(*columns: str) -> Index:
    return Index(None, *columns)
