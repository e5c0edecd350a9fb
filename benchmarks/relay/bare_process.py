"""Starts the process of the bare loop, and sends it orders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from stack.servers import die_with_parent
from tests.process import ROOT


@dataclass(frozen=True)
class Bare:
    process: subprocess.Popen[str]

    def order(self, urls: Sequence[str], concurrency: int | None) -> None:
        """Order calls of `urls`, `concurrency` at a time (None: all at once). `answer` waits for their end."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"urls": list(urls), "concurrency": concurrency}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, float]:
        """The start and the end of the last order, in epoch seconds, and the number of its answers."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, "the bare loop ended"
        return dict(json.loads(text))


@contextmanager
def bare() -> Iterator[Bare]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.relay.bare"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )
    try:
        found = Bare(process)
        found.answer()
        yield found
    finally:
        process.kill()
        process.wait(20)
