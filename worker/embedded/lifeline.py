"""Ends this process when its parent is gone, however it went: the parent holds the other end of stdin."""

import os
import signal
import threading

STDIN = 0


def die_with_parent() -> None:
    """Watch stdin in the background; its end is the parent's end, and then nothing may stay behind."""
    threading.Thread(target=_watch, name="lifeline", daemon=True).start()


def _watch() -> None:
    while os.read(STDIN, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
