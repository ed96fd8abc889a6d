"""The audit: append-only tables of facts, their triggers, and the views to query."""

from typing import Any

from alembic import op
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Integer,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
)

from migrations.append_only import POSTGRESQL_DROP_FUNCTION, POSTGRESQL_FUNCTION, defend
from migrations.views_0001 import VIEWS

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

MOMENT = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
BYTEWISE_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
# Unique keys beside (writer, seq).
KEYS = {
    "jobs": ["job_id"],
    "requests": ["job_id,request_id"],
    "starts": ["job_id,attempt"],
    "replies": ["job_id,attempt"],
    "late_replies": ["job_id,attempt"],
    "verdicts": ["job_id,attempt"],
    "reads": [],
    "outcomes": ["job_id"],
    "findings": ["job_id,finding_id"],
    "actions": ["action_id"],
    "stamps": ["name"],
    "conflicts": [],
}


def upgrade() -> None:
    _create_jobs()
    _create_requests()
    _create_starts()
    _create_replies()
    _create_late_replies()
    _create_verdicts()
    _create_reads()
    _create_outcomes()
    _create_findings()
    _create_actions()
    _create_stamps()
    _create_conflicts()
    dialect = op.get_context().dialect.name
    if dialect == "postgresql":
        op.execute(POSTGRESQL_FUNCTION)
    for table, keys in KEYS.items():
        for statement in defend(dialect, table, ["writer,seq", *keys]):
            op.execute(statement)
    for view in VIEWS.values():
        op.execute(view)


def downgrade() -> None:
    for view in reversed(VIEWS):
        op.execute(f"DROP VIEW {view}")
    for table in reversed(KEYS):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute(POSTGRESQL_DROP_FUNCTION)


