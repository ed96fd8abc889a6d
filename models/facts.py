"""The facts of a cancel's life, in the past tense: rows are added, never changed.

No foreign keys: rows come from many writers, and a missing parent must not stop a cancel; `cancelq verify` names it.
"""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.schema import SchemaItem

from models.base import Base, Chained, UtcDateTime, index


def one_of(column: str, *words: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(word) for word in words)})", name=column)


def positive(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} > 0", name=column)


class Enqueued(Chained, Base):
    """A wish to cancel one order was accepted."""

    __tablename__ = "jobs"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id"),
        index("order_id", "account"),
        index("enqueued_at"),
        index("redrive_of"),
        one_of("priority", "urgent", "normal"),
        positive("order_id"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    account: Mapped[str] = mapped_column(Text)
    order_id: Mapped[int] = mapped_column(BigInteger)
    cl_ord_id: Mapped[str | None] = mapped_column(Text)
    activation_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    custom_tag50: Mapped[str | None] = mapped_column(Text)
    is_automated: Mapped[bool]
    requested_by: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    priority: Mapped[str] = mapped_column(Text)
    deadline: Mapped[datetime | None] = mapped_column(UtcDateTime)
    enqueued_at: Mapped[datetime] = mapped_column(UtcDateTime)
    redrive_of: Mapped[str | None] = mapped_column(Text)


class Joined(Chained, Base):
    """A later request joined an open job and shares its outcome."""

    __tablename__ = "requests"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id", "request_id"),
        one_of("priority", "urgent", "normal"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    requested_by: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[str] = mapped_column(Text)
    deadline: Mapped[datetime | None] = mapped_column(UtcDateTime)
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    activation_time: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Started(Chained, Base):
    """A POST was about to leave."""

    __tablename__ = "starts"
    __table_args__: tuple[SchemaItem, ...] = (UniqueConstraint("job_id", "attempt"), positive("attempt"))
    job_id: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int]
    worker: Mapped[str] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    policy_version: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)


class Replied(Chained, Base):
    """What came over the wire for one POST, raw, before anyone interpreted it."""

    __tablename__ = "replies"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id", "attempt"),
        one_of("transport", "answered", "not_sent", "unanswered"),
        one_of("body_encoding", "text", "base64"),
        positive("attempt"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int]
    transport: Mapped[str] = mapped_column(Text)
    http_status: Mapped[int | None]
    body: Mapped[str | None] = mapped_column(Text)
    body_encoding: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    latency_us: Mapped[int | None] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RepliedLate(Chained, Base):
    """An answer came after its attempt had been written off: its process was frozen, or had lost its lease."""

    __tablename__ = "late_replies"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id", "attempt"),
        one_of("transport", "answered", "not_sent", "unanswered"),
        one_of("body_encoding", "text", "base64"),
        positive("attempt"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int]
    transport: Mapped[str] = mapped_column(Text)
    http_status: Mapped[int | None]
    body: Mapped[str | None] = mapped_column(Text)
    body_encoding: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    command_id: Mapped[int | None] = mapped_column(BigInteger)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Judged(Chained, Base):
    """What one POST's reply was taken to mean, and by which rule."""

    __tablename__ = "verdicts"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id", "attempt"),
        one_of("verdict", "accepted", "transient", "throttled", "unauthorized", "refused", "ambiguous"),
        positive("attempt"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    attempt: Mapped[int]
    verdict: Mapped[str] = mapped_column(Text)
    command_id: Mapped[int | None] = mapped_column(BigInteger)
    failure_reason: Mapped[str | None] = mapped_column(Text)
    failure_text: Mapped[str | None] = mapped_column(Text)
    rule: Mapped[str] = mapped_column(Text)
    policy_version: Mapped[str] = mapped_column(Text)
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Looked(Chained, Base):
    """The order, or the report on a command, was read."""

    __tablename__ = "reads"
    __table_args__: tuple[SchemaItem, ...] = (
        index("job_id"),
        one_of("kind", "order", "command", "command_report"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    read_at: Mapped[datetime] = mapped_column(UtcDateTime)
    transport: Mapped[str] = mapped_column(Text)
    http_status: Mapped[int | None]
    found: Mapped[bool | None]
    status: Mapped[str | None] = mapped_column(Text)
    body: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)


class Ended(Chained, Base):
    """What became of the order, and what that rests on."""

    __tablename__ = "outcomes"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id"),
        index("finished_at"),
        one_of("outcome", "canceled", "filled", "gone", "refused", "accepted", "unresolved"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(Text)
    evidence: Mapped[str] = mapped_column(Text)
    detail: Mapped[str | None] = mapped_column(Text)
    filled_qty: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Found(Chained, Base):
    """A person found out what became of an order whose cancel ended unresolved."""

    __tablename__ = "findings"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("job_id", "finding_id"),
        one_of("finding", "canceled", "filled", "gone"),
    )
    job_id: Mapped[str] = mapped_column(Text)
    finding_id: Mapped[str] = mapped_column(Text)
    finding: Mapped[str] = mapped_column(Text)
    found_by: Mapped[str] = mapped_column(Text)
    because: Mapped[str] = mapped_column(Text)
    found_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Acted(Chained, Base):
    """An operator paused, resumed or drained the ledger; a mass cancel began, or came to its end."""

    __tablename__ = "actions"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("action_id"),
        index("acted_at"),
        one_of("action", "pause", "resume", "drain", "cancel_all", "cancel_all_end"),
    )
    action_id: Mapped[str] = mapped_column(Text)
    ledger: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    acted_by: Mapped[str] = mapped_column(Text)
    because: Mapped[str | None] = mapped_column(Text)
    acted_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Stamped(Chained, Base):
    """What this audit belongs to, said once: the exchange's base URL."""

    __tablename__ = "stamps"
    __table_args__: tuple[SchemaItem, ...] = (UniqueConstraint("name"),)
    name: Mapped[str] = mapped_column(Text)
    value: Mapped[str] = mapped_column(Text)
    stamped_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Conflicted(Chained, Base):
    """A row of a host's journal whose key another row had taken when it was carried over: kept whole, in its place.

    Its digest is that of the row it was, so the chain goes through it.
    """

    __tablename__ = "conflicts"
    __table_args__: tuple[SchemaItem, ...] = (index("subject"),)
    fact: Mapped[str] = mapped_column(Text)  # the table it was meant for
    subject: Mapped[str] = mapped_column(Text)  # its first column: the job, as a rule
    cells: Mapped[str] = mapped_column(Text)  # all its columns, a JSON list
