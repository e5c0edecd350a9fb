"""The steps of a start: told by the stack as it goes, in a file, and shown by whoever waits for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Steps:
    """Appends one JSON line at the begin and the end of each step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self._tell({"step": name, "state": "begun"})
        yield
        self._tell({"step": name, "state": "done", "seconds": round(time.monotonic() - started, 1)})

    def failed(self, reason: str) -> None:
        self._tell({"state": "failed", "reason": reason})

    def ready(self) -> None:
        self._tell({"state": "ready"})

    def _tell(self, line: dict[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
