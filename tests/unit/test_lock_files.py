"""The lock files: that of development has every package of the native stack's, and this has every package of the
images'.
"""

from __future__ import annotations

import re

import pytest

from stack.bootstrap import LOCKS, installed_name

HASHES = {"stack": "s", "dev": "d"}


def pinned(name: str) -> dict[str, str]:
    """The packages of a lock file, each with its version, marker and hashes."""
    text = (LOCKS / f"{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==(.*(?:\n    .*)*)$", text, re.MULTILINE))


@pytest.mark.parametrize(("smaller", "larger"), [("services", "stack"), ("stack", "dev")])
def test_a_lock_file_has_each_package_of_the_smaller_one_in_the_same_version(smaller: str, larger: str) -> None:
    inner, outer = pinned(smaller), pinned(larger)
    assert len(inner) > 10
    differing = [name for name, lines in inner.items() if _files(outer.get(name, "")) != _files(lines)]
    assert differing == []
    assert inner.keys() < outer.keys()


def test_the_installed_packages_are_identified_by_the_hash_of_their_lock_file() -> None:
    assert [installed_name(stamp, HASHES) for stamp in ("s", "d", "old", "")] == ["stack", "dev", None, None]


def _files(lines: str) -> tuple[str, list[str]]:
    """The version and the hashes. The marker depends on the packages that require it."""
    return re.split(r"[ ;\\]", lines, maxsplit=1)[0], sorted(re.findall(r"sha256:\w+", lines))
