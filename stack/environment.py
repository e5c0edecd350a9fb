"""The environment of a third-party server: only the variables that it needs, so that no secret reaches a process that
does not need it.
"""

from __future__ import annotations

import os
from pathlib import Path

JAVA = ("PATH", "HOME", "LANG", "TIDINGS_JAVA_LOG_LEVEL")
# The data are created without a locale; initdb writes the time zone into the configuration.
POSTGRES = ("PATH", "LANG", "TZ")


def caller(names: tuple[str, ...]) -> dict[str, str]:
    """Return those of `names` that are set in this process."""
    return {name: os.environ[name] for name in names if name in os.environ}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
