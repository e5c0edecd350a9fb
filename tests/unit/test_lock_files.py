"""The lock files have what pyproject.toml asks for and no other package: that of development has every package of the
native stack's, and this every package of the images'. `.ci/run` also writes them anew, where an index can be reached.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stack.bootstrap import LOCKS, installed_name
from tests.process import ROOT

HASHES = {"stack": "s", "dev": "d"}
# Of each lock file the extras of pyproject.toml, as requirements/lock names them; the last has a group of its own.
EXTRAS = {"services": ["services"], "stack": ["services", "stack"], "dev": ["dev"]}
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


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


@pytest.mark.parametrize("name", [*EXTRAS, "ci"])
def test_a_lock_file_has_a_version_that_pyproject_allows_of_each_package_that_it_asks_for(name: str) -> None:
    locked = pinned(name)
    asked = list(_asked(name))
    assert len(asked) >= 2
    versions = {
        each.name: re.split(r"[ ;\\]", locked.get(canonicalize_name(each.name), ""), maxsplit=1)[0] for each in asked
    }
    assert [str(each) for each in asked if not versions[each.name] or versions[each.name] not in each.specifier] == []


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_file_has_each_package_that_others_of_it_need_and_no_other(name: str) -> None:
    """By what the installed packages say of themselves: they are those of dev.lock."""
    here = {each for each, lines in pinned(name).items() if _is_of_this_machine(each, lines)}
    assert _needed(list(_asked(name))) == here


@pytest.mark.parametrize("name", [*EXTRAS, "ci"])
def test_a_lock_file_has_a_hash_of_each_package(name: str) -> None:
    assert [each for each, lines in pinned(name).items() if "--hash=sha256:" not in lines] == []


def test_the_installed_packages_are_identified_by_the_hash_of_their_lock_file() -> None:
    assert [installed_name(stamp, HASHES) for stamp in ("s", "d", "old", "")] == ["stack", "dev", None, None]


def _asked(name: str) -> Iterator[Requirement]:
    """What pyproject.toml asks for, for a lock file, with its own extras spelled out."""
    if name == "ci":
        yield from map(Requirement, PYPROJECT["dependency-groups"]["ci"])
        return
    yield from map(Requirement, PROJECT["dependencies"])
    extras = list(EXTRAS[name])
    while extras:
        for each in map(Requirement, PROJECT["optional-dependencies"][extras.pop()]):
            if each.name == PROJECT["name"]:
                extras += each.extras
            else:
                yield each


def _needed(asked: Sequence[Requirement]) -> set[str]:
    """The names of `asked` and of all that these packages need on this machine."""
    seen: set[tuple[str, str]] = set()
    left = [(each, "") for each in asked]
    while left:
        each, extra = left.pop()
        if each.marker is not None and not each.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(each.name)
        for wanted in {"", *each.extras} - {extra for found, extra in seen if found == name}:
            seen.add((name, wanted))
            left += [(Requirement(text), wanted) for text in distribution(name).requires or ()]
    return {name for name, _ in seen}


def _is_of_this_machine(name: str, lines: str) -> bool:
    marker = re.match(r"[^;\\]*;([^\\]*)", lines)
    return marker is None or Requirement(f"{name};{marker[1]}").marker.evaluate()  # type: ignore[union-attr]


def _files(lines: str) -> tuple[str, list[str]]:
    """The version and the hashes. The marker depends on the packages that require it."""
    return re.split(r"[ ;\\]", lines, maxsplit=1)[0], sorted(re.findall(r"sha256:\w+", lines))
