"""The parts of `cancelq up`: child processes of this program, and the embedded Valkey."""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from worker.embedded import child
from worker.embedded.valkey import EmbeddedValkey, ensure

if TYPE_CHECKING:
    from subprocess import Popen

# What a part counts as ended with when there is no process to tell.
GONE = -1


class ChildPart:
    """A `cancelq …` process; what it says goes to our stderr."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stop_bound: timedelta,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._arguments = (*arguments, "--die-with-parent")
        self._environment = {**os.environ, **environment}
        self._stop_bound = stop_bound
        self._pass_fds = pass_fds
        self._process: Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        self.stop()
        self._process = child.start(
            self._arguments,
            environment=self._environment,
            stdout=sys.stderr.fileno(),
            pass_fds=self._pass_fds,
        )

    def exit_code(self) -> int | None:
        return self._process.poll() if self._process is not None else GONE

    def stop(self) -> None:
        if self._process is not None:
            child.stop(self._process, self._stop_bound)
            self._process = None


class ValkeyPart:
    """The embedded Valkey of one CANCELQ_HOME, in the same folder each time: what it acknowledged is still there."""

    name = "valkey"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server: EmbeddedValkey | None = None

    @property
    def url(self) -> str:
        return self._server.url if self._server is not None else ""

    @property
    def pid(self) -> int | None:
        """None while another process's server is shared."""
        return self._server.pid if self._server is not None else None

    def start(self) -> None:
        self.stop()
        self._server = ensure(self._home)

    def exit_code(self) -> int | None:
        """A shared server's end is not ours to mend: whoever shares it starts it again by itself."""
        return self._server.exit_code if self._server is not None else GONE

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
