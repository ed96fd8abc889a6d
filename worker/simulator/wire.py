"""Puts answers on the raw transport, well or badly: drips, cuts, resets, lies about length. Knows no orders."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, cast
from uuid import uuid4

from aiohttp import web

from .steps import NATURAL, Step

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
CHUNK = 1 << 16
PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, before the way it travels."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    command_id: int | None = None


def json_answer(value: Any, *, status: int = 200, command_id: int | None = None) -> Answer:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(status, body, command_id=command_id)


def text_answer(status: int, text: str = "") -> Answer:
    return Answer(status, text.encode(errors="surrogateescape"), TEXT if text else None)


def plain_answer(status: int) -> Answer:
    """What the exchange says with a bare status."""
    if status == 500:
        return error_answer()
    return text_answer(status, {401: "Access is denied", 404: "Not found"}.get(status, ""))


def error_answer() -> Answer:
    return text_answer(500, f"Internal Server Error, error id: {uuid4()}")


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is on the wire already."""

    async def prepare(self, _request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, _data: Any = b"") -> None:
        return None


def transport_of(request: web.BaseRequest) -> asyncio.Transport:
    """The connection; a ConnectionResetError when the caller has gone."""
    if request.transport is None:
        raise ConnectionResetError("the caller has gone")
    return request.transport


def write(request: web.BaseRequest, answer: Answer) -> Sent:
    """The plain way: one write, connection kept if the caller wants it."""
    transport_of(request).write(_head(answer, keep=request.keep_alive) + answer.body)
    return _done(keep=request.keep_alive)


def drop(request: web.BaseRequest) -> Sent:
    transport_of(request).close()
    return _done(keep=False)


def gone() -> Sent:
    """Nobody is there to be answered."""
    return _done(keep=False)


def reset(request: web.BaseRequest) -> Sent:
    """Closes with RST: linger zero makes the kernel throw the connection away."""
    transport = transport_of(request)
    connection = cast("socket.socket", transport.get_extra_info("socket"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return _done(keep=False)


async def send(request: web.BaseRequest, answer: Answer, step: Step) -> Sent:
    """The answer, as well or badly as the step wants it."""
    if step is NATURAL:
        return write(request, answer)
    if step.drop is not None:
        return drop(request)
    if step.reset is not None:
        return reset(request)
    return await _travel(request, _dressed(answer, step), step)


async def _travel(request: web.BaseRequest, answer: Answer, step: Step) -> Sent:
    body = answer.body[: -step.cut_body] if step.cut_body else answer.body
    length = step.content_length if step.content_length is not None else len(answer.body)
    keep = request.keep_alive and length == len(body) and step.garbage is None
    head = _head(answer, keep=keep, length=length)
    if step.garbage is not None:
        head = step.garbage.encode(errors="surrogateescape") + b"\r\n" + head.split(b"\r\n", 1)[1]
    at_once, dripped = head + body, b""
    if step.drip is not None:
        at_once, dripped = (head, body) if step.drip.part == "body" else (b"", head + body)
    transport = transport_of(request)
    await _pour(request, transport, at_once)
    if step.drip is not None:
        await _drip(transport, dripped, step.drip.bytes_per_second)
    if not keep:
        transport.close()
    return _done(keep=keep)


def _dressed(answer: Answer, step: Step) -> Answer:
    headers = {**answer.headers, **(step.headers or {})}
    if step.gzip:
        headers["Content-Encoding"] = "gzip"
    if step.location is not None:
        headers["Location"] = step.location
    body = answer.body
    if step.body_bytes is not None and len(body) < step.body_bytes:
        # Blanks before the last brace keep it JSON, however large.
        body = body[:-1] + b" " * (step.body_bytes - len(body)) + body[-1:]
    return replace(answer, headers=headers, body=body)


def _head(answer: Answer, *, keep: bool, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {PHRASES.get(answer.status, 'Unknown')}"]
    if answer.content_type is not None:
        lines.append(f"Content-Type: {answer.content_type}")
    lines.append(f"Content-Length: {len(answer.body) if length is None else length}")
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if not keep:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode(errors="surrogateescape")


async def _drip(transport: asyncio.Transport, data: bytes, per_second: float) -> None:
    for position in range(len(data)):
        if transport.is_closing():
            return
        if position:
            await asyncio.sleep(1 / per_second)
        transport.write(data[position : position + 1])


async def _pour(request: web.BaseRequest, transport: asyncio.Transport, data: bytes) -> None:
    for position in range(0, len(data), CHUNK):
        if transport.is_closing():
            return
        # Waits while the reader does not read: a huge body must not pile up here.
        await request.writer.drain()
        transport.write(data[position : position + CHUNK])


def _done(*, keep: bool) -> Sent:
    return _KEEP if keep else _CLOSE


def _sent(*, keep: bool) -> Sent:
    sent = Sent()
    if not keep:
        sent.force_close()
    else:
        sent._keep_alive = True  # noqa: SLF001  aiohttp sets it in prepare(), which is not its own here
    return sent


_KEEP, _CLOSE = _sent(keep=True), _sent(keep=False)