def _table(name: str, *columns: Column[object], checks: dict[str, str]) -> None:
    op.create_table(
        name,
        Column("writer", BYTEWISE_TEXT, nullable=False),
        Column("seq", BigInteger, nullable=False, autoincrement=False),
        Column("prev", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("environment", Text, nullable=False),
        *columns,
        PrimaryKeyConstraint("writer", "seq", name=op.f(f"pk_{name}")),
        *(CheckConstraint(rule, name=op.f(f"ck_{name}_{column}")) for column, rule in checks.items()),
        *(
            UniqueConstraint(*key.split(","), name=op.f(f"uq_{name}_{key.replace(',', '_')}"))
            for key in KEYS[name]
        ),
    )


def _known(name: str, kind: Any) -> Column[object]:
    return Column(name, kind, nullable=False)


def _maybe(name: str, kind: Any) -> Column[object]:
    return Column(name, kind, nullable=True)


def _create_jobs() -> None:
    _table(
        "jobs",
        _known("job_id", Text),
        _known("account", Text),
        _known("order_id", BigInteger),
        _maybe("cl_ord_id", Text),
        _maybe("activation_time", MOMENT),
        _maybe("custom_tag50", Text),
        _known("is_automated", Boolean),
        _maybe("requested_by", Text),
        _known("request_id", Text),
        _known("priority", Text),
        _maybe("deadline", MOMENT),
        _known("enqueued_at", MOMENT),
        _maybe("redrive_of", Text),
        checks={"priority": "priority IN ('urgent', 'normal')", "order_id": "order_id > 0"},
    )
    op.create_index(op.f("ix_jobs_order_id_account"), "jobs", ["order_id", "account"])
    op.create_index(op.f("ix_jobs_enqueued_at"), "jobs", ["enqueued_at"])
    op.create_index(op.f("ix_jobs_redrive_of"), "jobs", ["redrive_of"])


def _create_requests() -> None:
    _table(
        "requests",
        _known("job_id", Text),
        _known("request_id", Text),
        _maybe("requested_by", Text),
        _known("priority", Text),
        _maybe("deadline", MOMENT),
        _known("requested_at", MOMENT),
        _maybe("activation_time", MOMENT),
        checks={"priority": "priority IN ('urgent', 'normal')"},
    )


def _create_starts() -> None:
    _table(
        "starts",
        _known("job_id", Text),
        _known("attempt", Integer),
        _known("worker", Text),
        _known("started_at", MOMENT),
        _known("policy_version", Text),
        _known("body", Text),
        checks={"attempt": "attempt > 0"},
    )


def _create_replies() -> None:
    _table(
        "replies",
        _known("job_id", Text),
        _known("attempt", Integer),
        _known("transport", Text),
        _maybe("http_status", Integer),
        _maybe("body", Text),
        _maybe("body_encoding", Text),
        _maybe("error", Text),
        _maybe("sent_at", MOMENT),
        _maybe("answered_at", MOMENT),
        _maybe("latency_us", BigInteger),
        _known("recorded_at", MOMENT),
        checks={
            "transport": "transport IN ('answered', 'not_sent', 'unanswered')",
            "body_encoding": "body_encoding IN ('text', 'base64')",
            "attempt": "attempt > 0",
        },
    )


def _create_late_replies() -> None:
    _table(
        "late_replies",
        _known("job_id", Text),
        _known("attempt", Integer),
        _known("transport", Text),
        _maybe("http_status", Integer),
        _maybe("body", Text),
        _maybe("body_encoding", Text),
        _maybe("error", Text),
        _maybe("sent_at", MOMENT),
        _maybe("answered_at", MOMENT),
        _maybe("command_id", BigInteger),
        _known("recorded_at", MOMENT),
        checks={
            "transport": "transport IN ('answered', 'not_sent', 'unanswered')",
            "body_encoding": "body_encoding IN ('text', 'base64')",
            "attempt": "attempt > 0",
        },
    )


def _create_verdicts() -> None:
    words = "'accepted', 'transient', 'throttled', 'unauthorized', 'refused', 'ambiguous'"
    _table(
        "verdicts",
        _known("job_id", Text),
        _known("attempt", Integer),
        _known("verdict", Text),
        _maybe("command_id", BigInteger),
        _maybe("failure_reason", Text),
        _maybe("failure_text", Text),
        _known("rule", Text),
        _known("policy_version", Text),
        _known("decided_at", MOMENT),
        checks={"verdict": f"verdict IN ({words})", "attempt": "attempt > 0"},
    )


def _create_reads() -> None:
    _table(
        "reads",
        _known("job_id", Text),
        _known("kind", Text),
        _known("read_at", MOMENT),
        _known("transport", Text),
        _maybe("http_status", Integer),
        _maybe("found", Boolean),
        _maybe("status", Text),
        _maybe("body", Text),
        _maybe("error", Text),
        checks={"kind": "kind IN ('order', 'command', 'command_report')"},
    )
    op.create_index(op.f("ix_reads_job_id"), "reads", ["job_id"])


def _create_outcomes() -> None:
    words = "'canceled', 'filled', 'gone', 'refused', 'accepted', 'unresolved'"
    _table(
        "outcomes",
        _known("job_id", Text),
        _known("outcome", Text),
        _known("evidence", Text),
        _maybe("detail", Text),
        _maybe("filled_qty", BigInteger),
        _known("finished_at", MOMENT),
        checks={"outcome": f"outcome IN ({words})"},
    )
    op.create_index(op.f("ix_outcomes_finished_at"), "outcomes", ["finished_at"])


def _create_findings() -> None:
    _table(
        "findings",
        _known("job_id", Text),
        _known("finding_id", Text),
        _known("finding", Text),
        _known("found_by", Text),
        _known("because", Text),
        _known("found_at", MOMENT),
        checks={"finding": "finding IN ('canceled', 'filled', 'gone')"},
    )


def _create_actions() -> None:
    _table(
        "actions",
        _known("action_id", Text),
        _known("ledger", Text),
        _known("action", Text),
        _known("acted_by", Text),
        _maybe("because", Text),
        _known("acted_at", MOMENT),
        checks={"action": "action IN ('pause', 'resume', 'drain', 'cancel_all', 'cancel_all_end')"},
    )
    op.create_index(op.f("ix_actions_acted_at"), "actions", ["acted_at"])


def _create_stamps() -> None:
    _table(
        "stamps",
        _known("name", Text),
        _known("value", Text),
        _known("stamped_at", MOMENT),
        checks={},
    )


def _create_conflicts() -> None:
    _table(
        "conflicts",
        _known("fact", Text),
        _known("subject", Text),
        _known("cells", Text),
        checks={},
    )
    op.create_index(op.f("ix_conflicts_subject"), "conflicts", ["subject"])
