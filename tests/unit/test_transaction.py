"""What one transaction inserts, before any database sees it."""

import pytest
from sqlalchemy.dialects import postgresql

from tests.parts.cancels import ENVIRONMENT, a_job, a_start, an_outcome
from worker.audit.chain import Head
from worker.audit.facts import Fact, job_fact
from worker.audit.shapes import entry
from worker.audit.transaction import Transaction

FACTS = [job_fact(a_job()), a_start(), an_outcome("job-2")]


@pytest.mark.parametrize("facts", [FACTS, FACTS[::-1], FACTS[1:] + FACTS[:1]])
def test_the_same_tables_are_always_one_statement(facts: list[Fact]) -> None:
    """In whatever order their facts come: each order of them would be planned, and kept, anew."""
    transaction = Transaction(postgresql.dialect(), writer="w", environment=ENVIRONMENT)
    plan = transaction.plan(Head(), [entry(fact) for fact in facts], ())
    assert list(plan.rows) == ["jobs", "outcomes", "starts"]
    assert plan.written.head.seq == len(facts)
