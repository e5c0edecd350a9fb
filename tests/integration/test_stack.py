"""The servers that the supervisor keeps running, and concurrent resets and starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from stack.errors import StackError
from stack.home import Home, open_home
from stack.lock import held
from stack.screens import exclusively, reset
from stack.servers import Server
from stack.steps import Steps
from stack.supervisor import await_then_respawn, respawn_servers
from tests.process import ROOT
from tests.wait import until

HOLDS = """
import sys
from pathlib import Path
from stack.lock import held
with held(Path(sys.argv[1])):
    print(flush=True)
    input()
"""


class LivingPostgres:
    """The part of `Postgres` that the supervisor uses."""

    def alive(self) -> bool:
        return True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server("server", ["sleep", "600"], tmp_path / "server", lambda: False, os.environ).start()
    yield made
    made.stop()


def test_a_server_that_cannot_be_restarted_is_restarted_later(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = threading.Event()
    keeping = threading.Thread(
        target=respawn_servers, args=(LivingPostgres(), [server], stopping, threading.Lock()), daemon=True
    )
    first = server.process.pid
    # Its log cannot be opened, as with a full disk or without a file descriptor.
    (tmp_path / "server").rename(tmp_path / "away")
    server.kill()
    keeping.start()
    until(lambda: "server cannot be started" in capsys.readouterr().err)
    (tmp_path / "away").rename(tmp_path / "server")
    until(lambda: server.process.poll() is None)
    assert server.process.pid != first
    stopping.set()
    keeping.join(20)
    assert not keeping.is_alive()


def test_servers_are_kept_running_although_they_never_became_healthy(tmp_path: Path, server: Server) -> None:
    server.kill()
    home = open_home({"TIDINGS_HOME": str(tmp_path / "home")})
    kept: list[bool] = []
    await_then_respawn(home, server, Steps(home.steps), lambda: kept.append(True))
    assert "server did not start" in home.steps.read_text()
    assert kept == [True]


@contextmanager
def held_elsewhere(path: Path) -> Iterator[None]:
    """The lock of `path`, held by another process until the end of the block, as a process's own locks do not block it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate("\n", timeout=20)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home({"TIDINGS_HOME": str(tmp_path / "home")})


def test_a_reset_deletes_nothing_during_a_start(home: Home) -> None:
    with held_elsewhere(home.start_lock):
        with pytest.raises(StackError, match="another process uses"):
            reset(home, seconds=0.2)
        assert (home.directory / "secrets.json").exists()
    assert reset(home)
    assert not home.directory.exists()


def test_a_wait_for_a_lock_whose_file_was_deleted_does_not_acquire_it(home: Home) -> None:
    def wait() -> None:
        with held(home.start_lock, seconds=60):
            raise AssertionError("two may have it")

    with ThreadPoolExecutor() as threads:
        with held_elsewhere(home.start_lock):
            waiting = threads.submit(wait)
            opened = str(home.start_lock)
            until(lambda: opened in [file.path for file in psutil.Process().open_files()])
            home.delete()
        with pytest.raises(StackError, match="was deleted meanwhile"):
            waiting.result(60)


def test_a_start_after_a_reset_does_not_use_deleted_secrets(home: Home) -> None:
    (home.directory / "notes.txt").touch()
    reset(home)
    with pytest.raises(StackError, match="was deleted meanwhile"), exclusively(home):
        raise AssertionError("its secrets are in no file")
