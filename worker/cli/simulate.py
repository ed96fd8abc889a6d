"""`cancelq simulator`: the exchange, on this machine."""

from worker.simulator.command import simulator

__all__ = ["simulator"]
