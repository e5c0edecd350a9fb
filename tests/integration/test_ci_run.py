"""`.ci/run` says at its end what it could not run, and fails for what a change has made: with programs that only pretend."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.process import ROOT

# Each notes how it was called. Words of FAULTS are what goes wrong.
HEAD = '#!/usr/bin/env bash\necho "${0##*/} $*" >>"$CALLS"\nfault() { [[ " $FAULTS " == *" $1 "* ]]; }\n'
REPORT = (
    "<testsuites><testsuite><testcase><skipped message='there is no node'/></testcase>"
    "<testcase><skipped message='there is no node'/></testcase><testcase/></testsuite></testsuites>"
)
# The option with the file that pytest writes.
XML = "grep -o 'junitxml=[^ ]*' | cut -d= -f2"
PROGRAMS: Mapping[str, str] = {
    "path/make": f'fault "make-$1" && exit 2\n[ "$1" = test ] && echo "{REPORT}" >"$(echo $PYTEST_ADDOPTS | {XML})"\nexit 0',
    "path/docker": "fault engine && exit 1\nexit 0",
    "tree/.venv/bin/python": f'echo "<testsuites/>" >"$(echo "$*" | {XML})"',
    "tree/.venv-ci/bin/uv": 'fault index && exit 1\nfault stale && echo "new==1" >>"$LOCKS/dev.lock"\nexit 0',
    "tree/.venv-ci/bin/pip-audit": 'for last; do :; done\nfault vulnerability && echo "{}" >"$last"\n'
    "fault vulnerability || fault advisories && exit 1\nexit 0",
}
AWAY = {
    "index": "whether the lock files are fresh: the package index cannot be reached",
    "advisories": "the audit of the dependencies: no source of advisories can be reached",
    "engine": "the compose tests, and the tests of CDC on the images: no Docker engine can be had",
}


class Ci:
    """A tree with the files that `.ci/run` itself reads."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._tree = directory, directory / "tree"
        for folder in (".ci", "requirements"):
            shutil.copytree(ROOT / folder, self._tree / folder)
        for name, script in PROGRAMS.items():
            program = directory / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"{HEAD}{script}\n")
            program.chmod(0o755)
        lock = self._tree / "requirements" / "ci.lock"
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        (self._tree / ".venv-ci" / "lock").write_text(f"{digest}  requirements/ci.lock\n")

    def run(self, *faults: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self._directory / 'path'}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(self._directory / "calls"), "FAULTS": " ".join(faults), "CI_LOCAL_IMAGES": "none",
        }  # fmt: skip
        return subprocess.run(
            [self._tree / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def calls(self) -> str:
        return (self._directory / "calls").read_text()


@pytest.fixture
def ci(tmp_path: Path) -> Ci:
    return Ci(tmp_path)


def summary(done: subprocess.CompletedProcess[str]) -> list[str]:
    return done.stdout.partition("=== not run")[2].splitlines()[1:]


def test_where_all_can_be_had_all_is_run(ci: Ci) -> None:
    done = ci.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT RUN" not in done.stdout
    assert summary(done)[-1].startswith("=== done")
    called = ci.calls()
    for words in (
        "make lint",
        "make test",
        "make chaos",
        "uv pip compile",
        "pip-audit",
        "-m compose",
        "--infra=docker",
    ):
        assert words in called
    # The tests without I/O are part of `make test`.
    assert "make check" not in called
    assert "make unit" not in called


@pytest.mark.parametrize("away", [[name] for name in AWAY] + [list(AWAY)], ids=" ".join)
def test_what_could_not_be_run_is_no_failure_and_is_listed_at_the_end(ci: Ci, away: list[str]) -> None:
    done = ci.run(*away)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in summary(done) if line.startswith("NOT RUN: ")] == [
        f"NOT RUN: {AWAY[name]}" for name in away
    ]
    assert "SKIPPED: 2 of test: there is no node" in summary(done)


@pytest.mark.parametrize("fault", ["make-lint", "make-test", "make-chaos", "stale", "vulnerability"])
def test_a_fault_of_the_change_is_a_failure_and_the_list_comes_all_the_same(ci: Ci, fault: str) -> None:
    done = ci.run(fault, "advisories")
    assert done.returncode != 0
    assert "=== FAILED with status" in summary(done)[-1]
