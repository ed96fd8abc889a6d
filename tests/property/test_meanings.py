"""Whatever comes over the wire: it has one meaning, and a job that meets it ends, honestly."""

import json
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from worker.audit.facts import storable
from worker.clock import to_micros
from worker.job import CancelRequest, Evidence, Job, JobId, Memory, OrderId, Outcome, Step
from worker.policy import (
    PERMISSION_AGE,
    SESSION_CLOSED,
    UNREAD_REPOSTS,
    Again,
    Policy,
    after_read,
    after_reply,
    instead_of_post,
    may_post,
)
from worker.reasons import DEFAULT_TRANSIENT, RULES, Meaning
from worker.reply import Answered, NotSent, Unanswered
from worker.verdict import ENDS, MAX_ID, OrderState, Sight, Verdict, classify

NOW = datetime(2026, 11, 23, 20, 0, tzinfo=UTC)
REASONS = [name.removeprefix("reason:") for name in RULES if name.startswith("reason:")]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 1),
    st.integers(MAX_ID - 1, MAX_ID + 1),
    st.floats(),
    st.text(max_size=5),
) | st.sampled_from([[], {}, [1], {"a": 1}, "Success", *REASONS])
FIELDS = (
    "failureReason",
    "failureText",
    "commandId",
    "errorText",
    "violations",
    "p-ticket",
    "p-time",
    "p-captcha",
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), ODD)
STATUSES = st.sampled_from([200, 201, 204, 302, 400, 401, 403, 404, 408, 409, 423, 429, 500, 503, 700])


def answered(body: Any, status: int = 200) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(Answered(status=status, body=raw, sent_at=NOW, answered_at=NOW))


@given(st.binary(max_size=200), st.integers(100, 999))
def test_any_bytes_have_a_meaning_and_can_be_stored(body: bytes, status: int) -> None:
    verdict = answered(body, status)
    assert verdict.rule in RULES
    for text in (verdict.reason, verdict.text, verdict.ticket):
        storable(text or "").encode()


@given(BODIES, STATUSES)
@settings(max_examples=500, deadline=None)
def test_a_meaning_is_what_the_contract_says(body: dict[str, Any], status: int) -> None:
    """The contract's definitions, said a second time."""
    found = answered(body, status)
    command, reason = body.get("commandId"), body.get("failureReason")
    valid = isinstance(command, int) and not isinstance(command, bool) and 0 < command <= MAX_ID
    ok, complains = 200 <= status < 300, bool(body.get("errorText") or body.get("violations"))
    penalised = body.get("p-ticket") is not None or bool(body.get("p-captcha"))
    plain = reason in (None, "", "Success") and body.get("failureText") in (None, "") and not complains
    assert (found.meaning is Meaning.ACCEPTED) == (ok and valid and plain and not penalised)
    assert (found.meaning is Meaning.THROTTLED) == (penalised or status in {423, 429})
    assert found.command_id == (command if valid else None)
    if found.meaning is Meaning.TRANSIENT:
        assert (ok, command, reason in DEFAULT_TRANSIENT) == (True, None, True)
    if found.meaning is Meaning.REFUSED and ok:
        assert command is None


# --- a job's whole life

POLICY = Policy(
    transient=DEFAULT_TRANSIENT,
    max_attempts=6,
    retry_budget=timedelta(seconds=20),
    confirm=True,
    confirm_budget=timedelta(seconds=10),
    lockout=timedelta(seconds=30),
    jitter=lambda: 0.5,
)
REPLIES = st.lists(
    st.sampled_from(
        [
            *(answered({"failureReason": reason}) for reason in [*REASONS, "NewIn2027"]),
            *(answered({"commandId": 7, **more}) for more in ({}, {"failureReason": "TooLate"})),
            *(answered({}, status) for status in (302, 400, 401, 403, 404, 500)),
            answered({"p-ticket": "t", "p-time": 2}),
            classify(NotSent(error="refused")),
            classify(Unanswered(error="reset", sent_at=NOW, ended_at=NOW)),
        ]
    ),
    min_size=1,
    max_size=6,
)
TICKET = answered({"p-ticket": "t", "p-time": 2})
LOOKS = st.lists(
    st.tuples(
        st.sampled_from([*OrderState] + [OrderState.OPEN] * 6),
        st.sampled_from([None, None, None, "another's"]),
        st.sampled_from([None, None, *(answered({"failureReason": reason}) for reason in REASONS)]),
        st.sampled_from([None, TICKET]),
    ),
    min_size=1,
    max_size=6,
)


