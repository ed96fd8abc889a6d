"""The exchange as each login sees it: whom an account is served by, and under which token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.exchange.client import Exchange
from worker.exchange.governor import Governor
from worker.exchange.line import Timeouts
from worker.exchange.token import Bearer
from worker.logins import Login, login_of


@dataclass(frozen=True, slots=True)
class Clients:
    """One client for each login, with connections and an account list of its own."""

    base_url: str
    logins: Sequence[Login]
    by_name: Mapping[str, Exchange]

    def of(self, account: str) -> Exchange | None:
        """Who acts for this account; None if no login does."""
        login = login_of(self.logins, account)
        return self.by_name[login.name] if login is not None else None

    def close(self) -> None:
        for exchange in self.by_name.values():
            exchange.close()


def clients(
    base_url: str,
    logins: Sequence[Login],
    timeouts: Timeouts,
    *,
    governor: Governor | None = None,
) -> Clients:
    """Without a token yet where one has to be asked for."""
    by_name = {
        login.name: Exchange(
            base_url,
            Bearer.fixed(login.token) if login.token is not None else Bearer(),
            timeouts=timeouts,
            gate=governor.gate(login.lane) if governor is not None else None,
        )
        for login in logins
    }
    return Clients(base_url, logins, by_name)
