"""The terminal that runs the commands of documents: it detects a command that fails, and keeps the state of a shell."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from tests.terminal import Terminal
from tests.wait import until


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    (tmp_path / "env").write_text("export COLOUR=blue\n")
    return Terminal(tmp_path, {"PATH": os.environ["PATH"]}, {"VALUE…": "given"})


@pytest.mark.parametrize("text", ["false", "false\necho after", "no-such-program", "echo 'open"])
def test_a_command_that_fails_is_detected(terminal: Terminal, text: str) -> None:
    with pytest.raises(AssertionError):
        terminal.run(text)


def test_variables_and_files_persist_and_other_commands_do_not(terminal: Terminal) -> None:
    terminal.run(". ./env\nID=VALUE…\nexport A=1 B=2\ntouch once")
    (terminal.directory / "once").unlink()
    assert terminal.run("echo $COLOUR $ID $A $B") == "blue given 1 2\n"
    assert not (terminal.directory / "once").exists()


def test_a_command_that_does_not_end_is_ended(terminal: Terminal) -> None:
    with terminal.running("echo begun\nexec sleep 600") as printed:
        until(lambda: printed.read_text() == "begun\n")


def test_a_command_that_ends_unexpectedly_is_detected(terminal: Terminal) -> None:
    others = psutil.Process().children()
    with pytest.raises(AssertionError, match="begun"), terminal.running("echo begun"):
        until(lambda: all(child.status() == psutil.STATUS_ZOMBIE for child in _children() if child not in others))


def _children() -> list[psutil.Process]:
    return list(psutil.Process().children())
