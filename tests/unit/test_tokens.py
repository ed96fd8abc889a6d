"""What no budget counts, what an answer for a token means, and when the present token is given up. No I/O."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.test_policy import NOW, POLICY, SECOND, again, end, job, said, sight
from worker.clock import monotonic, to_micros
from worker.exchange.token import Bearer, Denied, Granted, Penalised, Token, Unclear, granted
from worker.job import Evidence, Memory, Outcome, Step
from worker.policy import (
    Again,
    Idle,
    after_read,
    after_reply,
    may_post,
    resumed,
    token_proven,
    token_refused,
    unserved,
    without_token,
)
from worker.reply import Answered, NotSent, Reply, Unanswered
from worker.secret import SecretStr
from worker.verdict import OrderState
from worker.work.keeper import renew_in

MINUTE = timedelta(minutes=1)

# ------------------------------------------------------------------------------------------------ budgets


def test_no_budget_counts_the_wait_for_a_token() -> None:
    before = job(proof_since=to_micros(NOW))
    waiting = again(without_token(before, SECOND, NOW))
    assert (waiting.step, waiting.delay) == (Step.POST, SECOND)
    after = resumed(waiting.memory, NOW + 60 * MINUTE, Idle())
    hour = to_micros(NOW + 60 * MINUTE) - to_micros(NOW)
    assert (after.first_claim_at or 0) - (before.memory.first_claim_at or 0) == hour
    assert (after.proof_since or 0) - to_micros(NOW) == hour
    assert after.waiting_since is None


def test_a_lock_out_within_the_wait_for_a_token_is_given_back_once() -> None:
    memory = again(without_token(job(), SECOND, NOW)).memory
    span = 10 * 60 * 1_000_000
    after = resumed(memory, NOW + 60 * MINUTE, Idle(held=span))
    assert (after.first_claim_at or 0) - (memory.first_claim_at or 0) == 60 * 60 * 1_000_000


def test_a_refused_token_costs_the_order_neither_a_try_nor_time() -> None:
    decision = again(after_reply(job(attempts=1), said(status=401), POLICY, NOW))
    assert decision.step is Step.RECONCILE
    memory = decision.memory
    assert memory.first_claim_at == to_micros(NOW - 5 * SECOND + decision.delay)
    last = POLICY.max_attempts
    assert may_post(job(attempts=last, unauthorized=1), POLICY, NOW)
    assert not may_post(job(attempts=last), POLICY, NOW)


def test_after_a_refused_token_a_cancel_takes_a_newer_one_unless_a_read_proves_the_old_one() -> None:
    memory = token_refused(Memory(), 2)
    assert memory.token_floor == 3
    assert token_proven(memory, 3).token_floor == token_proven(memory, 7).token_floor == 3
    assert token_proven(memory, 2).token_floor == 0


@pytest.mark.parametrize(("proven_by", "posted"), [(3, True), (2, False)])
def test_a_bad_request_is_tried_again_once_a_newer_token_was_proven(proven_by: int, posted: bool) -> None:  # noqa: FBT001
    refused = again(after_reply(job(), said(status=400), POLICY, NOW))
    memory = token_proven(token_refused(refused.memory, 2), proven_by)
    later = NOW + 3 * SECOND
    decision = after_read(job()._replace(memory=memory), sight(OrderState.OPEN, at=later), POLICY, later)
    assert (isinstance(decision, Again) and decision.step is Step.POST) is posted
    assert posted or end(decision).outcome is Outcome.REFUSED


def test_an_account_without_a_login_is_refused_if_nothing_was_sent_and_read_elsewhere_if_something_was() -> (
    None
):
    assert again(unserved(job(attempts=0), POLICY, NOW)).step is Step.POST
    late = NOW + POLICY.retry_budget
    ended = end(unserved(job(attempts=0), POLICY, late))
    assert (ended.outcome, ended.evidence) == (Outcome.REFUSED, Evidence.OTHER_ACCOUNT)
    assert "no login serves the account A" in ended.detail
    sent: dict[str, Any] = {"last_answer_at": to_micros(NOW), "maybe_acted": True, "reads": 3}
    assert again(unserved(job(**sent), POLICY, late)).step is Step.CONFIRM
    spent = job(**sent, proof_since=to_micros(NOW))
    assert end(unserved(spent, POLICY, late)).outcome is Outcome.UNRESOLVED


# ------------------------------------------------------------------------------------------------ answers


def answer(body: object, status: int = 200, **headers: str) -> Answered:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answered(status=status, body=text, headers=headers, sent_at=NOW, answered_at=NOW)


def token(end_in: timedelta, **more: object) -> dict[str, object]:
    return {"accessToken": "t", "expirationTime": (NOW + end_in).isoformat(), **more}


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (answer(token(90 * MINUTE)), Granted(SecretStr("t"), 90 * MINUTE)),
        (answer({"accessToken": "t"}), Granted(SecretStr("t"), 90 * MINUTE)),
        (answer({"accessToken": "t", "expirationTime": "soon"}), Granted(SecretStr("t"), 90 * MINUTE)),
        (answer(token(timedelta(days=900))), Granted(SecretStr("t"), timedelta(days=7))),
        # By the exchange's clock: this host's is an hour ahead of it.
        (
            answer(token(30 * MINUTE), date="Mon, 23 Nov 2026 19:00:00 GMT"),
            Granted(SecretStr("t"), 90 * MINUTE),
        ),
        (answer(token(90 * MINUTE, errorText="no")), Denied("no")),
        (answer({"errorText": "Incorrect password"}), Denied("Incorrect password")),
        *((answer(b"", status), Denied(f"HTTP {status}")) for status in (400, 401, 403, 404)),
        (answer({"p-ticket": "x", "p-time": 9}), Penalised("p-time 9", timedelta(seconds=9), "x")),
        (answer({"p-ticket": "x", "p-captcha": True}), Penalised("body:p-captcha", None)),
        *((answer(b"", status), Penalised(f"http:{status}", None)) for status in (423, 429)),
    ],
)
def test_an_answer_for_a_token_is_one_of_four_things(reply: Reply, meaning: object) -> None:
    assert granted(reply) == meaning


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        (NotSent(error="refused"), False),
        (Unanswered(error="reset", sent_at=NOW, ended_at=NOW), True),
        *((answer(b"", status), True) for status in (302, 408, 500, 503)),
        (answer({}), True),
        (answer(b"<html>"), True),
        (answer({"accessToken": "two words"}), True),
        (answer({"accessToken": 7}), True),
        (answer(token(-MINUTE)), True),
    ],
)
def test_anything_else_says_nothing(reply: Reply, sent: bool) -> None:  # noqa: FBT001
    found = granted(reply)
    assert isinstance(found, Unclear)
    assert found.sent is sent


@pytest.mark.parametrize(("life", "renewed"), [(90, 75), (20, 10), (24 * 60, 24 * 60 * 0.85), (1, 0.5)])
def test_a_token_is_renewed_well_before_its_end(life: float, renewed: float) -> None:
    assert renew_in(life * MINUTE) == renewed * MINUTE


# ----------------------------------------------------------------------------------------------- the bearer


def bearer(revision: int = 1) -> tuple[Bearer, Token]:
    held = Bearer()
    given = Token(value=SecretStr("t"), revision=revision, ends=monotonic() + 90 * MINUTE)
    held.take(given)
    return held, given


def test_a_read_that_is_refused_ends_a_token_and_a_cancel_that_is_refused_does_not() -> None:
    held, given = bearer()
    held.heard(given, answer(b"", 401), read=False)
    assert held.token() is given
    held.heard(given, answer(b"", 401), read=True)
    assert (held.token(), held.is_refused) == (None, True)
    held.take(given)
    held.heard(given, answer(b"", 400), read=True)  # a new token is not what is wrong
    assert held.token() is given
    held._settled_at = monotonic() - 10 * MINUTE
    held.heard(given, answer(b"", 400), read=True)
    assert held.is_refused
    held.take(Token(value=SecretStr("u"), revision=2, ends=monotonic() + MINUTE))
    held.heard(given, answer(b"", 401), read=True)  # an answer that was late
    assert held.token() is not None


def test_a_token_is_not_sent_beyond_its_end_and_a_fixed_one_has_none() -> None:
    held = Bearer()
    held.take(Token(value=SecretStr("t"), revision=1, ends=monotonic()))
    assert held.token() is None
    fixed = Bearer.fixed(SecretStr("t"))
    given = fixed.token()
    assert given is not None
    fixed.heard(given, answer(b"", 401), read=True)
    assert fixed.token() is given


def test_a_session_is_doubted_after_many_time_outs_and_no_good_answer_for_long() -> None:
    held, given = bearer()
    held._settled_at = monotonic() - 10 * MINUTE
    for status in (408, 500, 503, 502, 408):
        held.heard(given, answer(b"", status), read=True)
    assert not held.is_doubtful  # the last good answer is too young
    held._good_at = monotonic() - MINUTE
    assert held.is_doubtful
    assert held.token() is given  # it is sent all the same
    held.heard(given, answer({}), read=True)
    assert not held.is_doubtful


def test_nobody_waits_for_a_token_in_small_steps_for_long() -> None:
    held = Bearer()
    assert held.token() is None
    assert held.patience == timedelta(milliseconds=250)
    held.expect(timedelta(seconds=5))
    assert timedelta(seconds=4) < held.patience <= timedelta(seconds=5)
    held.expect(60 * MINUTE)
    assert held.patience == timedelta(seconds=15)


def test_no_word_shows_a_token() -> None:
    held, given = bearer()
    shown = repr([held, given, granted(answer({"accessToken": "hunter2"})), datetime.now(UTC)])
    assert "hunter2" not in shown
    assert "'t'" not in shown
