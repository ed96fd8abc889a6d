"""POST /order/cancelorder: finds the order, plays its next step, answers. The book decides what a cancel does."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from . import wire
from .auth import unseen
from .book import Order, Ruling, Wish
from .moments import chance, from_iso, now, within
from .steps import NATURAL, Step
from .truth import Tally, short
from .wire import Answer
from .world import World

LABELS = ("clOrdId", "customTag50", "isAutomated", "activationTime")


async def post_cancel(
    world: World, request: web.BaseRequest, *, refused: Answer | None
) -> web.StreamResponse:
    """One POST, logged from its arrival to its answer, whatever becomes of it. `refused` is the door's answer."""
    transport = wire.transport_of(request)
    raw = await request.read()
    body = _json(raw)
    order_id = _order_id(body)
    seen = world.truth.arrived(raw, _peer(transport), order_id=order_id)
    tally = world.truth.begin(seen, transport)
    try:
        refused = refused or unseen(world, request, order_id)
        step, answer = (NATURAL, refused) if refused else _decide(world, body, order_id, tally=tally)
        await _wait(world, order_id or 0, seen.seq, delay=step.delay)
        if step.drop is None and step.reset is None:
            seen.status, seen.answer, seen.command_id = answer.status, short(answer.body), answer.command_id
        sent = await wire.send(request, answer, step)
    except (asyncio.CancelledError, ConnectionError):
        seen.fate = "gone"
        raise
    else:
        seen.fate = _fate(step)
        return sent
    finally:
        world.truth.end(seen, tally, transport)


def _decide(world: World, body: Any, order_id: int | None, *, tally: Tally) -> tuple[Step, Answer]:
    if order_id is None:
        return NATURAL, wire.text_answer(400, "Invalid or missed parameters")
    order = world.book.placed(order_id)
    if order is None:
        return NATURAL, wire.text_answer(404, "Not found")
    queue = world.post_queue(order)
    step = queue.head()
    if step.penalty is not None:
        if not queue.served(body):
            return step, wire.json_answer(step.penalty.as_json())
        queue.drop_head()
        step = replace(step, penalty=None)
    else:
        step = queue.take()
    ruling = _act(world, order, step, body=body, tally=tally)
    return step, _said(step, ruling)


def _act(world: World, order: Order, step: Step, *, body: dict[str, Any], tally: Tally) -> Ruling | None:
    """Does to the order what the step says; None when the cancel is not done now."""
    if step.fill_first:
        world.book.fill(order, at=now())
    elif step.partial_fill is not None:
        world.book.fill(order, at=now(), qty=step.partial_fill)
    elif order.qty > 1 and not order.fills and world.mix.fills_partly(world.rules.seed, order.id):
        world.book.fill(order, at=now(), qty=max(1, order.qty // 2))
    wish = _wish(world, order, step, body=body)
    if step.takes_effect == "before":
        return world.book.cancel(order, wish)
    if step.takes_effect == "after":
        tally.delayed += 1
        asyncio.get_running_loop().call_later(
            step.delay + step.effect_delay, _act_late, world, order, wish, tally
        )
    return None


def _act_late(world: World, order: Order, wish: Wish, tally: Tally) -> None:
    tally.delayed -= 1
    world.book.cancel(order, wish)


def _wish(world: World, order: Order, step: Step, *, body: dict[str, Any]) -> Wish:
    settle = step.settle if step.settle is not None else world.book.settle(order)
    labels = {name: body[name] for name in LABELS if name in body}
    wish = Wish(settle=settle, starts_in=_starts_in(labels), labels=labels)
    if step.fill_after:
        return replace(wish, ending="Filled")
    if step.late_reject is not None:
        return replace(wish, ending="rejected", reason=step.late_reject, quiet=step.quiet)
    return wish


def _starts_in(labels: Mapping[str, Any]) -> float:
    try:
        return max(0.0, from_iso(labels["activationTime"]) - now())
    except (KeyError, TypeError, ValueError):
        return 0.0


def _said(step: Step, ruling: Ruling | None) -> Answer:
    """The answer's words: the step's own, else what the book ruled."""
    status = step.status or (302 if step.location is not None else 200)
    command_id = ruling.command_id if ruling is not None and step.with_command else None
    extra = {} if command_id is None else {"commandId": command_id}
    if step.reply is not None:
        body = step.reply | extra if isinstance(step.reply, dict) else step.reply
        said = body.get("commandId") if isinstance(body, dict) else None
        return wire.json_answer(body, status=status, command_id=said if isinstance(said, int) else None)
    if step.reason is not None:
        text = step.failure_text if step.failure_text is not None else f"Cancel failed: {step.reason}"
        body = {"failureReason": step.reason, "failureText": text, **extra}
        return wire.json_answer(body, status=status, command_id=command_id)
    if step.text is not None:
        return wire.text_answer(status, step.text)
    if ruling is not None and status == 200:
        return wire.json_answer(ruling.as_json(), command_id=ruling.command_id)
    return wire.json_answer({}) if step.status is None and status == 200 else wire.plain_answer(status)


async def _wait(world: World, order_id: int, seq: int, *, delay: float) -> None:
    low, high = world.rules.latency
    share = 0.0 if low == high else chance(world.rules.seed, order_id, f"latency{seq}")
    total = delay + within((low, high), share)
    if total > 0:
        await asyncio.sleep(total)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _order_id(body: Any) -> int | None:
    found = body.get("orderId") if isinstance(body, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _fate(step: Step) -> str:
    if step.drop is not None:
        return "dropped"
    if step.reset is not None:
        return "reset"
    spoiled = step.garbage or step.cut_body or step.gzip or step.content_length is not None
    return "spoiled" if spoiled else "answered"


def _peer(transport: asyncio.Transport) -> str:
    host, port, *_ = transport.get_extra_info("peername") or ("", 0)
    # One text per connection, however many requests it carries.
    return sys.intern(f"{host}:{port}")
