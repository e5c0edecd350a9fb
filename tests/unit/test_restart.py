"""`python -m stack restart`: the processes that it accepts, and its message when there is no stack."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from stack.__main__ import main
from stack.home import PORTS
from stack.restart import PROCESSES


@pytest.mark.parametrize("words", [["restart"], ["restart", "kafka"], ["restart", "api", "relay"]])
def test_a_restart_accepts_each_process_of_ours(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "Usage: " in done.output


def test_a_restart_of_an_unknown_process_names_the_known_ones() -> None:
    done = CliRunner().invoke(main, ["restart", "kafka"])
    assert [name for name in PROCESSES if f"'{name}'" not in done.output] == []


def test_a_restart_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["restart", "api"], env={"TIDINGS_HOME": str(tmp_path)})
    assert done.exit_code == 1
    assert "nothing is running" in done.output
    assert "make up" in done.output


def test_each_process_that_can_be_restarted_has_an_address_for_its_health() -> None:
    assert [name for name in PROCESSES if name not in PORTS] == []
    assert PROCESSES["api"] == "services.api"
