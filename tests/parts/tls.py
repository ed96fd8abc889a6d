"""TLS before servers that have none: a throw-away CA, and doors that speak TLS outside and plainly inside.

Neither the Valkey nor the PostgreSQL of the test wheels was built with TLS; their clients can't tell.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
import trustme

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
CHUNK = 64 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Authority:
    """A CA of one test session; `file` is what a client must be told to trust."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        return context


class Door:
    """Listens on loopback with a certificate for `localhost` alone; what comes in goes to `inside` without TLS."""

    def __init__(self, context: ssl.SSLContext, inside: str | int, *, asks_first: bool = False) -> None:
        self._context = context
        self._inside = inside
        self._asks_first = asks_first
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._listen(),))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._open.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._loop.close()

    def shut(self) -> None:
        """Nobody gets in any more, and whoever is inside is thrown out."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._shut.set)
            self._thread.join()

    async def _listen(self) -> None:
        self._shut = asyncio.Event()
        tls = None if self._asks_first else self._context
        server = await asyncio.start_server(self._let_in, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        self._open.set()
        await self._shut.wait()
        server.close()
        guests = asyncio.all_tasks() - {asyncio.current_task()}
        for guest in guests:
            guest.cancel()
        await asyncio.gather(*guests, return_exceptions=True)

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that does not trust us just leaves; whoever is inside when the door is shut is thrown out.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if self._asks_first and not await self._was_asked(reader, writer):
                writer.close()
                return
            inner, outer = await self._go_in()
            try:
                await asyncio.gather(_pass(reader, outer), _pass(inner, writer))
            finally:
                outer.transport.abort()
                writer.transport.abort()

    async def _was_asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """PostgreSQL's way: the client asks in the clear whether TLS is spoken here. Nobody gets in without."""
        if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
            return False
        writer.write(b"S")
        await writer.start_tls(self._context)
        return True

    async def _go_in(self) -> Streams:
        if isinstance(self._inside, int):
            return await asyncio.open_connection("127.0.0.1", self._inside)
        return await asyncio.open_unix_connection(self._inside)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # either side may hang up at any time
        while part := await reader.read(CHUNK):
            writer.write(part)
            await writer.drain()
    writer.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another CA, which certified nobody here."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@contextmanager
def doors(authority: Authority) -> Iterator[Callable[..., int]]:
    """Open doors with certificates for `localhost`; all are shut at the end."""
    with ExitStack() as stack:

        def open_door(inside: str | int, *, asks_first: bool = False) -> int:
            door = Door(authority.server("localhost"), inside, asks_first=asks_first)
            return stack.enter_context(door).port

        yield open_door


@pytest.fixture
def open_door(authority: Authority) -> Iterator[Callable[..., int]]:
    with doors(authority) as opened:
        yield opened
