"""A real Valkey: one durable server a session, one ledger name a test, and a private server to hurt."""

import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.parts.exchange import eventually
from tests.parts.ledger import Door, settle_in
from worker.embedded.valkey import EmbeddedValkey, ensure, find_binary
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
            settle_in(ledger)
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A server started by hand: of another version, or a replica of another one."""

    binary: Path
    folder: Path
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port, init=False)
    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "Server":
        self.folder.mkdir(parents=True, exist_ok=True)
        place = ("--dir", str(self.folder), "--bind", "127.0.0.1", "--port", str(self.port))
        durable = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        libraries = self.binary.parents[2] / "usr/lib/x86_64-linux-gnu"
        self.process = subprocess.Popen(
            [str(self.binary), *place, *durable, *self.options],
            env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
            stdout=subprocess.DEVNULL,
        )
        eventually(self._answers, what="the server")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _answers(self) -> bool:
        with Redis.from_url(self.url) as redis, suppress(RedisError):
            return bool(redis.ping())
        return False


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers of a binary; all are killed at the end."""
    with ExitStack() as stack:

        def make(name: str, *options: str, binary: Path | None = None) -> Server:
            server = Server(binary or find_binary(), tmp_path / name, options).start()
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(scope="session")
def redis_7_0() -> Path:
    """The oldest server that has Functions; `make test` fetches it where there is an apt that has it."""
    binary = Path(__file__).parents[2] / ".venv/redis-7.0/usr/bin/redis-server"
    if not binary.exists():
        pytest.skip("there is no Redis 7.0 in .venv/redis-7.0: no apt here?")
    return binary


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[PrivateValkey]:
    valkey = PrivateValkey(tmp_path / "private")
    assert valkey.start()
    yield valkey
    valkey.stop()
