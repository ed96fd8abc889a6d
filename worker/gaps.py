"""The gaps of a cancel's life: where a crash leaves work half done. Each has a name, so that dying there can be tried.

In production nobody listens and reaching a gap does nothing: no setting, no variable and no command changes that.
"""

from collections.abc import Callable
from enum import StrEnum


class Gap(StrEnum):
    """What has just happened; beside it, what a crash leaves. `docs/life-of-a-cancel.md` says what mends it."""

    # enqueue
    ENQUEUE_SENT = "enqueue-sent"  # a producer that does not know whether its request is stored
    SPOOLED = "spooled"  # a request in a file, whose producer does not know that it is kept
    SPOOL_SENT = "spool-sent"  # requests that are in the ledger, and in the file still
    SPOOL_POINTED = (
        "spool-pointed"  # a file whose first line tells of what was sent on, and that still has it
    )
    # bell and claim
    BELL_TAKEN = "bell-taken"  # due work whose bell nobody answers
    CLAIMED = "claimed"  # a lease whose holder knows nothing of it
    # write-ahead
    START_DUE = "start-due"  # a lease, and no row
    START_ON_DISK = "start-on-disk"  # a start row, and nothing on the wire
    # POST
    PERMITTED = "permitted"  # the same, an open connection beside it
    REQUEST_DUE = "request-due"  # the last check passed, and nothing on the wire
    REQUEST_SENT = "request-sent"  # the one true unknown
    ANSWER_HALF_READ = "answer-half-read"  # the same
    LOCK_OUT_SET = "lock-out-set"  # a login that is held, and the answer that said so nowhere but in memory
    ANSWERED = "answered"  # the same: the answer was nowhere but in memory
    # reply row, verdict, decision
    REPLY_ON_DISK = "reply-on-disk"  # an answer and its verdict; what follows was nowhere but in memory
    RETRY_IN_HAND = "retry-in-hand"  # a decision to POST again that only memory knew
    LATE_REPLY_DUE = "late-reply-due"  # an answer for which another holder has written "worker lost"
    # settle
    DECIDED = "decided"  # a decision that only memory knew
    VERDICT_ON_DISK = "verdict-on-disk"  # a verdict in SQL of which the ledger was not told
    SETTLED = "settled"  # a job that waits, in an index, for its time
    # read
    STORY_READ = "story-read"  # a lapsed job, taken over by a holder that vanished too
    ORDER_READ = "order-read"  # a read that has no row
    COMMANDS_READ = "commands-read"  # the same
    REPORTS_READ = "reports-read"  # the same
    FILLS_READ = "fills-read"  # an end that was seen and not recorded
    # close, outcome, finish
    CLOSED = "closed"  # an end in the ledger without an outcome row
    OUTCOME_ON_DISK = "outcome-on-disk"  # an outcome row, and a ledger that still says closing
    FINISHED = "finished"  # nothing to mend
    # every commit
    BATCH_DUE = "batch-due"  # rows that were written and not committed
    BATCH_ON_DISK = "batch-on-disk"  # committed rows whose writers never heard of it
    # the journal, while the database is away
    JOURNAL_TOLD = "journal-told"  # a ledger that knows of a journal in which nothing is
    JOURNAL_DUE = "journal-due"  # rows that were written into the journal and not committed
    JOURNAL_ON_DISK = "journal-on-disk"  # rows of which only this host knows
    CARRIED = "carried"  # rows that are in the database and in the journal
    JOURNAL_CLEARED = "journal-cleared"  # a worker that still takes the database to be away
    LEFT_OPEN = "left-open"  # attempts of an ended job that came with a journal, and that nobody has closed
    # beside the path
    RENEWED = "renewed"  # leases that were just prolonged for a process that is gone
    SWEPT = "swept"  # a sweep that nobody speaks of for the next 200 ms
    UNREGISTERED_READ = "unregistered-read"  # jobs that the audit still does not know
    REGISTERED_ON_DISK = "registered-on-disk"  # jobs that the audit knows and the ledger offers again
    ACTION_ON_DISK = "action-on-disk"  # the same, of what a person did
    WITNESS_DUE = "witness-due"  # a chain's end that the ledger was not told of
    COMPARISON_BEGUN = "comparison-begun"  # a held ledger, and a note that somebody compares
    PUT_BACK = "put-back"  # the same, some of the lost jobs back
    ALERT_TAKEN = "alert-taken"  # an alert that was not sent, and comes back
    ALERT_SENT = "alert-sent"  # an alert that was sent, and comes twice
    GRANT_DUE = "grant-due"  # the right to ask for a token, and nobody asks
    GRANTED = "granted"  # a session whose token nobody knows
    SHELVED = "shelved"  # nothing to mend
    # a worker's start and end, and commands
    SIGNED_ON = "signed-on"  # a worker that the ledger counts for 20 s more
    SENDERS_ENDED = "senders-ended"  # the last decisions, perhaps not settled
    SCHEMA_STEP_DONE = "schema-step-done"  # an open transaction of schema changes
    SCHEMA_ON_DISK = "schema-on-disk"  # a new schema, and a ledger without its functions
    FINDING_ON_DISK = "finding-on-disk"  # a person's finding whose chain the ledger does not know
    REDRIVEN = "redriven"  # a new job whose id nobody was told
    # a mass cancel
    MASS_BEGUN = "mass-begun"  # a wish for a whole account, and no order known
    MASS_NOTED = "mass-noted"  # orders that were seen open, and no job
    MASS_SENT = "mass-sent"  # jobs, and nobody who looks for what appeared since
    MASS_ENDED = "mass-ended"  # an end on record whose sheet nobody has


# Set by the tests' own entry point, in a process of its own, before the program runs.
observer: Callable[[Gap], None] | None = None


def reached(gap: Gap) -> None:
    """Stand at a gap: nothing happens, some tens of nanoseconds long."""
    if observer is not None:
        observer(gap)
