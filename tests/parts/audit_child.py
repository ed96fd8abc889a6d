"""A process of its own that writes to the audit: `python -m tests.parts.audit_child URL WRITER race|pour`.

`race` waits for a line on stdin, then tries to start attempts 1 to 50 of one job, and prints what became of each.
`pour` commits from eight threads for ever, and prints the number of each job once it is on disk.
"""

import sys
from itertools import count

from tests.parts.cancels import a_job, a_start, at_once, writing
from worker.audit.engine import open_engine
from worker.audit.facts import job_fact
from worker.audit.writer import AuditWriter

ATTEMPTS = 50
POURERS = 8


def race(audit: AuditWriter) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    for attempt in range(1, ATTEMPTS + 1):
        job, start = audit.commit([job_fact(a_job()), a_start(attempt=attempt)])
        print(job, start, flush=True)


def pour(audit: AuditWriter) -> None:
    def work(number: int) -> None:
        for turn in count():
            name = f"job-{number}-{turn}"
            audit.commit([job_fact(a_job(name)), a_start(name)])
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()

    at_once(work, POURERS)


if __name__ == "__main__":
    engine = open_engine(sys.argv[1])
    with writing(engine, sys.argv[2]) as audit:
        {"race": race, "pour": pour}[sys.argv[3]](audit)
    engine.dispose()
