"""The published views as tables to select from; their SQL lives with the migrations."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, MetaData, Table, Text

from models import UtcDateTime

_VIEWS = MetaData()

audit_attempts = Table(
    "audit_attempts",
    _VIEWS,
    Column("job_id", Text),
    Column("attempt", Integer),
    Column("account", Text),
    Column("order_id", BigInteger),
    Column("command_id", BigInteger),
    Column("failure_reason", Text),
    Column("failure_text", Text),
    Column("http_status", Integer),
    Column("transport", Text),
    Column("verdict", Text),
    Column("sent_at", UtcDateTime),
    Column("answered_at", UtcDateTime),
    Column("latency_ms", Float),
    Column("worker", Text),
    Column("policy_version", Text),
    Column("started_at", UtcDateTime),
    Column("rule", Text),
    Column("error", Text),
    Column("environment", Text),
    Column("answered_late_at", UtcDateTime),
)

audit_jobs = Table(
    "audit_jobs",
    _VIEWS,
    Column("job_id", Text),
    Column("account", Text),
    Column("order_id", BigInteger),
    Column("cl_ord_id", Text),
    Column("requested_by", Text),
    Column("request_id", Text),
    Column("joiners", Integer),
    Column("enqueued_at", UtcDateTime),
    Column("first_sent_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("attempts", Integer),
    Column("command_id", BigInteger),
    Column("outcome", Text),
    Column("evidence", Text),
    Column("redrive_of", Text),
    Column("detail", Text),
    Column("filled_qty", BigInteger),
    Column("priority", Text),
    Column("deadline", UtcDateTime),
    Column("environment", Text),
    Column("resolved_as", Text),
    Column("resolved_by", Text),
    Column("resolved_at", UtcDateTime),
    Column("resolved_because", Text),
)

audit_requests = Table(
    "audit_requests",
    _VIEWS,
    Column("request_id", Text),
    Column("job_id", Text),
    Column("requested_by", Text),
    Column("priority", Text),
    Column("deadline", UtcDateTime),
    Column("requested_at", UtcDateTime),
    Column("joined", Boolean),
)

audit_overlaps = Table(
    "audit_overlaps",
    _VIEWS,
    Column("account", Text),
    Column("order_id", BigInteger),
    Column("job_id", Text),
    Column("attempt", Integer),
    Column("sent_at", UtcDateTime),
    Column("answered_at", UtcDateTime),
    Column("other_job_id", Text),
    Column("other_attempt", Integer),
    Column("other_sent_at", UtcDateTime),
    Column("other_answered_at", UtcDateTime),
    Column("environment", Text),
)

audit_actions = Table(
    "audit_actions",
    _VIEWS,
    Column("action", Text),
    Column("acted_by", Text),
    Column("acted_at", UtcDateTime),
    Column("because", Text),
    Column("ledger", Text),
    Column("job_id", Text),
    Column("environment", Text),
)
