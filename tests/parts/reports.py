"""Reports as values, without a database: what a rendering is given."""

from datetime import UTC, timedelta
from typing import Any

from tests.parts.cancels import at
from worker.audit.chain import Head
from worker.audit.verify import Verification
from worker.report.content import Event, Happening, Latency, Line, Report, Scope, Timeline, Total
from worker.report.figures import Spread

# What an attacker would have a strategy, an exchange or a reason say.
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "quotes": "\"'><img src=x onerror=alert(1)>",
    "end of style": "</style><style>body{display:none}",
    "css": "red;}body{background:url(https://evil.example/x)}",
    "svg": "</text></svg><svg onload=alert(1)><text>",
    "template": "{{ 7*7 }}{% raw %}",
    "entity": "&lt;script&gt;&#0;&nosuch;",
    "comment": "<!-- ]]> -->",
    "right to left": "invoice\u202egnp.exe",
    "isolate": "\u2066hidden\u2069\u200b",
    "nul": "a\x00b",
    "escape": "\x1b[31mred\x9b1m",
    "surrogate": "\ud800",
    "long": "x" * 8192,
    "nothing": "",
}


def a_line(**facts: Any) -> Line:
    known = dict.fromkeys(Line._fields)
    basics = {"job_id": "job-1", "account": "A", "order_id": 1, "request_id": "r", "enqueued_at": at(0)}
    counts = {"joiners": 0, "attempts": 1, "environment": "e"}
    return Line(**{**known, **basics, **counts, **facts})


def a_report(*lines: Line, **facts: Any) -> Report:
    nothing = Latency(
        enqueue_to_wire=Spread(), wire_to_answer=Spread(), answer_to_end=Spread(), enqueue_to_end=Spread()
    )
    basics: dict[str, Any] = {
        "scope": Scope(zone=UTC),
        "made_at": at(0),
        "owner": None,
        "environments": (),
        "policy_versions": (),
        "verification": Verification(1, {"w": Head(1, "d")}, None),
        "witnessed": True,
        "outcomes": {},
        "reasons": {},
        "attempts": {},
        "filled_contracts": 0,
        "latency": nothing,
        "by_account": {},
        "by_strategy": {},
        "by_hour": {},
        "slowest": (),
        "timelines": (),
    }
    return Report(**{**basics, **facts}, lines=lines)


def a_total(**ends: int) -> Total:
    return Total(jobs=sum(ends.values()), attempts=1, outcomes=ends, filled_contracts=0)


def a_timeline(*events: Event, **facts: Any) -> Timeline:
    asked = Event(kind=Happening.ENQUEUED, at=at(0), said="momentum")
    line = a_line(**{"outcome": "canceled", "finished_at": at(1000), **facts})
    return Timeline(line=line, events=(asked, *events))


def an_attempt(number: int, *, sent: float, took: float | None = 10, said: str | None = "accepted") -> Event:
    until = None if took is None else at(sent + took)
    return Event(kind=Happening.ATTEMPT, at=at(sent), until=until, number=number, said=said)


def a_look(*, seen: float, said: str = "Working") -> Event:
    return Event(kind=Happening.READ, at=at(seen), said=said, detail="order")


def milliseconds(*numbers: float) -> list[timedelta]:
    return [timedelta(milliseconds=number) for number in numbers]
