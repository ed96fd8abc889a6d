"""A reader of the documents: a home as README stages it, and somebody who types what is shown."""

import json
import os
import re
import select
import signal
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.exchange import QUICK, Exchange, eventually, running_exchange
from tests.parts.understudy import Dressing, Understudy, cancelq
from tests.parts.valkey import free_port

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent
BOUND = 60.0
POLL = 0.01
# What the documents leave to the reader, and the folders that they name as seen from the project.
TOKEN, FIXED_PORT = "…", "8055"
DIGEST = re.compile(r"\b(?:[0-9a-f]{64}|DIGEST)\b")
ACCOUNT, CONTRACT = re.compile(r"--account A\b"), "ESZ6"
FOLDERS = (".venv", "bench", "deploy", "docs")
READY = "worker.started"
# Commands that run until they are told to end, and what they say when they are ready.
SERVING = {"worker": READY, "up": READY, "simulator": '"url"'}
# `cancelq` in the reader's shell: it lends its arguments, its place and its files to an understudy.
CANCELQ = f"""#!{sys.executable} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as stage:
    stage.connect(os.path.join(os.path.dirname(sys.argv[0]), "stage"))
    said = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd(), "pid": os.getpid()}}
    stage.sendall(json.dumps(said).encode() + b"\\n")
    sys.exit(int(stage.recv(16) or 1))
"""
# What is sent away stays here; nothing sent is no letter.
MAIL = '#!/bin/sh\ngrep . > "$TMPDIR/letter"\n'


@dataclass(frozen=True, slots=True)
class Shown:
    """One block of a document."""

    where: str
    kind: str
    text: str


def shown(*kinds: str) -> list[Shown]:
    """All blocks of these kinds, told by document and line."""
    return [
        Shown(f"{path.relative_to(ROOT)}:{read.count(chr(10), 0, found.start()) + 1}", found[1], text)
        for path in DOCUMENTS
        for read in [path.read_text()]
        for found in BLOCK.finditer(read)
        if found[1] in kinds
        for text in [textwrap.dedent(found[2])]
    ]


