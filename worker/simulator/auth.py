"""The /v1/auth doors, who may in with which token, and what each user sees. `sessions.py` keeps the tokens."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from . import wire
from .moments import iso, within
from .sessions import WRONG, Standing
from .steps import NATURAL, Step
from .wire import Answer
from .world import Queue, World

LOGIN, RENEWAL = "/auth/accesstokenrequest", "/auth/renewaccesstoken"
DENIED = Answer(401, b"Access is denied", wire.TEXT)
LOCKED_OUT = Answer(429, b"", None)
# Whose ids these endpoints are asked for, by the parameter that names them.
ORDERS_ASKED = {
    "/order/item": "id",
    "/order/items": "ids",
    "/fill/ldeps": "masterids",
    "/command/deps": "masterid",
}
# What these show depends on the accounts that the caller sees.
BY_ACCOUNT = frozenset({"/account/list", "/order/list", "/order/deps"})


def refusal(world: World, request: web.BaseRequest) -> Answer | None:
    """The door's answer to a call that may not in."""
    token = bearer(request)
    if token is None:
        return DENIED
    desk = world.desk
    match desk.sessions.standing(token):
        case Standing.LIVE:
            return None
        case Standing.EXPIRED:
            return DENIED
        case Standing.EVICTED:
            desk.met += 1
            status = desk.evicted[desk.met % len(desk.evicted)]
            return LOCKED_OUT if status == 429 else wire.plain_answer(status)
        case Standing.FOREIGN:
            return None if world.rules.token in {None, token} else DENIED


def bearer(request: web.BaseRequest) -> str | None:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def unseen(world: World, request: web.BaseRequest, order_id: int | None) -> Answer | None:
    """What a cancel meets whose order the caller does not see."""
    denied = {"failureReason": "UnknownReason", "failureText": "Access is denied"}
    return wire.json_answer(denied) if hidden(world, request, order_id or 0) else None


def hidden(world: World, request: web.BaseRequest, order_id: int) -> bool:
    """Whether the order is of an account that this caller does not see."""
    seen = world.desk.sessions.accounts(bearer(request) or "")
    order = world.book.orders.get(order_id)
    return seen is not None and order is not None and order.account not in seen


def visible(world: World, request: web.BaseRequest, path: str, query: Mapping[str, str]) -> dict[str, str]:
    """The query without what this caller does not see: order 0 is nobody's."""
    seen = world.desk.sessions.accounts(bearer(request) or "")
    if seen is None:
        return dict(query)
    if path in BY_ACCOUNT:
        return {**query, "seen": ",".join(seen)}
    name = ORDERS_ASKED.get(path, "")
    asked = query.get(name, "").split(",")
    shown = ["0" if part.isdecimal() and hidden(world, request, int(part)) else part for part in asked]
    return {**query, name: ",".join(shown)}


async def serve(world: World, request: web.BaseRequest, path: str) -> web.StreamResponse:
    """One login or renewal, as its script wants it."""
    body = _object(await request.read())
    queue = world.desk.logins if path == LOGIN else world.desk.renewals
    step, answer = _decide(world, request, path, queue=queue, body=body)
    delay = step.delay + within(world.rules.read_latency, 0.5)
    if delay > 0:
        await asyncio.sleep(delay)
    return await wire.send(request, answer, step)


def _decide(
    world: World, request: web.BaseRequest, path: str, *, queue: Queue, body: Mapping[str, Any]
) -> tuple[Step, Answer]:
    step = queue.head()
    if step.penalty is not None:
        if not queue.served(body):
            return step, wire.json_answer(step.penalty.as_json())
        queue.drop_head()
        step = NATURAL
    else:
        step = queue.take()
    answer = _usual(world, request, path, body) if step.takes_effect == "before" else None
    return step, _said(step, answer or wire.plain_answer(step.status or 500))


def _usual(world: World, request: web.BaseRequest, path: str, body: Mapping[str, Any]) -> Answer:
    sessions = world.desk.sessions
    if path == RENEWAL:
        refused = refusal(world, request)
        made = sessions.renew(bearer(request) or "") if refused is None else None
        return refused or (_granted(*made) if made is not None else DENIED)
    if sessions.locked():
        return LOCKED_OUT
    made = sessions.log_in(body)
    return (
        _granted(*made, str(body.get("name"))) if made is not None else wire.json_answer({"errorText": WRONG})
    )


def _granted(token: str, end: float, name: str = "") -> Answer:
    said = {"accessToken": token, "mdAccessToken": token, "expirationTime": iso(end), "userStatus": "Active"}
    return wire.json_answer({**said, "userId": 1, "name": name, "hasLive": False})


def _said(step: Step, usual: Answer) -> Answer:
    if step.reply is not None:
        return wire.json_answer(step.reply, status=step.status or 200)
    if step.text is not None:
        return wire.text_answer(step.status or 200, step.text)
    return wire.plain_answer(step.status) if step.status is not None else usual


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
