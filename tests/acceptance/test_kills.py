"""Processes are killed with SIGKILL while they work: every submission ends, and each has one completion."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from stack.restart import PROCESSES
from tests.acceptance.stacks import Stack
from tests.wait import until

SUBMISSIONS = 60
# The number of submissions in progress, so that a kill interrupts work: some are submitted while others end.
UNDER_WAY_MAX = 20


@pytest.mark.parametrize("module", ["services.dispatcher", "services.notifier", "services.relay", "services.api"])
def test_a_killed_process_loses_and_duplicates_nothing(stack: Stack, module: str) -> None:
    name = module.rpartition(".")[2]
    ids: set[str] = set()
    for number in range(SUBMISSIONS):
        until(lambda: len(ids) - ended(stack, ids) < UNDER_WAY_MAX, 60)
        ids.add(stack.submit(f"{module} {number}", latency_seconds=1.0))
        if number in {SUBMISSIONS // 2, 3 * SUBMISSIONS // 4}:
            assert ended(stack, ids) > 0
            stack.kill(module)
            if name in {"api", "relay"}:
                stack.ready(name)
    found = stack.completions(ids, 90)
    assert {id_: len(events) for id_, events in found.items()} == dict.fromkeys(ids, 1)
    assert {event["outcome"] for events in found.values() for event in events} == {"succeeded"}
    stack.ready(name)


def ended(stack: Stack, ids: set[str]) -> int:
    return stack.count("SELECT count(*) FROM tidings.results WHERE submission_id = ANY(%s::uuid[])", list(ids))


def test_a_restart_replaces_one_process_and_leaves_the_others(stack: Stack) -> None:
    before = {name: stack.process(module).pid for name, module in PROCESSES.items()}
    done = stack.command("restart", "api")
    assert done.returncode == 0, done.stdout + done.stderr
    after = {name: stack.process(module).pid for name, module in PROCESSES.items()}
    assert [name for name in PROCESSES if before[name] != after[name]] == ["api"]
    assert stack.ended(stack.submit())["status"] == "succeeded"


def test_a_killed_connect_loses_and_duplicates_nothing(stack: Stack) -> None:
    ids: set[str] = set()
    for number in range(SUBMISSIONS):
        ids.add(stack.submit(f"connect {number}", latency_seconds=0.5))
        if number == SUBMISSIONS // 2:
            stack.kill_connect()
    found = stack.completions(ids, 120)
    assert {id_: len(events) for id_, events in found.items()} == dict.fromkeys(ids, 1)


def test_a_postmaster_that_dies_is_started_again(stack: Stack) -> None:
    postmaster = int((stack.home.postgres / "data" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(postmaster)] if psutil.pid_exists(postmaster) else [], 20)
    stack.ready("api", 90)
    assert stack.ended(stack.submit())["status"] == "succeeded"
