"""How a JVM program of ours is started: small, quick to start, dead rather than out of memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOGGING = Path(__file__).resolve().parent.parent / "debezium" / "log4j2.properties"

# Chosen for two cores and the first seconds: the serial collector has no threads to feed, and the first compiler alone
# is ready sooner. A broker and a worker are then up in 4 s rather than 7.
_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")


@dataclass(frozen=True)
class Jvm:
    """A Java and the class path of all our Java parts."""

    java: Path
    class_path: tuple[Path, ...]

    def command(self, main_class: str, arguments: Iterable[str], *, heap_mb: int) -> tuple[str, ...]:
        return (
            str(self.java),
            *_FLAGS,
            f"-Xmx{heap_mb}m",
            f"-Dlog4j2.configurationFile={LOGGING}",
            "-cp",
            ":".join(map(str, self.class_path)),
            main_class,
            *arguments,
        )
