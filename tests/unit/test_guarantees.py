"""docs/reference/guarantees.md names tests that exist, each promise of the ledger, and each kind of fault."""

from __future__ import annotations

import re

import pytest

from tests.chaos.ledger import PROMISES
from tests.chaos.plan import kinds
from tests.process import ROOT

PAGE = (ROOT / "docs" / "reference" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


def test_the_page_names_tests() -> None:
    assert len(NAMED) > len(PROMISES)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_named_test_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_each_promise_of_the_ledger_has_its_row() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    missing = [promise for promise in PROMISES if not any(row.startswith(f"| {promise}") for row in rows)]
    assert missing == []


def test_each_kind_of_fault_has_its_row() -> None:
    missing = [f"{kind.name} {kind.target}" for kind in kinds() if f"| {kind.name} {kind.target} |" not in PAGE]
    assert missing == []