@dataclass
class House:
    """A folder with an embedded ledger and audit, a worker, and three cancels that have ended."""

    folder: Path
    exchange: Exchange
    worker: Understudy | None = None
    unresolved: str = ""
    digest: str = ""
    _visits: int = field(default=0, init=False)

    def environment(self, **more: str) -> Mapping[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")}
        return {
            **plain,
            "PATH": f"{self.folder / 'bin'}:{BIN}:{os.environ['PATH']}",
            "TMPDIR": str(self.folder),
            "CANCELQ_EXCHANGE_URL": self.exchange.url,
            "CANCELQ_ACCESS_TOKEN": "any",
            "CANCELQ_CONFIRM_BUDGET": "1",
            "CANCELQ_HOME": ".cancelq",
            **more,
        }

    def open(self) -> None:
        """Have a worker; one that a block has sent away is called back."""
        if self.worker is not None and self.worker.poll() is not None:
            self.say("resume")
        if self.worker is None or self.worker.poll() is not None:
            log = self.folder / f"worker-{self._visits}.log"
            self.worker = Understudy(["worker"], self.environment(), Dressing(log, log, folder=self.folder))
            eventually(lambda: READY in log.read_text(), seconds=30, what="a worker")

    def say(self, *arguments: str) -> str:
        """What one `cancelq` command here prints."""
        return cancelq(arguments, self.environment(), folder=self.folder).stdout

    def run(self, command: list[str], *, home: Path | None = None, **more: str) -> tuple[int, str]:
        """A command and all that it leaves in the background; its exit code and what it said."""
        said = self.folder / f"said-{(visit := self._visits)}"
        self._visits = visit + 1
        with said.open("ab") as out:
            process = subprocess.Popen(
                command,
                env=self.environment(**more),
                cwd=home or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            code = process.wait(BOUND)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return code, said.read_text()

    def type(self, text: str, **more: str) -> tuple[int, str]:
        """Type a block; one that starts an exchange of its own needs a home of its own, as its ledger is stamped."""
        home = self.folder
        if "cancelq simulator" in text:
            home = furnished(self.folder / f"other-{self._visits}")
        typed = DIGEST.sub(self.digest, ACCOUNT.sub("--account DEMO1", text.replace(TOKEN, "any")))
        typed = typed.replace("JOB_ID", self.unresolved).replace("ORDER_ID", "1001")
        return self.run(["sh", "-ec", typed.replace(FIXED_PORT, str(free_port()))], home=home, **more)

    def cancel(self, order: int, *options: str) -> str:
        """Ask for a cancel and wait for its end; the job's id."""
        said = self.say("enqueue", str(order), "--account", "DEMO1", *options, "--wait")
        answer = json.loads(said)
        assert answer["state"] == "done", said
        return str(answer["jobId"])


class Stage(socketserver.ThreadingUnixStreamServer):
    """Where the reader's `cancelq` finds its understudies: a start of 0.1 s instead of a second."""

    daemon_threads = True


class Cue(socketserver.StreamRequestHandler):
    """One command; it ends by itself, or with the reader's patience, as a process of the shell's own would.

    A serving one is told to end once it is ready.
    """

    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        files = Path(f"/proc/{asked['pid']}/fd")
        said = _Said((files / "2").resolve())
        process = Understudy(
            asked["arguments"],
            asked["environment"],
            Dressing(files / "1", files / "2", files / "0", Path(asked["folder"])),
        )
        if (ready := SERVING.get(asked["arguments"][0])) is not None:
            _end_when_ready(process, ready, said)
        code = self._end_of(process)
        with suppress(BrokenPipeError):  # nobody waits for what was left in the background
            self.wfile.write(str(code).encode())

    def _end_of(self, process: Understudy) -> int:
        give_up = time.monotonic() + BOUND
        while process.poll() is None and time.monotonic() < give_up:
            if select.select([self.connection], [], [], POLL)[0]:  # it was killed that stood for this one
                break
        process.kill()
        return process.wait(BOUND)


class _Said:
    """What a file has got since now."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = log.stat().st_size if log.is_file() else 0

    def __contains__(self, words: str) -> bool:
        return words.encode() in self._log.read_bytes()[self._start :]


def _end_when_ready(process: Understudy, ready: str, said: _Said) -> None:
    eventually(lambda: ready in said or process.poll() is not None, seconds=30, what=ready)
    process.terminate()


def furnished(folder: Path) -> Path:
    """With what the documents name by its path in the project."""
    folder.mkdir(exist_ok=True)
    for name in FOLDERS:
        (folder / name).symlink_to(ROOT / name)
    return folder


@contextmanager
def house(folder: Path) -> Iterator[House]:
    home = furnished(folder)
    with running_exchange() as exchange, _stage(home / "bin"):
        exchange.defaults(**QUICK)
        exchange.add_orders(*range(1001, 1010), account="DEMO1")
        exchange.contracts(**{CONTRACT: 1})
        exchange.script(1002, {"reply": {"failureReason": "TradingLocked"}})
        made = House(home, exchange)
        try:
            made.open()
            made.cancel(1001)
            made.cancel(1002)
            made.unresolved = made.cancel(1003, "--deadline", "0")
            made.digest = json.loads(made.say("verify", "--json"))["digest"]
            yield made
        finally:
            if made.worker is not None:
                made.worker.terminate()
                made.worker.wait(BOUND)


@contextmanager
def _stage(folder: Path) -> Iterator[None]:
    folder.mkdir()
    for name, text in (("cancelq", CANCELQ), ("mail", MAIL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    with Stage(str(folder / "stage"), Cue) as stage:
        threading.Thread(target=stage.serve_forever, name="stage", daemon=True).start()
        yield
        stage.shutdown()
