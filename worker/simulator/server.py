"""The doors: /v1 for the exchange's callers, /sim for whoever stages it. Decides who may in and where to."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from aiohttp import web

from . import admin, auth, wire
from .book import Rules
from .cancel import post_cancel
from .moments import within
from .reads import ENDPOINTS, BadQuery
from .script import Script
from .steps import NATURAL
from .truth import Truth
from .world import World

CANCEL = "/v1/order/cancelorder"


@dataclass(slots=True)
class Exchange:
    """Everything one simulator process serves."""

    truth: Truth
    script: Script
    seed: int
    token: str | None
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = self._fresh()
        self.world.load(self.script)

    def reset(self) -> None:
        """Back to the script's beginning; handlers under way keep the old world."""
        self.truth.forget()
        world = self._fresh()
        world.book.continue_commands(self.world.book)
        world.load(self.script)
        self.world = world

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request comes through here."""
        try:
            return await self._route(request)
        except (ConnectionError, web.RequestPayloadError):
            return wire.gone()

    def _fresh(self) -> World:
        return World(Rules(seed=self.seed, token=self.token), self.truth)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        lowered = path.lower()
        if lowered.startswith("/v1/"):
            self.truth.called(lowered)
        if lowered == CANCEL and request.method == "POST":
            return await post_cancel(self.world, request, refused=auth.refusal(self.world, request))
        if lowered[3:] in {auth.LOGIN, auth.RENEWAL} and lowered.startswith("/v1/"):
            return await auth.serve(self.world, request, lowered[3:])
        if lowered.startswith("/v1/"):
            return await self._read(request, lowered[3:], query)
        if lowered.startswith("/sim/"):
            return await admin.serve(self, request, lowered[5:], query=dict(parse_qsl(query)))
        return wire.write(request, wire.text_answer(404, "Not found"))

    async def _read(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        answer, step = auth.refusal(self.world, request), NATURAL
        endpoint = ENDPOINTS.get(path)
        if answer is None and (endpoint is None or request.method != "GET"):
            answer = wire.text_answer(404, "Not found")
        if answer is None and endpoint is not None:
            try:
                asked = auth.visible(self.world, request, path, dict(parse_qsl(query)))
                answer, step = endpoint(self.world, asked)
            except BadQuery as error:
                answer = wire.text_answer(400, str(error))
        delay = step.delay + within(self.world.rules.read_latency, 0.5)
        if delay > 0:
            await asyncio.sleep(delay)
        return await wire.send(request, answer or auth.DENIED, step)
