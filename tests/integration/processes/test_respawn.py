"""`python -m stack.respawn`: a command is restarted when it ends, and at once on request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.process import ROOT
from tests.wait import patient, until

RESTARTS = 5


@pytest.fixture
def started() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "stack.respawn", "sleep", "1000"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_a_hangup_restarts_the_command_and_is_not_a_crash(started: subprocess.Popen[str]) -> None:
    keeper = psutil.Process(started.pid)
    seen = [_command_of(keeper, set())]
    for _ in range(RESTARTS):
        keeper.send_signal(signal.SIGHUP)
        seen.append(_command_of(keeper, set(seen)))
    assert [pid for pid in seen[:-1] if psutil.pid_exists(pid)] == []
    psutil.Process(seen[-1]).kill()
    _command_of(keeper, set(seen))
    started.terminate()
    _, said = started.communicate(timeout=patient(10))
    assert started.returncode == 0
    # The pause doubles with each crash: it would be 10 s after six of them.
    [crash] = [json.loads(line) for line in said.splitlines()]
    assert crash["restart_in_seconds"] in {0.2, 0.4}


def _command_of(keeper: psutil.Process, before: set[int]) -> int:
    """The process id of the running command, if it is not in `before`."""

    def found() -> int | None:
        assert keeper.status() != psutil.STATUS_ZOMBIE, "the keeper ended"
        running = [child.pid for child in keeper.children() if child.name() == "sleep"]
        return next((pid for pid in running if pid not in before), None)

    return until(found) or 0
