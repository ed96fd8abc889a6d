"""The last check before a first byte: what it was told, how old that may be, and a ledger whose clock is set back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from tests.parts.cancels import at
from worker.errors import Withheld
from worker.exchange.governor import Governor, Rulings

HOUR = timedelta(hours=1)


@dataclass
class Word:
    """What the ledger says of all logins."""

    now: datetime
    lockouts: Mapping[str, datetime] = field(default_factory=dict)


@pytest.mark.parametrize("back", [timedelta(seconds=1), timedelta(minutes=1)])
def test_a_lock_out_binds_also_after_the_ledgers_clock_was_set_back(back: timedelta) -> None:
    said = Word(at(0))
    governor = Governor(
        Rulings(
            now=lambda: said.now,
            ask=lambda: said,
            grant=lambda _login, _call: pytest.fail("no call is counted here"),
            tell=lambda _login, _hold: None,
            hold_of=lambda _verdict: pytest.fail("no answer came"),
        ),
        limited=False,
    )
    governor.require_post("default")
    said = Word(at(0) - back, {"default": at(0) + HOUR})
    governor.hear(said)
    with pytest.raises(Withheld, match="locked out"):
        governor.require_post("default")
