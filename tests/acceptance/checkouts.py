"""A checkout whose system runs, for readers of documents, and for tests that need a reconciler with short times."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.postgres import programs
from tests.acceptance.stacks import Stack, environment_of_a_stack
from tests.process import ROOT
from tests.terminal import Terminal

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", ".tidings", "node_modules", "__pycache__", ".*_cache", ".hypothesis"
)
# A reconciler that looks at what is seconds old.
HASTY = {
    "RECONCILER_GRACE_SECONDS": "4",
    "RECONCILER_SETTLE_SECONDS": "2",
    "RECONCILER_REPEAT_SECONDS": "10",
    "RECONCILER_INTERVAL_SECONDS": "0.5",
}


@dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, with its system running. `stack` looks at it from outside, `starts` is what its two starts
    have printed.
    """

    directory: Path
    environment: dict[str, str]
    stack: Stack
    starts: Sequence[str]

    def terminal(self, **replaced: str) -> Terminal:
        return Terminal(self.directory, self.environment, replaced)


@contextmanager
def running_checkout() -> Iterator[Checkout]:
    """The system of a checkout, which two people start at once; at the end nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="tidings-documents-") as name:
        Path(name).chmod(0o755)
        directory = Path(name) / "checkout"
        shutil.copytree(ROOT, directory, ignore=NOT_COPIED)
        # The packages are those that the tests have: PYTHON is what would install them.
        (directory / ".venv").symlink_to(sys.prefix)
        own = {"PYTHON": "true", "PYTHONUNBUFFERED": "1", "PATH": f"{programs()}:{os.environ['PATH']}"}
        environment = environment_of_a_stack() | own | HASTY
        stack = Stack(environment | {"TIDINGS_HOME": str(directory / ".tidings")})
        terminals = [Terminal(directory, environment, {}) for _ in range(2)]
        try:
            with ThreadPoolExecutor() as people:
                starts = list(people.map(lambda terminal: terminal.run("make up", seconds=90), terminals))
            assert any("up: api" in printed for printed in starts)
            yield Checkout(directory, environment, stack, starts)
        finally:
            terminals[0].run("make down")
