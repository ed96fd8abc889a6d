"""Reads the lists that a mass cancel rests on: under the login's budget, repeated within a bound, never half believed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result, stop_before_delay, wait_exponential_jitter

from worker.clock import monotonic
from worker.errors import ConfigError, NotRead
from worker.exchange.client import Exchange
from worker.exchange.listing import OrderList, order_list
from worker.reasons import Action, Meaning
from worker.reply import Answered, Reply
from worker.verdict import MAX_ID, classify, read_json, rule_of
from worker.work.keeper import Keeper

Found = TypeVar("Found")
# One read, its repetitions included: longer than an exchange's short trouble, shorter than a person's patience.
PATIENCE = timedelta(seconds=30)
BACK_OFF = wait_exponential_jitter(initial=0.1, max=2, jitter=0.1)
# No waiting helps within one command: a lock-out, or a penalty that wants a person.
FOR_LONG = timedelta(hours=1)
NOTHING = frozenset({b"", b"null", b"[]", b"{}"})
# An error message must not be a page of names.
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Contract:
    id: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """One list, and when it was asked for (monotonic)."""

    asked_at: timedelta
    list: OrderList


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an answer is no list, and how long the exchange wants not to be asked."""

    why: str
    wait: timedelta = timedelta(0)


class Lists:
    """One login's lists. Errors: NotRead, LedgerUnavailable."""

    def __init__(self, exchange: Exchange, keepers: Sequence[Keeper], *, patience: timedelta) -> None:
        self._exchange = exchange
        self._keepers = keepers
        self._asked_at = timedelta(0)
        self._reads = Retrying(
            retry=retry_if_result(lambda found: isinstance(found, Trouble)),
            stop=stop_before_delay(patience.total_seconds()),
            wait=_wait,
            retry_error_callback=_last,
        )

    def account(self, wanted: str) -> Account:
        """By its name, or its id in digits. ConfigError names the accounts that there are."""
        known = self._read("the accounts", self._exchange.own_accounts, _accounts)
        found = next((one for one in known if wanted in {one.name, str(one.id)}), None)
        if found is None:
            seen = ", ".join(sorted(one.name for one in known)[:MOST_NAMED]) or "none"
            raise ConfigError(f"--account: the login sees no account {wanted!r}; it sees: {seen}")
        return found

    def contract(self, wanted: str) -> Contract:
        """By its id in digits, else by its name."""
        if wanted.isascii() and wanted.isdigit() and 0 < int(wanted) <= MAX_ID:
            return Contract(int(wanted))
        found = self._read("the contract", lambda: self._exchange.contract_named(wanted), _contract)
        if found is None:
            raise ConfigError(
                f"--contract: the exchange knows no contract {wanted!r}; give its name or its id"
            )
        return Contract(found, wanted)

    def orders(self, account: Account) -> Look:
        """All orders of the account, ended ones included."""

        def look(reply: Reply) -> Look | Trouble:
            found = order_list(_json(reply), account.id)
            return Look(self._asked_at, found) if found is not None else _trouble(reply)

        return self._read("the orders", lambda: self._exchange.account_orders(account.id), look)

    def _read(
        self, what: str, ask: Callable[[], Reply], understood: Callable[[Reply], Found | Trouble]
    ) -> Found:
        found: Found | Trouble = self._reads(lambda: understood(self._asked(ask)))
        if isinstance(found, Trouble):
            raise NotRead(f"{what} could not be read: {found.why}")
        return found

    def _asked(self, ask: Callable[[], Reply]) -> Reply:
        """With the token that the workers share; where there is none, or it is refused, a keeper asks for the next."""
        for keeper in self._keepers:
            keeper.keep()
        self._asked_at = monotonic()
        return ask()


def _accounts(reply: Reply) -> list[Account] | Trouble:
    rows = _json(reply)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return _trouble(reply)
    return [
        Account(row["id"], row["name"])
        for row in rows
        if isinstance(row.get("id"), int) and isinstance(row.get("name"), str)
    ]


def _contract(reply: Reply) -> int | Trouble | None:
    """None: there is no such contract, and the token was taken for the accounts just before.

    Other clients have met one object as well as a list of one, and nothing at all.
    """
    if isinstance(reply, Answered) and (
        reply.status == 404 or (reply.status == 200 and reply.body in NOTHING)
    ):
        return None
    found = _json(reply)
    row = found[0] if isinstance(found, list) and len(found) == 1 else found
    number = row.get("id") if isinstance(row, dict) else None
    return number if isinstance(number, int) and 0 < number <= MAX_ID else _trouble(reply)


def _trouble(reply: Reply) -> Trouble:
    if not isinstance(reply, Answered):
        return Trouble(reply.error)
    verdict = classify(reply)
    if verdict.meaning is Meaning.THROTTLED:
        wait = verdict.penalty if rule_of(verdict).action is Action.TICKET else None
        return Trouble(f"HTTP {reply.status}, {verdict.rule}: no call may be made now", wait or FOR_LONG)
    if 200 <= reply.status < 300:
        return Trouble("the answer is no whole list")
    return Trouble(f"HTTP {reply.status}")


def _json(reply: Reply) -> Any:
    ok = isinstance(reply, Answered) and 200 <= reply.status < 300
    return read_json(reply) if ok and isinstance(reply, Answered) else None


def _wait(state: RetryCallState) -> float:
    trouble = _last(state)
    asked = trouble.wait.total_seconds() if isinstance(trouble, Trouble) else 0.0
    return max(asked, BACK_OFF(state))


def _last(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None
