"""A real Valkey: one durable server a session, one ledger name a test, and a private server to hurt."""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from tests.parts.ledger import Door
from worker.embedded.valkey import EmbeddedValkey, ensure
from worker.ledger.client import Ledger

PATIENCE = timedelta(seconds=5)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with ensure(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    return valkey.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["Redis"]:
    """Look past the ledger's functions, at its bare keys (texts)."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def ledger_name() -> str:
    """A key space of the test's own on the shared server."""
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
def make_ledger() -> Iterator[Callable[[str, str], Ledger]]:
    """Make ledgers of any server and name; all are closed at the end."""
    with ExitStack() as stack:

        def make(url: str, name: str) -> Ledger:
            ledger = stack.enter_context(Ledger(url, name, timeout=PATIENCE))
            ledger.load_functions()
            return ledger

        yield make


@pytest.fixture
def ledger(make_ledger: Callable[[str, str], Ledger], redis_url: str, ledger_name: str) -> Ledger:
    return make_ledger(redis_url, ledger_name)


@pytest.fixture
def door(ledger: Ledger, redis_client: "Redis") -> Door:
    """The test's ledger from outside; its functions are loaded."""
    return Door(redis_client, ledger.name)


@dataclass(slots=True)
class PrivateValkey:
    """A server of one test: it may be killed, frozen and started again on the same files."""

    home: Path
    _server: EmbeddedValkey | None = field(default=None, init=False)

    @property
    def server(self) -> EmbeddedValkey:
        if self._server is None:
            self._server = ensure(self.home)
        return self._server

    @property
    def url(self) -> str:
        return self.server.url

    def kill(self) -> None:
        """SIGKILL; the files stay."""
        self._signal(signal.SIGKILL)
        self.stop()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def start(self) -> str:
        """Start again after `kill`; gives the address (the same one)."""
        return self.url

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _signal(self, name: signal.Signals) -> None:
        assert self.server.pid is not None
        os.kill(self.server.pid, name)


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[PrivateValkey]:
    valkey = PrivateValkey(tmp_path / "private")
    assert valkey.start()
    yield valkey
    valkey.stop()
