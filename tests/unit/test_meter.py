"""What is counted and timed, and that no label comes from outside."""

from itertools import product

import pytest
from prometheus_client import generate_latest

from tests.parts.cancels import answered, at, unanswered
from tests.parts.happenings import again, claimed, ended, named, replied, swept
from worker.app.metrics import Meter, Stage, reason_label
from worker.job import Evidence, Memory, Outcome
from worker.reasons import RULES, Meaning
from worker.reply import Answered, NotSent
from worker.verdict import classify

ODD = b'{"failureReason":"%s"}'


@pytest.fixture
def meter() -> Meter:
    return Meter(ledger="cancelq")


def sums(meter: Meter) -> dict[str, float]:
    found = {s: meter.registry.get_sample_value("cancelq_stage_seconds_sum", {"stage": s}) for s in Stage}
    return {stage: round(value, 4) for stage, value in found.items() if value}


def test_each_stage_of_a_cancel_is_timed(meter: Meter) -> None:
    job = named("job-1")
    fresh = claimed(job._replace(memory=Memory()))
    for happening in (fresh, replied(job), ended(job)):
        meter(happening)
    assert sums(meter) == {"claim": 0.002, "wire": 0.001, "answer": 0.0305, "proof": 0.9695, "whole": 1.004}


def test_a_later_claim_of_a_job_is_not_its_first(meter: Meter) -> None:
    job = named("job-1")
    meter(claimed(job._replace(memory=Memory(first_claim_at=1))))
    assert sums(meter) == {}


@pytest.mark.parametrize("reply", [NotSent(error="refused"), unanswered(sent=None)])
def test_what_never_was_on_the_wire_has_no_time_there(meter: Meter, reply: NotSent) -> None:
    meter(replied(named("job-1"), reply))
    assert sums(meter) == {}


def test_an_unanswered_post_is_timed_to_its_end(meter: Meter) -> None:
    meter(replied(named("job-1"), unanswered(sent=4)))
    assert "answer" in sums(meter)


def test_clocks_that_disagree_do_not_spoil_a_sum(meter: Meter) -> None:
    meter(replied(named("job-1"), answered(sent=1, took=1)))
    assert sums(meter) == {"answer": 0.001}


def test_attempts_and_outcomes_are_counted_by_the_words_of_the_contract(meter: Meter) -> None:
    for happening in (replied(named("job-1")), ended(named("job-1"), Outcome.REFUSED), swept(lapsed=3)):
        meter(happening)
    value = meter.registry.get_sample_value
    assert value("cancelq_attempts_total", {"verdict": "accepted", "reason": "missing"}) == 1
    assert value("cancelq_outcomes_total", {"outcome": "refused", "evidence": "order_read"}) == 1
    assert value("cancelq_lapsed_total") == 3


def test_no_text_of_an_answer_becomes_a_label(meter: Meter) -> None:
    for nth in range(300):
        meter(replied(named("job-1"), answered(ODD % b"Reason%d" % nth)))
    assert b"Reason1" not in generate_latest(meter.registry)
    labels = {
        reason_label(classify(answered(ODD % word)).rule) for word in (b"Odd", b"TooLate", b'Two"words')
    }
    assert labels == {"unlisted", "TooLate", "body:unreadable"}


def test_a_reason_that_only_configuration_knows_is_other() -> None:
    verdict = classify(answered(ODD % b"MyOwn"), frozenset({"MyOwn"}))
    assert reason_label(verdict.rule) == "other"


def test_the_number_of_series_is_bounded() -> None:
    assert len(RULES) * 6 + len(list(product(Outcome, Evidence))) < 600


def test_a_decision_to_come_back_is_no_outcome(meter: Meter) -> None:
    before = counts(meter)
    meter(again(named("job-1")))
    assert counts(meter) == before


def test_what_alerts_look_at_is_there_before_it_happens(meter: Meter) -> None:
    fresh = counts(meter)
    assert set(fresh.values()) == {0}
    for outcome in Outcome:
        meter(ended(named("job-1"), outcome))
    refused = [rule.name for rule in RULES.values() if rule.meaning is Meaning.REFUSED]
    for rule in refused:
        meter(replied(named("job-1"), refusal(rule)))
    known = counts(meter)
    assert known.keys() == fresh.keys()
    assert sum(known.values()) == len(Outcome) + len(refused)


def counts(meter: Meter) -> dict[tuple[str, ...], float]:
    """The series of outcomes and of refused attempts, which page a person."""
    samples = [one for family in meter.registry.collect() for one in family.samples]
    return {
        (one.name, *sorted(one.labels.values())): one.value
        for one in samples
        if one.name == "cancelq_outcomes_total" or one.labels.get("verdict") == Meaning.REFUSED
    }


def refusal(rule: str) -> Answered:
    """An answer of which this line of the table speaks."""
    kind, _, word = rule.partition(":")
    if kind == "http":
        return Answered(status=int(word), body=b"{}", sent_at=at(4), answered_at=at(5))
    if word == "access-denied":
        body = b'{"failureReason":"UnknownReason","failureText":"Access is denied"}'
    else:
        body = b'{"%s":"%s"}' % (
            (b"failureReason", word.encode()) if kind == "reason" else (word.encode(), b"x")
        )
    return Answered(status=200, body=body, sent_at=at(4), answered_at=at(5))
