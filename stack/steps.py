"""The steps of a start. The stack writes them to a file as it proceeds; a waiting command displays them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Steps:
    """Appends one JSON line at the beginning and the end of each step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_text("")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self._write({"step": name, "state": "begun"})
        yield
        self._write({"step": name, "state": "done", "seconds": round(time.monotonic() - started, 1)})

    def failed(self, reason: str) -> None:
        self._write({"state": "failed", "reason": reason})

    def ready(self) -> None:
        self._write({"state": "ready"})

    def _write(self, line: dict[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
