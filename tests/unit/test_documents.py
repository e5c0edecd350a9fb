"""Documents wrap at 100 characters, except for tables, code blocks, and words that cannot be broken."""

from __future__ import annotations

import re

import pytest

from tests.process import ROOT

WIDTH_MAX = 100
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    ]
)
# A link or a word, with a list marker before it and punctuation after it.
UNBREAKABLE = re.compile(r"\s*(?:[-*]|\d+\.)?\s*(?:!?\[[^\]]*\]\([^)]*\)|\S+)[.,;:]?")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_wraps_at_100_characters(name: str) -> None:
    assert _too_long((ROOT / name).read_text()) == []


def test_a_longer_line_is_found() -> None:
    long = "word " * 20 + "w"
    fence = "```"
    assert len(long) == WIDTH_MAX + 1
    assert _too_long(f"# Title\n\n{long}\n") == [3]
    assert _too_long(f"{fence}\n{long}\n{fence}\n- {long}\n") == [4]
    assert _too_long(f"[a]({'x' * WIDTH_MAX}) and more") == [1]


def test_only_tables_code_and_links_may_be_longer() -> None:
    long = "word " * 21
    fence = "```"
    assert _too_long(f"| {long} |\n") == []
    assert _too_long(f"{fence}python\n{long}\n{fence}\n") == []
    assert _too_long(f"- [a page]({'x' * WIDTH_MAX}).\n") == []
    assert _too_long(f"{'x' * (WIDTH_MAX + 1)}\n") == []


def test_the_modules_of_one_messages_way_exist_and_are_in_order() -> None:
    architecture = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    way = architecture.partition("## One message's way\n")[2].partition("\n## ")[0]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", way, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    modules = re.findall(r"`((?:services|tidings)\.[a-z_.0-9]+)`", way)
    assert len(modules) >= len(numbers)
    assert [name for name in modules if not (ROOT / name.replace(".", "/")).with_suffix(".py").exists()] == []


def _too_long(text: str) -> list[int]:
    """The numbers of the lines that should be wrapped."""
    found, in_code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif len(line) > WIDTH_MAX and not (in_code or line.startswith("|") or UNBREAKABLE.fullmatch(line)):
            found.append(number)
    return found
