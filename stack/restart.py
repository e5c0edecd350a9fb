"""One of our processes in a running stack, ended and started again. Postgres, Kafka and Connect are not among them."""

from __future__ import annotations

import signal
import time

import psutil
from honcho.environ import parse_procfile

from stack.errors import StackError
from stack.home import ROOT, Home
from stack.screens import exclusively, running_pid
from stack.servers import answers

# The relay ends within 25 s (5 s of drain, and 20 s), and starts in a few; a busy machine takes longer.
RESTART_SECONDS_MAX = 90.0
_ENDED = "the stack ended meanwhile"
PROCESSES = {
    name: command.split()[-1] for name, command in parse_procfile((ROOT / "Procfile").read_text()).processes.items()
}


def restart(home: Home, name: str, *, seconds: float = RESTART_SECONDS_MAX) -> None:
    """Have the keeper of the process end it and start it again; returns when the new one is healthy.

    The new process has the code of the files as they are now, and the environment of `make up`. Raises `StackError`.
    """
    with exclusively(home):
        pid = running_pid(home)
        if pid is None:
            raise StackError("nothing is running; `make up` starts the stack")
        try:
            respawner = _respawner(psutil.Process(pid), PROCESSES[name])
            before = _children(respawner)
            respawner.send_signal(signal.SIGHUP)
        except psutil.NoSuchProcess:
            raise StackError(_ENDED) from None
        health = home.url(name) + ("/healthz" if name == "provider" else "/readyz")
        deadline = time.monotonic() + seconds
        # The new process is started when the old one has ended, so no answer is the old one's.
        while not (_children(respawner) - before and answers(health)):
            if time.monotonic() > deadline:
                raise StackError(f"{name} is not ready after {seconds:.0f} s: see {home.log}/processes.log")
            time.sleep(0.1)


def _respawner(supervisor: psutil.Process, module: str) -> psutil.Process:
    for process in supervisor.children(recursive=True):
        try:
            arguments = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if arguments[1:3] == ["-m", "stack.respawn"] and arguments[-1] == module:
            return process
    raise StackError(f"the stack runs no {module}; `make down` and `make up` start it again")


def _children(respawner: psutil.Process) -> set[int]:
    try:
        return {child.pid for child in respawner.children()}
    except psutil.NoSuchProcess:
        raise StackError(_ENDED) from None
