"""A terminal that runs the commands of a document."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.wait import patient

# The commands whose effects later commands of the same terminal need: sourced files and variables.
_LASTING = re.compile(r"^(?:\. \S+|(?:export )?[A-Za-z_]+=(?:'[^']*'|\S*)(?: [A-Z_]+=\S*)*)$")


class Terminal:
    """A shell in `directory`. `replaced`: the values for placeholders in documents."""

    def __init__(self, directory: Path, environment: Mapping[str, str], replaced: Mapping[str, str]) -> None:
        self.directory = directory
        self.environment = dict(environment)
        self.replaced = dict(replaced)
        self._lasting: list[str] = []

    def run(self, text: str, *, seconds: float = 60) -> str:
        """Run commands to their end, and return their output. The first that fails fails the test."""
        done = subprocess.run(
            self._command(text), cwd=self.directory, env=self.environment,
            capture_output=True, text=True, timeout=patient(seconds), check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, text: str) -> Iterator[Path]:
        """Run commands that do not end by themselves. Yields the file with their output. Ctrl-C ends them."""
        number = len(list(self.directory.glob("*.printed")))
        printed = self.directory / f"{number}.printed"
        with printed.open("wb") as output:
            process = subprocess.Popen(
                self._command(text), cwd=self.directory, env=self.environment,
                stdout=output, stderr=output, start_new_session=True, preexec_fn=_default_interrupt,  # noqa: PLW1509
            )  # fmt: skip
        try:
            yield printed
            assert process.poll() is None, printed.read_text()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(patient(10))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def _command(self, text: str) -> list[str]:
        for shown, value in self.replaced.items():
            text = text.replace(shown, value)
        before = "\n".join(self._lasting)
        self._lasting += [line for line in text.splitlines() if _LASTING.match(line)]
        return ["sh", "-ec", f"{before}\n{text}"]


def _default_interrupt() -> None:
    """A shell starts background jobs with SIGINT ignored, and their children inherit that; a terminal's are not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
