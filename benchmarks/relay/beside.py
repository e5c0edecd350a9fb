"""Compares this checkout's relay with that of an earlier commit, in turn, under the same load."""

from __future__ import annotations

import dataclasses
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.relay.contest import Contestant, Line, ratio
from benchmarks.relay.ground import Ground
from tests.process import ROOT

BASE = "-base"
# Figures that do not depend on the relay's speed.
_NO_FIGURES = frozenset({"round", "took_seconds", "late_seen"})


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The tree of `commit` in a temporary folder."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "base"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", tree, commit], check=True, timeout=60)
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True, timeout=60)


def both(contestants: Callable[[Ground], list[Contestant]], here: Ground, tree: Path) -> list[Contestant]:
    """The contestants that run our relay, once for each of the two trees."""
    there = dataclasses.replace(here, tree=tree)
    ours = [one for one in contestants(here) if one.name.startswith("relay")]
    theirs = [Contestant(one.name + BASE, one.run) for one in contestants(there) if one.name.startswith("relay")]
    return ours + theirs


def ratios(found: Sequence[Line]) -> dict[str, object]:
    """The ratios of this checkout's figures to the base's, within each round: 1.05 is 5 % worse for a time, and 5 %
    better for a rate.
    """
    names = sorted({line["name"].removesuffix(BASE) for line in found})
    said: dict[str, object] = {}
    for name in names:
        figures = {
            figure
            for line in found
            if line["name"] == name
            for figure, value in line.items()
            if figure not in _NO_FIGURES and isinstance(value, int | float)
        }
        for figure in sorted(figures):
            if (of_base := ratio(found, figure, name, name + BASE)) is not None:
                said[f"{name} {figure}"] = of_base
    return said
