"""Each command of a document is run by a test, or has a reason why it is not."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from tests.commands import NOT_RUN, RUN, blocks_in, blocks_of, pages
from tests.process import ROOT
from tidings.contract.targets import load_targets

LANGUAGES = {"sh", "text", "python", "java", "javascript", "json", "toml", "properties", "mermaid"}
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)\b")
MODULE = re.compile(r"\bpython3? -m ([a-z_.]+)")
TEST_FILE = re.compile(r"\btests/[\w/]+\.py\b")
PART = re.compile(r"\bT=([\w/.]+)")
CODE = re.compile(r"`([^`\n]+)`")


@pytest.mark.parametrize("page", pages())
def test_each_block_of_commands_is_run_or_has_a_reason(page: str) -> None:
    blocks = blocks_of(page, "sh")
    tests = RUN.get(page, ())
    assert len(blocks) == len(tests), "tests/commands.py: a test for each block of commands, or None and a reason"
    unrun = {(page, block.first_line) for block, test in zip(blocks, tests, strict=True) if test is None}
    assert unrun == {(named, line) for named, line in NOT_RUN if named == page}


def test_each_entry_names_an_existing_page_and_test() -> None:
    assert {*RUN, *(page for page, _ in NOT_RUN)} <= set(pages())
    for name in {test for tests in RUN.values() for test in tests if test is not None}:
        path, _, function = name.partition("::")
        found = {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert function in found, name


def test_a_block_that_is_not_listed_is_found() -> None:
    text = (
        "Text.\n\n```sh\nmake up\n```\n\n1. One\n\n   ```sh\n   make down\n   ls\n   ```\n\n```text\nno command\n```\n"
    )
    assert [(block.language, block.text) for block in blocks_in("page", text)] == [
        ("sh", "make up\n"), ("sh", "make down\nls\n"), ("text", "no command\n")
    ]  # fmt: skip


@pytest.mark.parametrize("page", pages())
def test_each_block_names_its_language(page: str) -> None:
    """A command in a block without a language would be missed."""
    fences = re.findall(r"^ *```(.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert fences[1::2] == [""] * (len(fences) // 2)
    assert set(fences[::2]) <= LANGUAGES


@pytest.mark.parametrize("page", [page for page in pages() if not page.startswith("docs/decisions/")])
def test_each_target_of_make_and_each_module_in_a_page_exists(page: str) -> None:
    # Decisions name them as they were at the time.
    text = (ROOT / page).read_text()
    shown = "\n".join([*CODE.findall(text), *(block.text for block in blocks_of(page, "sh"))])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(MAKE.findall(shown)) <= targets
    assert [name for name in MODULE.findall(shown) if importlib.util.find_spec(name) is None] == []
    tests = [*TEST_FILE.findall(shown), *(f"tests/integration/{part}" for part in PART.findall(shown))]
    assert [name for name in tests if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["demo", "up", "down", "status", "reset"])
def test_make_runs_the_commands_that_the_tests_of_the_stack_run(name: str) -> None:
    recipe = rf"^{name}: venv-stack ## .*\n\t@\$\(VENV\)/python -m stack {name}\n\n"
    assert re.search(recipe, (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in pages() if blocks_of(page, "toml")])
def test_each_make_target_in_a_page_exists(page: str, tmp_path: Path) -> None:
    for block in blocks_of(page, "toml"):
        file = tmp_path / "targets.toml"
        file.write_text(block.text)
        assert list(load_targets(file)) == list(tomllib.loads(block.text))
