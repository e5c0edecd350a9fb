"""The vendor's npm client: each script in `js/` runs with Node's test runner and its own relay."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.relay.conftest import CURRENT_KEY, NEXT_KEY, TOKEN, Relay

SOURCES = Path(__file__).parent / "js"
NOUNS = (
    "batch",
    "callbacks",
    "dlq",
    "flow-control",
    "logs",
    "messages",
    "providers",
    "queues",
    "receiver",
    "schedules",
    "url-groups",
)
INSTALL_SECONDS = 120
RUN_SECONDS = 150


@pytest.fixture(scope="session")
def package(run_directory: Path) -> Path:
    """A copy of `js/` with the locked client installed."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node or npm is not installed")
    copy = run_directory / "sdk-js"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    return copy


def environment(relay: Relay) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "QSTASH_URL": relay.url,
        "QSTASH_TOKEN": TOKEN,
        "QSTASH_CURRENT_SIGNING_KEY": CURRENT_KEY,
        "QSTASH_NEXT_SIGNING_KEY": NEXT_KEY,
    }


@pytest.mark.parametrize("noun", NOUNS)
def test_the_npm_client(package: Path, new_relay: Callable[..., Relay], noun: str) -> None:
    finished = subprocess.run(
        ["node", "--test", "--test-reporter=spec", f"{noun}.test.mjs"],
        cwd=package,
        env=environment(new_relay()),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
