"""Takes over jobs whose holder vanished: SQL may know more than the ledger. Closes rows left open."""

from collections.abc import Sequence
from dataclasses import replace

from worker.audit.facts import Fact, reply_fact, verdict_fact
from worker.audit.queries import AttemptRow, Story, story
from worker.clock import to_micros, utc_now
from worker.gaps import Gap, reached
from worker.job import Evidence, Job, Memory, Outcome
from worker.policy import Decision, End, after_reply
from worker.reply import NotSent, Reply, Unanswered
from worker.verdict import Verdict, classify
from worker.work.crew import Crew

Recovered = tuple[Job, Decision | None, list[Fact]]


def recover(crew: Crew, jobs: Sequence[Job]) -> list[Recovered]:
    """Each job with what SQL knows folded in; a decision where SQL knows the end already."""
    lapsed = [job.id for job in jobs if job.lapsed]
    stories = story(crew.engine, lapsed) if lapsed else {}
    if stories:
        reached(Gap.STORY_READ)
    return [_fold(crew, job, stories.get(job.id)) for job in jobs]


def ended(outcome: Outcome, evidence: str | None, job: Job) -> End:
    """An end that was decided before; its evidence text is kept as it was."""
    word, _, detail = (evidence or Evidence.UNPROVEN).partition(" ")
    return End(outcome=outcome, evidence=Evidence(word), detail=detail, memory=job.memory)


def _fold(crew: Crew, job: Job, known: Story | None) -> Recovered:
    if known is None:
        return job, None, []
    facts: list[Fact] = []
    decision: Decision | None = None
    for row in known.attempts:
        if row.attempt <= job.attempts and row.verdict is not None:
            continue
        job, decision, written = _fold_attempt(crew, job, row)
        facts.extend(written)
    if known.outcome is not None:
        decision = ended(Outcome(known.outcome.outcome), known.outcome.evidence, job)
    return job, decision if isinstance(decision, End) else None, facts


def _fold_attempt(crew: Crew, job: Job, row: AttemptRow) -> tuple[Job, Decision, list[Fact]]:
    """Re-decide one attempt from its rows; classify and decide are pure, so nothing is lost but time."""
    facts: list[Fact] = []
    reply = row.reply
    if reply is None:
        reply = Unanswered(error="worker lost", sent_at=None, ended_at=utc_now())
        facts.append(reply_fact(job.id, row.attempt, reply, recorded_at=utc_now()))
    verdict = classify(reply, crew.policy.transient)
    if row.verdict is None:
        facts.append(_verdict_row(crew, job, row, verdict))
    job = replace(job, attempts=max(job.attempts, row.attempt), memory=_noting_first_byte(job, row, reply))
    decision = after_reply(job, verdict, crew.policy, crew.clock.now())
    return replace(job, memory=decision.memory), decision, facts


def _verdict_row(crew: Crew, job: Job, row: AttemptRow, verdict: Verdict) -> Fact:
    return verdict_fact(
        job.id,
        row.attempt,
        verdict,
        policy_version=crew.policy.version,
        decided_at=utc_now(),
    )


def _noting_first_byte(job: Job, row: AttemptRow, reply: Reply) -> Memory:
    if isinstance(reply, NotSent) or job.memory.first_sent_at is not None:
        return job.memory
    return replace(job.memory, first_sent_at=to_micros(reply.sent_at or row.started_at))
