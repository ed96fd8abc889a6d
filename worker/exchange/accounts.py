"""Which accounts the login sees, by id: read rarely and kept. What could not be read is unknown, never guessed."""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from worker.clock import monotonic

# Accounts come and go by the day, and every call counts against the exchange's limits …
ACCOUNTS_LIFE = timedelta(minutes=5)
# … but a list that could not be read is asked for again sooner.
ASK_AGAIN = timedelta(seconds=30)
# The contract's name for "whatever account the order is of".
ANY_ACCOUNT = "default"


class Accounts:
    """The list as last read; `read` gives its JSON, or anything else when it could not be read."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self._read = read
        self._reading = threading.Lock()
        self._names: Mapping[int, str] = MappingProxyType({})
        self._due = timedelta(0)

    def stranger(self, account: str, owner: object) -> str | None:
        """Why an order of the account with the id `owner` is proved not to be of `account`; None if it is not."""
        if not isinstance(owner, int) or isinstance(owner, bool) or account in {ANY_ACCOUNT, str(owner)}:
            return None
        names = self.names()
        own = {number for number, name in names.items() if account in {name, str(number)}}
        if owner in own or not (own or owner in names):
            return None
        return f"the order is of {names.get(owner, owner)}, not of {account}"

    def names(self) -> Mapping[int, str]:
        """Names by id. Only the first read is waited for; while a later one is under way the old list serves."""
        if monotonic() < self._due or not self._reading.acquire(blocking=not self._due):
            return self._names
        try:
            if monotonic() >= self._due:
                self._refresh()
        finally:
            self._reading.release()
        return self._names

    def _refresh(self) -> None:
        rows = self._read()
        known = dict(filter(None, map(_named, rows))) if isinstance(rows, list) else {}
        self._names = MappingProxyType(known) if known else self._names
        self._due = monotonic() + (ACCOUNTS_LIFE if known else ASK_AGAIN)


def _named(row: Any) -> tuple[int, str] | None:
    match row:
        case {"id": int(number), "name": str(name)} if name and number is not True:
            return number, name
        case _:
            return None
