"""Standard output that is full: told in one line, like a file that cannot be written."""

import errno
import io
import sys
from typing import IO, Any

import click


class Unwritable(click.ClickException):
    """What was asked for could not be put out."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"cancelq: {self.message}", file=file, err=True)


class _Output(io.FileIO):
    """Tells its own troubles from those of every other file. A reader that went away is no trouble."""

    _failed = False

    def write(self, data: Any) -> int:
        if self._failed:  # what is left in buffers
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            self._failed = True
            raise Unwritable(f"standard output cannot be written: {error.strerror}") from error


def watch_stdout() -> None:
    """From now on a disk that is full behind stdout is Unwritable."""
    out = sys.stdout
    if out is not sys.__stdout__ or not isinstance(out, io.TextIOWrapper):  # taken by somebody, or closed
        return
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(out.fileno(), "w", closefd=False)),
        encoding=out.encoding,
        errors=out.errors,
        line_buffering=out.line_buffering,
    )
