"""The stable query surface as first published; the same SQL on SQLite and PostgreSQL."""

# A process that died before it could say when it wrote leaves the start row's time.
AUDIT_ATTEMPTS = """
CREATE VIEW audit_attempts AS
SELECT s.job_id, s.attempt, j.account, j.order_id,
       v.command_id, v.failure_reason, v.failure_text,
       r.http_status, r.transport, v.verdict,
       CASE WHEN r.job_id IS NULL OR r.transport = 'unanswered' THEN coalesce(r.sent_at, s.started_at)
            ELSE r.sent_at END AS sent_at,
       r.answered_at,
       CAST(r.latency_us AS DOUBLE PRECISION) / 1000 AS latency_ms,
       s.worker, s.policy_version,
       s.started_at, v.rule, r.error, s.environment
FROM starts s
LEFT JOIN jobs j ON j.job_id = s.job_id
LEFT JOIN replies r ON r.job_id = s.job_id AND r.attempt = s.attempt
LEFT JOIN verdicts v ON v.job_id = s.job_id AND v.attempt = s.attempt
"""

AUDIT_JOBS = """
CREATE VIEW audit_jobs AS
SELECT j.job_id, j.account, j.order_id, j.cl_ord_id, j.requested_by, j.request_id,
       (SELECT count(*) FROM requests q WHERE q.job_id = j.job_id) AS joiners,
       j.enqueued_at,
       (SELECT min(a.sent_at) FROM audit_attempts a WHERE a.job_id = j.job_id) AS first_sent_at,
       o.finished_at,
       (SELECT count(*) FROM starts s WHERE s.job_id = j.job_id) AS attempts,
       (SELECT v.command_id FROM verdicts v WHERE v.job_id = j.job_id AND v.command_id IS NOT NULL
        ORDER BY v.attempt DESC LIMIT 1) AS command_id,
       o.outcome, o.evidence, j.redrive_of,
       o.detail, o.filled_qty, j.priority, j.deadline, j.environment
FROM jobs j
LEFT JOIN outcomes o ON o.job_id = j.job_id
"""

AUDIT_REQUESTS = """
CREATE VIEW audit_requests AS
SELECT request_id, job_id, requested_by, priority, deadline, enqueued_at AS requested_at, FALSE AS joined
FROM jobs
UNION ALL
SELECT request_id, job_id, requested_by, priority, deadline, requested_at, TRUE AS joined
FROM requests
"""

# In the order of creation: audit_jobs reads audit_attempts.
VIEWS = {"audit_attempts": AUDIT_ATTEMPTS, "audit_jobs": AUDIT_JOBS, "audit_requests": AUDIT_REQUESTS}
