"""Runs a command and restarts it when it exits, with a growing pause: honcho stops every process when one exits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import FrameType

from stack.servers import die_with_parent

PAUSE_SECONDS_MAX = 10.0
# A process that ran for this long counts as started successfully.
HEALTHY_SECONDS = 30.0


def main(command: list[str]) -> int:
    """Keep `command` running until SIGTERM; then pass the signal on and wait for the command to drain.

    SIGHUP ends the command with SIGTERM too, and starts it again without a pause.
    """
    state: dict[str, subprocess.Popen[bytes] | None] = {"process": None}
    stopping: list[bool] = []
    restarting: list[bool] = []

    def end(number: int, _frame: FrameType | None) -> None:
        (restarting if number == signal.SIGHUP else stopping).append(True)
        if state["process"] is not None:
            state["process"].terminate()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    pause = 0.2
    while not stopping:
        started = time.monotonic()
        state["process"] = process = subprocess.Popen(command, preexec_fn=die_with_parent)  # noqa: PLW1509
        # For a signal that came before `state` had the process.
        if stopping or restarting:
            process.terminate()
        status = process.wait()
        if stopping:
            return 0
        if restarting:
            restarting.clear()
            pause = 0.2
            continue
        pause = 0.2 if time.monotonic() - started > HEALTHY_SECONDS else min(PAUSE_SECONDS_MAX, pause * 2)
        sys.stderr.write(f'{{"event": "ended", "status": {status}, "restart_in_seconds": {pause:.1f}}}\n')
        sys.stderr.flush()
        deadline = time.monotonic() + pause
        while not stopping and not restarting and time.monotonic() < deadline:
            time.sleep(0.05)
        restarting.clear()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
