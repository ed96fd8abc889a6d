"""Host names → addresses, looked up beside the request and never waited for without a bound."""

import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import timedelta

from worker.clock import monotonic

# How long a looked-up address serves before it is refreshed in the background.
NAME_LIFE = timedelta(seconds=60)

Address = tuple[int, str, int]  # family, host, port


class Names:
    """What the resolver said lately; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], tuple[timedelta, list[Address]]] = {}
        self._asking: dict[tuple[str, int], Future[list[Address]]] = {}
        self._aside: set[Address] = set()  # by which nobody could be reached lately

    def addresses(self, host: str, port: int, within: float) -> list[Address]:
        """Fresh or stale addresses at once; unknown ones within `within` seconds, else OSError.

        In the resolver's order, those last by which nobody could be reached: each would cost a connection's bound.
        """
        found = self._addresses(host, port, within)
        return sorted(found, key=self._aside.__contains__) if self._aside else found

    def set_aside(self, address: Address) -> None:
        """Nobody was reached by it: others come first until the resolver is asked again."""
        self._aside.add(address)

    def _addresses(self, host: str, port: int, within: float) -> list[Address]:
        key = (host, port)
        known = self._known.get(key)
        if known is not None and monotonic() - known[0] < NAME_LIFE:
            return known[1]
        answer = self._ask(key)
        if known is not None:
            return known[1]
        try:
            return answer.result(timeout=within)
        except FutureTimeout:
            raise OSError(f"no address for {host} within {within:g} s") from None

    def _ask(self, key: tuple[str, int]) -> Future[list[Address]]:
        with self._lock:
            asking = self._asking.get(key)
            if asking is None:
                asking = self._asking[key] = Future()
                looking = threading.Thread(target=self._look_up, args=(key, asking), daemon=True)
                try:
                    looking.start()
                except RuntimeError as error:  # the host gives no thread
                    del self._asking[key]
                    asking.set_exception(OSError(f"no look-up of {key[0]}: {error}"))
            return asking

    def _look_up(self, key: tuple[str, int], answer: "Future[list[Address]]") -> None:
        try:
            found = socket.getaddrinfo(*key, type=socket.SOCK_STREAM)
            addresses = [(int(family), str(where[0]), key[1]) for family, _, _, _, where in found]
            self._aside.difference_update(addresses)
            self._known[key] = (monotonic(), addresses)
            answer.set_result(addresses)
        except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
            answer.set_exception(error)
        finally:
            with self._lock:
                self._asking.pop(key, None)


NAMES = Names()
