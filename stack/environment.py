"""What a server that is not ours gets of the caller's environment: what it needs, so no secret goes where it has no use."""

from __future__ import annotations

import os
from pathlib import Path

JAVA = ("PATH", "HOME", "LANG", "TIDINGS_JAVA_LOG_LEVEL")
# Its data are made without a locale; initdb writes the time zone into the configuration.
POSTGRES = ("PATH", "LANG", "TZ")


def caller(names: tuple[str, ...]) -> dict[str, str]:
    """Of `names` those that this process has."""
    return {name: os.environ[name] for name in names if name in os.environ}


def write_private(path: Path, text: str) -> None:
    """Readable by its owner alone from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
