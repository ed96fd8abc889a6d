"""The /sim side: stages orders and faults, tells the truth. Never seen by the program under test."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import script, wire

if TYPE_CHECKING:
    from .server import Exchange

# So many lines go out before others get their turn.
LINES_AT_ONCE = 500


async def serve(
    exchange: "Exchange", request: web.BaseRequest, name: str, *, query: Mapping[str, str]
) -> web.StreamResponse:
    """One admin request."""
    world, truth = exchange.world, exchange.truth
    if request.method == "POST":
        return await _post(exchange, request, name)
    since = query.get("since", "0")
    lists = {
        "truth": lambda: truth.orders(world.book),
        "calls": lambda: iter(list(truth.calls)),
        "requests": lambda: truth.requests(int(since) if since.isdecimal() else 0),
    }
    if name in lists:
        return await _stream(request, lists[name]())
    if name == "health":
        kept = {"requests_seen": truth.seen, "requests_kept": len(truth.log)}
        return wire.write(request, wire.json_answer({"ok": True, "orders": len(world.book.orders), **kept}))
    if name == "auth":
        return wire.write(request, wire.json_answer(world.desk.sessions.counts))
    return wire.write(request, wire.text_answer(404, "Not found"))


async def _post(exchange: "Exchange", request: web.BaseRequest, name: str) -> web.StreamResponse:
    try:
        body = json.loads(await request.read() or b"{}")
        said = _stage(exchange, name, body)
    except (ValueError, RecursionError) as error:
        return wire.write(request, wire.json_answer({"error": str(error)}, status=400))
    if said is None:
        return wire.write(request, wire.text_answer(404, "Not found"))
    return wire.write(request, wire.json_answer(said))


def _stage(exchange: "Exchange", name: str, body: Any) -> dict[str, Any] | None:
    """Changes the stage; None when there is no such door."""
    world = exchange.world
    match name:
        case "orders":
            return {"added": world.add(script.orders(body))}
        case "script":
            return {"scripted": world.script(script.orders(body))}
        case "faults":
            found = script.script(body)
            world.load(found)
            return {"ok": True}
        case "reset":
            exchange.reset()
            return {"ok": True}
    return None


async def _stream(request: web.BaseRequest, lines: Iterator[dict[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    chunk: list[str] = []
    for line in lines:
        chunk.append(json.dumps(line) + "\n")
        if len(chunk) == LINES_AT_ONCE:
            await response.write("".join(chunk).encode())
            await asyncio.sleep(0)
            chunk = []
    await response.write("".join(chunk).encode())
    await response.write_eof()
    return response
