"""A stack's folder: its ports, and what a reset takes away."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.errors import StackError
from stack.home import PORTS, open_home


@pytest.mark.parametrize("text", ["abc", "0", "65536", "-1", "", "\u00b2"])
def test_a_port_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(StackError, match="TIDINGS_PORT_API"):
        open_home({"TIDINGS_HOME": str(tmp_path), "TIDINGS_PORT_API": text})


def test_no_port_is_one_that_the_kernel_gives_to_outgoing_connections() -> None:
    # Linux' net.ipv4.ip_local_port_range begins at 32768: a port from there is in use now and then, by whoever calls out.
    assert [name for name, port in PORTS.items() if port >= 32768] == []


def test_a_reset_deletes_what_a_stack_made_and_nothing_else(tmp_path: Path) -> None:
    home = open_home({"TIDINGS_HOME": str(tmp_path)})
    home.write_env_file()
    (tmp_path / "kafka" / "data").mkdir(parents=True)
    (tmp_path / "thesis.txt").write_text("three years")
    assert not home.delete()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_reset_leaves_no_empty_folder(tmp_path: Path) -> None:
    home = open_home({"TIDINGS_HOME": str(tmp_path / "home")})
    assert home.delete()
    assert list(tmp_path.iterdir()) == []
