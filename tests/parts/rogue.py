"""A server on a raw socket that answers as badly as a test wants."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

ACCEPTED = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"commandId":1}'

Answer = Callable[[socket.socket], None]


class Rogue:
    """A server of one test: `answer` plays on each connection once a whole request is there, and again for the next."""

    def __init__(self, answer: Answer | None, *, backlog: int = 16) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connected = threading.Event()
        self.over = threading.Event()
        self.answered = 0
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def url(self, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}/v1"

    def drip(self, connection: socket.socket, text: bytes) -> None:
        """One byte at a time, each well within the bound of a single read, and never an end."""
        for position in range(len(text)):
            if self.over.wait(0.1):
                return
            connection.sendall(text[position : position + 1])

    def close(self) -> None:
        self.over.set()
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._connections):
            sock.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self.over.is_set():
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self.connected.set()
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while request := _whole_request(connection, self.requests):
                self.requests.append(request)
                if self.answer is None:
                    self.over.wait()
                else:
                    self.answer(connection)
                self.answered += 1


def _whole_request(connection: socket.socket, before: list[bytes]) -> bytes:
    """Head and body; whatever came, if the caller hung up in the middle."""
    got = b""
    while b"\r\n\r\n" not in got or (got.startswith(b"POST") and not got.endswith(b"}")):
        part = connection.recv(65536)
        if not part:
            return got
        got += part
        if not got.startswith((b"POST", b"GET")):
            before.append(got)
    return got


@contextlib.contextmanager
def rogue(answer: Answer | None = None, **more: Any) -> Iterator[Rogue]:
    server = Rogue(answer, **more)
    try:
        yield server
    finally:
        server.close()


def closing(text: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_RDWR)

    return answer
