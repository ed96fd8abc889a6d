"""`python -m bench.peers saq work` and `… produce`: one peer's worker, or its producer."""

import asyncio
import sys
from importlib import import_module

from worker.embedded.lifeline import die_with_parent


def main(peer: str, role: str) -> None:
    module = import_module(f"bench.peers.with_{peer}")
    if role == "work":
        die_with_parent()
        module.work()
    else:
        asyncio.run(module.produce())


if __name__ == "__main__":
    main(*sys.argv[1:])
