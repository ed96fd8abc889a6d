"""What we do next: pure decisions over (job, what was just learned, the time). Nothing here does anything."""

from worker.policy.budgets import (
    Idle,
    held_up,
    instead_of_post,
    is_transient,
    may_post,
    resumed,
    token_proven,
    token_refused,
    without_token,
)
from worker.policy.decisions import (
    PERMISSION_AGE,
    READ_WAITS,
    SESSION_CLOSED,
    Again,
    Decision,
    End,
    Hold,
    Policy,
    hold_of,
    policy_from,
)
from worker.policy.reads import after_read, unasked, unserved
from worker.policy.replies import UNREAD_REPOSTS, after_reply, armed_for, label_of

__all__ = [
    "PERMISSION_AGE",
    "READ_WAITS",
    "SESSION_CLOSED",
    "UNREAD_REPOSTS",
    "Again",
    "Decision",
    "End",
    "Hold",
    "Idle",
    "Policy",
    "after_read",
    "after_reply",
    "armed_for",
    "held_up",
    "hold_of",
    "instead_of_post",
    "is_transient",
    "label_of",
    "may_post",
    "policy_from",
    "resumed",
    "token_proven",
    "token_refused",
    "unasked",
    "unserved",
    "without_token",
]
