"""The start of Connect's image by compose: with a password where the image supports it, and with a warning elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.process import ROOT

# In place of the image's own entrypoint: it prints its arguments, and the files that they name.
SHOWS = """#!/usr/bin/env bash
echo "started with $*"
env | grep -E '^(CONNECT_|KAFKA_OPTS)' || true
for file in ${KAFKA_OPTS##*config=}; do
  cat "$file"
  stat -c %a "$(dirname "$file")"
  cat "$(dirname "$file")/rest-login.properties"
done
"""


def _started(directory: Path, *jars: str) -> subprocess.CompletedProcess[str]:
    (directory / "libs").mkdir()
    for jar in jars:
        (directory / "libs" / jar).touch()
    entrypoint = directory / "entrypoint"
    entrypoint.write_text(SHOWS)
    entrypoint.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "KAFKA_HOME": str(directory), "IMAGE_ENTRYPOINT": str(entrypoint),
        "TMPDIR": str(directory), "TIDINGS_CONNECT_PASSWORD": "secret",
    }  # fmt: skip
    return subprocess.run(
        ["bash", str(ROOT / "debezium" / "connect-entrypoint"), "start"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


def test_kafkas_distribution_gets_the_password(tmp_path: Path) -> None:
    done = _started(tmp_path, "connect-runtime-4.3.0.jar", "connect-basic-auth-extension-4.3.0.jar")
    said = done.stdout
    assert "started with start\n" in said
    assert re.search(r"^CONNECT_REST_EXTENSION_CLASSES=.+\.BasicAuthSecurityRestExtension$", said, re.MULTILINE)
    assert "PropertyFileLoginModule required" in said
    assert "\n700\n" in said
    assert said.endswith("\ntidings=secret\n")
    assert done.stderr == ""


def test_an_image_without_the_extension_is_started_without_it_and_with_a_warning(tmp_path: Path) -> None:
    done = _started(tmp_path, "connect-runtime-4.3.0.jar")
    assert "started with start\n" in done.stdout
    assert "CONNECT_" not in done.stdout
    assert "asks for no password" in done.stderr
