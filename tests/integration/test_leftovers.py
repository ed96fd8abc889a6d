"""What a cancel leaves in a worker's memory once it has ended: nothing."""

import re
import signal
from pathlib import Path

import pytest

from tests.parts.exchange import eventually
from tests.parts.fleet import Fleet

CANCELS = 30
SENDERS = 4  # each may still hold its last one
# The collector would hide what it has to clear away; asked, the worker tells which pursuits are still in memory.
ASIDE = """
import gc, signal
gc.disable()
def tell(*_):
    print("pursuits left:", sum(type(thing).__name__ == "Pursuit" for thing in gc.get_objects()), flush=True)
signal.signal(signal.SIGUSR1, tell)
"""


def test_an_ended_cancel_is_gone_before_the_collector_comes(
    plain_fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ASIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plain_fleet.exchange.add_orders({"from": 1, "count": CANCELS})
    plain_fleet.exchange.script(1, {"reason": "AnotherCommandPending"})
    worker = plain_fleet.spawn(concurrency=str(SENDERS)).when_ready()
    plain_fleet.queue().cancel_many([{"order_id": order} for order in range(1, CANCELS + 1)])
    plain_fleet.ends(CANCELS)
    worker.signal(signal.SIGUSR1)
    left = eventually(
        lambda: re.search(r"pursuits left: (\d+)\n", worker.said()), seconds=10, what="an answer"
    )
    assert int(left[1]) <= SENDERS
