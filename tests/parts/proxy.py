"""A TCP proxy that spoils the way between two parts while they run: cut off is not dead."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

CHUNK = 65536
BACKLOG = 512
# Longer than any single change of the proxy takes on a loaded machine.
PATIENCE = 10
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER 0: close with a reset


class Way(StrEnum):
    UP = "up"  # from the client to the server
    DOWN = "down"


BOTH = (Way.UP, Way.DOWN)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(eq=False)
class Link:
    """One client's connection and ours to the server."""

    client: Streams
    server: Streams
    marked: bool  # whether it is spoiled at all
    lost: bool = False  # bytes of it vanished: no end of it can trust it again
    ended: set[Way] = field(default_factory=set)  # where we said "no more bytes"

    def writer(self, way: Way) -> asyncio.StreamWriter:
        return (self.server if way is Way.UP else self.client)[1]

    def reader(self, way: Way) -> asyncio.StreamReader:
        return (self.client if way is Way.UP else self.server)[0]

    def end(self, way: Way) -> None:
        if way not in self.ended and not self.writer(way).is_closing():
            self.ended.add(way)
            with contextlib.suppress(OSError):
                self.writer(way).write_eof()

    def reset(self) -> None:
        for way in BOTH:
            _reset(self.writer(way))


@dataclass
class Proxy:
    """In front of one server, at `port`; a change holds for connections that are open already, too.

    With a mark only those connections are spoiled whose first bytes from the client hold it.
    """

    connect: Callable[[], Awaitable[Streams]]
    mark: bytes = b""
    port: int = 0
    _links: set[Link] = field(default_factory=set)
    _dropping: frozenset[Way] = frozenset()
    _delays: dict[Way, float] = field(default_factory=dict)
    _whole: asyncio.Event = field(default_factory=asyncio.Event)
    _listener: asyncio.Server | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    # --- what a test says

    def drop(self, *ways: Way) -> None:
        """A black hole: what is sent from now on, ends of connections included, vanishes."""
        self._do(self._set, frozenset(ways), {})

    def delay(self, span: timedelta, *ways: Way) -> None:
        """Each piece comes later by this much."""
        self._do(self._set, frozenset(), dict.fromkeys(ways, span.total_seconds()))

    def restore(self) -> None:
        """All is well again; connections that lost bytes are reset."""
        self._do(self._set, frozenset(), {})

    def reset(self) -> int:
        """RST to both ends of every connection; how many there were."""
        return self._do(self._reset)

    def half_close(self, way: Way) -> int:
        """Say "no more bytes" in one direction of every connection, and go on with the other."""
        return self._do(self._half_close, way)

    def refuse(self) -> None:
        """As if the server were dead: connections are reset, new ones refused."""
        self._do(self._refuse)

    def accept(self) -> None:
        """The server is back, at the same port."""
        self._call(self._listen())

    @property
    def lost(self) -> int:
        """How many open connections have lost bytes."""
        return sum(link.lost for link in list(self._links))

    # --- how it is done

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._listen())

    def close(self) -> None:
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join(PATIENCE)
        self._loop.close()

    def _do(self, change: Callable[..., Any], *arguments: Any) -> Any:
        async def change_here() -> Any:
            return change(*arguments)

        return self._call(change_here())

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=BACKLOG)
        self.port = self._listener.sockets[0].getsockname()[1]

    def _set(self, dropping: frozenset[Way], delays: dict[Way, float]) -> None:
        self._dropping, self._delays = dropping, delays
        if dropping:
            self._whole.clear()
        else:
            self._whole.set()
            for link in [link for link in self._links if link.lost]:
                link.reset()

    def _marked(self) -> list[Link]:
        return [link for link in self._links if link.marked]

    def _reset(self) -> int:
        for link in (marked := self._marked()):
            link.reset()
        return len(marked)

    def _half_close(self, way: Way) -> int:
        for link in (marked := self._marked()):
            link.end(way)
        return len(marked)

    def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._set(frozenset(), {})
        for link in self._links:
            link.reset()

    async def _end_all(self) -> None:
        """Reset links end by themselves; one that was just being accepted becomes a link meanwhile."""
        give_up = self._loop.time() + PATIENCE
        while (others := asyncio.all_tasks() - {asyncio.current_task()}) and self._loop.time() < give_up:
            self._refuse()
            await asyncio.wait(others, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        self._refuse()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await self.connect()
        except OSError:
            _reset(writer)
            return
        link = Link((reader, writer), server, marked=not self.mark)
        self._links.add(link)
        try:
            await asyncio.gather(*(self._pump(link, way) for way in BOTH))
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)
            for way in BOTH:
                link.writer(way).close()

    async def _pump(self, link: Link, way: Way) -> None:
        reader, writer = link.reader(way), link.writer(way)
        while True:
            piece = await reader.read(CHUNK)
            link.marked = link.marked or (way is Way.UP and self.mark in piece)
            if link.marked and way in self._delays:
                await asyncio.sleep(self._delays[way])
            if link.marked and way in self._dropping:
                link.lost = True
            elif not piece:
                link.end(way)
            elif way not in link.ended:
                writer.write(piece)
                await writer.drain()
            if not piece:
                break
        if link.lost:  # the other end must not learn of an end that vanished
            await self._whole.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    found: socket.socket | None = writer.get_extra_info("socket")
    if found is not None and not writer.is_closing() and found.family != socket.AF_UNIX:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()


@contextlib.contextmanager
def proxy(server: int | Path, mark: bytes = b"") -> Iterator[Proxy]:
    """In front of a port of this machine, or of a Unix socket."""

    async def connect() -> Streams:
        if isinstance(server, Path):
            return await asyncio.open_unix_connection(server)
        return await asyncio.open_connection("127.0.0.1", server)

    front = Proxy(connect, mark)
    front.start()
    try:
        yield front
    finally:
        front.close()
