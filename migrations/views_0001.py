"""The stable query surface as first published; the same SQL on SQLite and PostgreSQL."""

# A process that died before it could say when it wrote leaves the start row's time.
AUDIT_ATTEMPTS = """
CREATE VIEW audit_attempts AS
SELECT s.job_id, s.attempt, j.account, j.order_id,
       coalesce(v.command_id, l.command_id) AS command_id, v.failure_reason, v.failure_text,
       r.http_status, r.transport, v.verdict,
       CASE WHEN r.job_id IS NULL OR r.transport = 'unanswered' THEN coalesce(r.sent_at, s.started_at)
            ELSE r.sent_at END AS sent_at,
       r.answered_at,
       CAST(r.latency_us AS DOUBLE PRECISION) / 1000 AS latency_ms,
       s.worker, s.policy_version,
       s.started_at, v.rule, r.error, s.environment, l.answered_at AS answered_late_at
FROM starts s
LEFT JOIN jobs j ON j.job_id = s.job_id
LEFT JOIN replies r ON r.job_id = s.job_id AND r.attempt = s.attempt
LEFT JOIN verdicts v ON v.job_id = s.job_id AND v.attempt = s.attempt
LEFT JOIN late_replies l ON l.job_id = s.job_id AND l.attempt = s.attempt
"""

AUDIT_JOBS = """
CREATE VIEW audit_jobs AS
SELECT j.job_id, j.account, j.order_id, j.cl_ord_id, j.requested_by, j.request_id,
       (SELECT count(*) FROM requests q WHERE q.job_id = j.job_id) AS joiners,
       j.enqueued_at,
       (SELECT min(a.sent_at) FROM audit_attempts a WHERE a.job_id = j.job_id) AS first_sent_at,
       o.finished_at,
       (SELECT count(*) FROM starts s WHERE s.job_id = j.job_id) AS attempts,
       (SELECT a.command_id FROM audit_attempts a WHERE a.job_id = j.job_id AND a.command_id IS NOT NULL
        ORDER BY a.attempt DESC LIMIT 1) AS command_id,
       o.outcome, o.evidence, j.redrive_of,
       o.detail, o.filled_qty, j.priority, j.deadline, j.environment,
       f.finding AS resolved_as, f.found_by AS resolved_by, f.found_at AS resolved_at, f.because AS resolved_because
FROM jobs j
LEFT JOIN outcomes o ON o.job_id = j.job_id
LEFT JOIN findings f ON f.job_id = j.job_id AND NOT EXISTS
    (SELECT 1 FROM findings g WHERE g.job_id = f.job_id
     AND (g.found_at > f.found_at OR (g.found_at = f.found_at AND g.finding_id > f.finding_id)))
"""

AUDIT_REQUESTS = """
CREATE VIEW audit_requests AS
SELECT request_id, job_id, requested_by, priority, deadline, enqueued_at AS requested_at, FALSE AS joined
FROM jobs
UNION ALL
SELECT request_id, job_id, requested_by, priority, deadline, requested_at, TRUE AS joined
FROM requests
"""

# What people did: with the whole ledger, or about one job.
AUDIT_ACTIONS = """
CREATE VIEW audit_actions AS
SELECT action, acted_by, acted_at, because, ledger, NULL AS job_id, environment FROM actions
UNION ALL
SELECT 'resolve', found_by, found_at, because, NULL, job_id, environment FROM findings
UNION ALL
SELECT 'redrive', requested_by, enqueued_at, NULL, NULL, job_id, environment FROM jobs WHERE redrive_of IS NOT NULL
"""

# Two POSTs of one order in flight at once: a process that was frozen after its bytes had left, and the next holder.
# Such an answer comes late, so nothing else has to be looked at; where none came its end is when that was noted.
AUDIT_OVERLAPS = """
CREATE VIEW audit_overlaps AS
SELECT j.account, j.order_id, l.job_id, l.attempt, l.sent_at, coalesce(l.answered_at, l.recorded_at) AS answered_at,
       a.job_id AS other_job_id, a.attempt AS other_attempt, a.sent_at AS other_sent_at,
       a.answered_at AS other_answered_at, s.environment
FROM late_replies l
JOIN jobs j ON j.job_id = l.job_id
JOIN starts s ON s.job_id = l.job_id AND s.attempt = l.attempt
JOIN audit_attempts a ON a.order_id = j.order_id AND a.account = j.account
    AND (a.job_id <> l.job_id OR a.attempt <> l.attempt)
WHERE a.sent_at < coalesce(l.answered_at, l.recorded_at)
  AND coalesce(a.answered_at, a.answered_late_at, a.sent_at) > l.sent_at
"""

# In the order of creation: audit_jobs reads audit_attempts.
VIEWS = {
    "audit_attempts": AUDIT_ATTEMPTS,
    "audit_jobs": AUDIT_JOBS,
    "audit_requests": AUDIT_REQUESTS,
    "audit_actions": AUDIT_ACTIONS,
    "audit_overlaps": AUDIT_OVERLAPS,
}
