"""The import contracts fail when they are broken: each is broken in a copy, and import-linter names it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import ROOT

BREACHES = {
    "services/relay/store/written.py": ("services.relay.engine.claimer", "The relay's rooms"),
    "services/relay/protocol/headers.py": ("services.relay.store.database", "The relay's rooms"),
    "services/relay/outcome/backoff.py": ("asyncio", "What the relay decides is pure"),
    "services/relay/egress/http/reading.py": ("services.relay.message", "The relay's HTTP client"),
    "services/api/submit.py": ("services.relay.message", "Processes do not import each other"),
    "tidings/contract/topics.py": ("services.api.settings", "What processes share knows no process"),
    "tidings/process/log.py": ("tidings.kafka.loop", "four rooms"),
    "services/api/store.py": ("kafka", "speak Kafka"),
    "services/notifier/notifier.py": ("psycopg", "speak to Postgres"),
}


def contracts(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in ("tidings", "services", "stack"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_the_tree_obeys_them(tree: Path) -> None:
    found = contracts(tree)
    assert found.returncode == 0, found.stdout
    assert "0 broken" in found.stdout


@pytest.mark.parametrize("file", BREACHES)
def test_a_violation_is_named(tree: Path, file: str) -> None:
    module, contract = BREACHES[file]
    path = tree / file
    whole = path.read_text()
    path.write_text(f"{whole}\nimport {module}\n")
    try:
        found = contracts(tree)
    finally:
        path.write_text(whole)
    assert found.returncode == 1
    # Long names are wrapped, and the summary has a contract's name before its verdict.
    summary = " ".join(found.stdout.partition("Contracts: ")[0].split())
    names = re.findall(r"((?:(?! KEPT| BROKEN).)+) BROKEN", summary.replace(" KEPT", " KEPT\n"))
    assert any(contract in name for name in names), names
