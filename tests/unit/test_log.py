"""The content of a log line, and what it never contains."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.process import ROOT

# A separate process, as logging is configured once per process.
SCRIPT = """
import logging, sys
from tidings.process import log

def handle(authorization, body):
    raise ValueError("out of the inside")

log.configure("test", log_format=sys.argv[1])
try:
    handle("Bearer " + "s3cr3t", b"pr1v4te" * 3)
except ValueError as error:
    log.get("test").error("failed", exc_info=error)
    logging.getLogger("library").error("failed too", exc_info=error)
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables(log_format: str) -> None:
    command = [sys.executable, "-c", SCRIPT, log_format]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stderr
    assert shown.count("out of the inside") >= 2
    assert "s3cr3t" not in shown
    assert "pr1v4te" not in shown