@given(REPLIES, LOOKS, st.none() | st.integers(0, 30))
@settings(max_examples=500, deadline=None)
def test_every_job_ends_and_claims_only_what_it_read(
    replies: list[Verdict], looks: list[Any], deadline: int | None
) -> None:
    """Played with a clock of its own: decide, wait, do the step; POSTs obey every rule on the way.

    But for a session that never opens: a wish without a deadline waits for it for ever.
    """
    assume(deadline is not None or any(reply.rule != SESSION_CLOSED for reply in replies))
    request = CancelRequest(
        account="A",
        order_id=OrderId(1),
        request_id="r",
        deadline=None if deadline is None else NOW + timedelta(seconds=deadline),
    )
    memory = Memory(first_claim_at=to_micros(NOW))
    job = Job(id=JobId("j"), request=request, enqueued_at=NOW, step=Step.POST, attempts=0, memory=memory)
    said, seen, now = cycle(replies), cycle(looks), NOW
    last: Any = None
    unread = 0
    for _ in range(500):
        if job.step is Step.POST and may_post(job, POLICY, now):
            _check_post(job, last, unread, now)
            now += timedelta(milliseconds=20)
            job, last = job._replace(attempts=job.attempts + 1), next(said)
            unread = unread + 1 if last.meaning is Meaning.TRANSIENT else 0
            decision: Any = after_reply(job, last, POLICY, now)
        elif job.step is Step.POST:
            decision = instead_of_post(job, now)
        else:
            last, unread = _sight(job, next(seen), now), 0
            decision = after_read(job, last, POLICY, now)
        if not isinstance(decision, Again):
            return _check_end(decision, last)
        job = job._replace(step=decision.step, memory=decision.memory)
        now += max(decision.delay, timedelta(milliseconds=1))
    raise AssertionError("no end")


def _sight(job: Job, look: Any, now: datetime) -> Sight:
    """Reports are asked for while an accepted cancel is pursued, penalties come in place of an order."""
    state, other, reject, throttled = look
    return Sight(
        state=state,
        asked_at=now,
        other_account=other,
        late_reject=reject if job.memory.pursuit == Meaning.ACCEPTED else None,
        throttled=throttled if state is OrderState.UNREAD else None,
    )


def _check_post(job: Job, last: Any, unread: int, now: datetime) -> None:
    """The first, one of three after a transient reply, or after a read that showed the order open, old enough."""
    assert job.request.deadline is None or now < job.request.deadline
    if isinstance(last, Sight):
        assert (last.state, last.other_account) == (OrderState.OPEN, None)
        answered_at = job.memory.last_answer_at
        assert answered_at is None or to_micros(last.asked_at) - answered_at >= PERMISSION_AGE // timedelta(
            microseconds=1
        )
    elif last is not None:
        assert last.meaning is Meaning.TRANSIENT
        assert unread <= UNREAD_REPOSTS


def _check_end(end: Any, last: Any) -> None:
    if end.evidence is Evidence.ORDER_READ:
        assert end.outcome is ENDS[last.state]
    else:
        assert end.outcome in {Outcome.REFUSED, Outcome.UNRESOLVED}
        assert not (isinstance(last, Sight) and last.state in ENDS)
