"""A producer as a process: "first count" lines in, and for each, once all is stored, the time (µs) the call began."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

Enqueue = Callable[[range], Awaitable[object]]


async def serve(enqueue: Enqueue) -> None:
    """Until the end of stdin, which is the bench's end."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        first, count = map(int, line.split())
        begun = time.time_ns() // 1000
        await enqueue(range(first, first + count))
        print(begun, flush=True)
