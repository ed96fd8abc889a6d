"""What a worker would tell those who watch it, for one job. Times are counted from NOON."""

from tests.parts.cancels import a_job, answered, at
from worker.clock import to_micros
from worker.job import Evidence, Job, JobId, Memory, Outcome, Step
from worker.ledger.words import Claimed, Swept
from worker.policy import Again, End
from worker.reply import Reply
from worker.verdict import Verdict, classify
from worker.work.happening import Replied, Settled

MEMORY = Memory(first_sent_at=to_micros(at(4)), last_answer_at=to_micros(at(34.5)), command_id=5)


def named(name: str, attempts: int = 1) -> Job:
    return a_job(name)._replace(id=JobId(name), attempts=attempts, memory=MEMORY)


def claimed(*jobs: Job) -> Claimed:
    return Claimed(
        now=at(2),
        asked_at=at(2) - at(0),
        jobs=jobs,
        due_left=False,
        next_due=None,
        held=False,
        for_budget=False,
        logins={},
    )


def swept(lapsed: int = 0) -> Swept:
    return Swept(
        ran=True,
        now=at(0),
        held=False,
        drained=False,
        lapsed=lapsed,
        due=0,
        oldest_due=None,
        next_due=None,
        bells=0,
        uncompared=False,
    )


def again(job: Job, step: Step = Step.POST, verdict: Verdict | None = None) -> Settled:
    decision = Again(step=step, delay=at(100) - at(0), memory=job.memory)
    return Settled(job=job, decision=decision, verdict=verdict, learned=verdict is not None, at=at(40))


def ended(job: Job, outcome: Outcome = Outcome.CANCELED) -> Settled:
    decision = End(outcome=outcome, evidence=Evidence.ORDER_READ, detail="Canceled", memory=job.memory)
    return Settled(job=job, decision=decision, verdict=None, learned=True, at=at(1004))


def replied(job: Job, reply: Reply | None = None) -> Replied:
    reply = reply or answered()
    verdict = classify(reply)
    return Replied(job, at(3), reply, verdict, again(job, Step.CONFIRM).decision)


def transient(reason: str = "AnotherCommandPending") -> Verdict:
    return classify(answered(b'{"failureReason":"%s"}' % reason.encode()))
