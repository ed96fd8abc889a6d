"""The process: binds to loopback, says where, serves until a signal or its parent's end."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from .mix import PROFILES
from .script import Script, load
from .server import Exchange
from .truth import Truth

# After a signal, answers under way get this long.
GRACE = 0.2
# Batched reads name many ids in one URL.
LONGEST_URL = 1 << 18


@dataclass(frozen=True, slots=True)
class Options:
    port: int = 0
    seed: int = 1
    script: Path | None = None
    profile: str | None = None
    token: str | None = None
    truth: Path | None = None
    request_log: int = 500_000
    die_with_parent: bool = False


def run(options: Options) -> None:
    """Serves until SIGTERM or SIGINT. A ScriptError says what is wrong with the script."""
    script = load(options.script) if options.script is not None else Script()
    if options.profile is not None:
        script = Script(script.defaults, script.orders, PROFILES[options.profile])
    truth = Truth(log_cap=options.request_log, file=options.truth)
    try:
        asyncio.run(_serve(options, Exchange(truth, script, options.seed, options.token)))
    finally:
        truth.close()


async def _serve(options: Options, exchange: Exchange) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # A caller that hangs up ends its handler: drips and delays must not outlive it.
    server = web.Server(exchange.serve, handler_cancellation=True, access_log=None, max_line_size=LONGEST_URL)
    listener = await loop.create_server(server, "127.0.0.1", options.port, backlog=4096)
    port = listener.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}/v1"}), flush=True)  # noqa: T201  the product of this command
    if options.die_with_parent:
        _watch_stdin(lambda: loop.call_soon_threadsafe(stop.set))
    await stop.wait()
    listener.close()
    await server.shutdown(GRACE)


def _watch_stdin(ended: Callable[[], object]) -> None:
    def wait() -> None:
        while os.read(0, 4096):
            pass
        ended()

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()
