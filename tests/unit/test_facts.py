"""Facts are checked and made storable before any database sees them."""

from base64 import b64encode
from datetime import datetime

import pytest

from tests.parts.cancels import a_job, a_start, an_outcome, answered, at
from worker.audit.facts import Fact, job_fact, reply_fact, storable
from worker.audit.shapes import entry
from worker.errors import FactRejected
from worker.reply import Answered


def changed(fact: Fact, **values: object) -> Fact:
    return Fact(fact.table, {**fact.values, **values})


@pytest.mark.parametrize(
    ("fact", "blamed"),
    [
        (changed(job_fact(a_job()), order_id=2**63), "jobs.order_id"),
        (changed(job_fact(a_job()), account=None), "jobs.account"),
        (changed(job_fact(a_job()), is_automated=1), "jobs.is_automated"),
        (changed(a_start(), attempt=True), "starts.attempt"),
        (changed(a_start(), body=b"{}"), "starts.body"),
        (changed(an_outcome(), finished_at=datetime(2026, 1, 1)), "outcomes.finished_at"),  # noqa: DTZ001
        (changed(an_outcome(), surprise=1), "outcomes.surprise"),
        (Fact("nowhere", {}), "nowhere"),
    ],
)
def test_a_fact_that_cannot_be_stored_is_refused_with_table_and_field(fact: Fact, blamed: str) -> None:
    with pytest.raises(FactRejected, match=f"^{blamed}:"):
        entry(fact)


@pytest.mark.parametrize(
    ("unclean", "clean"), [("a\0b", "a\\x00b"), ("a\ud800b", "a\\ud800b"), ("grüße", "grüße")]
)
def test_text_that_no_database_takes_is_escaped(unclean: str, clean: str) -> None:
    assert storable(unclean) == clean


def reply_values(body: bytes, **reply: object) -> dict[str, object]:
    facts = {"status": 200, "sent_at": at(1), "answered_at": at(2), **reply}
    return dict(reply_fact("job-1", 1, Answered(body=body, **facts), recorded_at=at(3)).values)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a\0b", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_body_that_is_not_clean_text_is_kept_as_base64(body: bytes) -> None:
    values = reply_values(body)
    assert (values["body"], values["body_encoding"]) == (b64encode(body).decode(), "base64")


def test_a_clean_body_is_kept_as_it_is() -> None:
    values = reply_values('{"text":"grüße"}'.encode())
    assert (values["body"], values["body_encoding"]) == ('{"text":"grüße"}', "text")


def test_the_latency_is_exact_to_the_microsecond() -> None:
    values = reply_fact("job-1", 1, answered(took=30.501), recorded_at=at(99)).values
    assert values["latency_us"] == 30_501


def test_what_makes_a_body_unreadable_is_written_beside_it() -> None:
    assert reply_values(b"{", truncated=True)["error"] == "cut at the cap"
    assert reply_values(b"{", headers={"content-encoding": "gzip"})["error"] == "content-encoding gzip"
