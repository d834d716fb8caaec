"""A command on a terminal of its own, which a test reads and answers."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

LIMIT = 240.0  # seconds


class Terminal:
    """``itemic …`` on a pseudo-terminal without colours.

    Args:
        arguments: of the command line.
        cwd: where it runs.
    """

    def __init__(self, *arguments: str | Path, cwd: Path | None = None) -> None:
        ours, theirs = pty.openpty()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
        code = "from itemic.cli import main; main()"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment, close_fds=True
        )
        os.close(theirs)
        self._file, self._seen, self.text = ours, 0, ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._file)

    def expect(self, pattern: str) -> re.Match[str]:
        """Read on until a pattern comes, after what was found before."""
        stop = time.monotonic() + LIMIT
        while (found := re.compile(pattern).search(self.text, self._seen)) is None:
            assert time.monotonic() < stop, f"no {pattern!r} in:\n{self.text}"
            assert self._read(), f"ended without {pattern!r}:\n{self.text}"
        self._seen = found.end()
        return found

    def send(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())

    def answer(self, question: str, line: str) -> None:
        self.expect(question)
        self.send(line)

    def ends(self) -> int:
        """Read to the end; the exit status."""
        while self._read():
            pass
        return self.process.wait(timeout=LIMIT)

    def _read(self) -> bool:
        if not select.select([self._file], [], [], LIMIT)[0]:
            return False
        try:
            found = os.read(self._file, 65536)
        except OSError:  # the other end is closed
            return False
        self.text += found.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(found)
