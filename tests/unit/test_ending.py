"""A request to end, met in the middle of anything."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENDS_WITHIN_EXEC = """
import os, signal, sys
from worker.app.ending import AskedToEnd, Ending, interrupt

ending = Ending()
ending.means(interrupt)
ending.listen()
try:
    exec("os.kill(os.getpid(), int(sys.argv[1])); os.kill(os.getpid(), int(sys.argv[1]))")
except AskedToEnd:
    sys.exit(7)
"""


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_the_exit_code_is_the_programs_own(tmp_path: Path, asked: signal.Signals) -> None:
    """Run by `-m`, as a worker is: there a KeyboardInterrupt that met generated code would end it with -SIGINT."""
    (tmp_path / "ends_within_exec.py").write_text(ENDS_WITHIN_EXEC)
    child = subprocess.run(
        [sys.executable, "-m", "ends_within_exec", str(int(asked))], cwd=tmp_path, timeout=20, check=False
    )
    assert child.returncode == 7
