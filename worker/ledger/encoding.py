"""Between the ledger's texts and our nouns; the key names stand here and in functions/prelude.lua only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from worker.clock import from_micros
from worker.errors import Refused
from worker.job import (
    DEFAULT_LOGIN,
    Action,
    CancelRequest,
    FirstWish,
    Job,
    JobId,
    Joiner,
    MassStep,
    Memory,
    OrderId,
    Outcome,
    Priority,
    Steering,
    Step,
)


def prefix(ledger: str) -> str:
    """The hash tag keeps all keys of a ledger in one slot."""
    return f"{{{ledger}}}"


def meta_key(ledger: str) -> str:
    """What the ledger knows of itself: a hash."""
    return f"{prefix(ledger)}:meta"


def bells_key(ledger: str) -> str:
    """The Celery queue's name, and the key of its list."""
    return f"{prefix(ledger)}:bells"


def pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def moment(micros: str | None) -> datetime | None:
    return from_micros(int(micros)) if micros else None


def instant(micros: str) -> datetime:
    return from_micros(int(micros))


def job_from(fields: Mapping[str, str]) -> Job:
    return Job(
        id=JobId(fields["id"]),
        request=_request_from(fields),
        first_wish=_first_wish_from(fields),
        enqueued_at=instant(fields["enqueued_at"]),
        step=Step(fields["step"]),
        attempts=int(fields["attempts"]),
        joiners=int(fields["joiners"]),
        lapsed="lapsed" in fields,
        lost_by=tuple(fields.get("lost_by", "").split()),
        recorded="recorded" in fields,
        redrive_of=JobId(fields["redrive_of"]) if "redrive_of" in fields else None,
        outcome=Outcome(fields["outcome"]) if "outcome" in fields else None,
        evidence=fields.get("evidence"),
        memory=Memory.from_json(fields.get("memory")),
        login=fields.get("login", DEFAULT_LOGIN),
        calls=int(fields["calls"].partition("@")[0]) if "calls" in fields else None,
    )


def _request_from(fields: Mapping[str, str]) -> CancelRequest:
    return CancelRequest(
        account=fields["account"],
        order_id=OrderId(int(fields["order_id"])),
        request_id=fields["request_id"],
        requested_by=fields.get("requested_by"),
        cl_ord_id=fields.get("cl_ord_id"),
        activation_time=moment(fields.get("activation_time")),
        custom_tag50=fields.get("custom_tag50"),
        is_automated=fields["is_automated"] == "1",
        priority=Priority(fields["priority"]),
        deadline=moment(fields.get("deadline")),
    )


def _first_wish_from(fields: Mapping[str, str]) -> FirstWish | None:
    if "first_priority" not in fields:
        return None
    return FirstWish(
        priority=Priority(fields["first_priority"]),
        deadline=moment(fields.get("first_deadline")),
        activation_time=moment(fields.get("first_activation_time")),
    )


def joiner_from(text: str) -> Joiner:
    fields = json.loads(text)
    return Joiner(
        request_id=fields["request_id"],
        requested_by=fields["requested_by"],
        priority=Priority(fields["priority"]),
        deadline=None if fields["deadline"] is None else from_micros(fields["deadline"]),
        requested_at=from_micros(fields["requested_at"]),
        activation_time=None if fields["activation_time"] is None else from_micros(fields["activation_time"]),
    )


def action_from(action_id: str, text: str) -> Action:
    fields = json.loads(text)
    return Action(
        id=action_id,
        kind=_deed(fields["kind"]),
        by=fields["by"],
        because=fields["because"],
        at=from_micros(fields["at"]),
    )


def _deed(word: str) -> Steering | MassStep:
    return MassStep(word) if word in set(MassStep) else Steering(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """How a ledger stands; `open` counts the jobs that have not ended, `posting` those in hand for a POST.

    `workers`: those that are signed on, a killed one for 20 s more; None where the functions are older.
    """

    paused_at: datetime | None
    draining: bool
    open: int
    posting: int
    locked_out_until: datetime | None
    exchange: str | None
    workers: int | None = None

    @property
    def paused(self) -> bool:
        return self.paused_at is not None


def survey_from(text: str) -> Survey:
    """Refused, with the ledger's own words, when it would not do what it was asked."""
    told = json.loads(text)
    if told.get("status") == "refused":
        raise Refused(told["error"])
    return Survey(
        paused_at=_time(told["pausedAt"]),
        draining=told["draining"],
        open=told["open"],
        posting=told["posting"],
        locked_out_until=_time(told["lockedOutUntil"]),
        exchange=told["exchange"],
        workers=told.get("workers"),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """How much waits in the whole ledger, and since when; see gauges.lua."""

    now: datetime
    open: int
    due: int
    in_hand: int
    parked: int
    unknown: int
    bells: int
    oldest_due: datetime | None
    oldest_unknown: datetime | None
    locked_out_until: datetime | None
    paused: bool
    draining: bool
    budget_left: int | None  # POSTs, of the login with the least; None: no limit
    oldest_token: datetime | None  # when it was obtained


def gauges_from(flat: Sequence[Any]) -> Gauges:
    told: dict[str, Any] = dict(zip(flat[::2], flat[1::2], strict=True))
    for name in ("now", "oldest_due", "oldest_unknown", "locked_out_until", "oldest_token"):
        told[name] = from_micros(told[name]) if told[name] else None
    told["budget_left"] = told["budget_left"] if told["budget_left"] >= 0 else None
    return Gauges(**told | {name: bool(told[name]) for name in ("paused", "draining")})


def storable(text: str) -> str:
    """Text that Redis and its JSON reader take: a lone surrogate becomes a visible escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fields_json(fields: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: None if text is None else storable(text) for name, text in fields.items()}


def compact(value: object) -> str:
    return orjson.dumps(value).decode()
