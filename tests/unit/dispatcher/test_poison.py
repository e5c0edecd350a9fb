"""A change for which the dispatcher raises an unexpected error."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from kafka.errors import MessageSizeTooLargeError
from prometheus_client import CollectorRegistry

from services.dispatcher.dispatcher import Connection, Dispatcher
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.timing import Timing
from services.dispatcher.unknown import UNKNOWN_MAX, UNKNOWN_SECONDS
from tests.unit.dispatcher.broker import Letters, Partitions
from tidings.contract.change import ContentRemoval, ResultChange, SubmissionChange
from tidings.contract.topics import SUBMISSIONS
from tidings.process import log
from tidings.process.progress import AGE_SECONDS_MAX, Progress
from tidings.process.telemetry import Telemetry

A, B, C = (f"01920000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


class SenderDouble:
    """Raises for `poison`, or for all."""

    def __init__(self) -> None:
        self.poison: set[str] = set()
        self.unknown: set[str] = set()
        self.sent: list[str] = []

    def send(self, changes: Sequence[SubmissionChange]) -> set[str]:
        ids = [str(change.id) for change in changes]
        if self.poison & set(ids) - self.unknown:
            raise ZeroDivisionError("who would have thought")
        self.sent += [id_ for id_ in ids if id_ not in self.sent and id_ not in self.unknown]
        return self.unknown & set(ids)

    def remove_contents(self, removals: Sequence[ContentRemoval]) -> None:
        assert not removals

    def end(self, changes: Sequence[ResultChange]) -> None:
        assert not changes


class Fussy(Letters):
    """A dead-letter topic that refuses every value."""

    def get(self, timeout: float) -> None:
        super().get(timeout)
        if self.sent[-1]["value"]:
            raise MessageSizeTooLargeError


class Running:
    def __init__(self, letters: Letters) -> None:
        self.partitions, self.letters, self.sender = Partitions(), letters, SenderDouble()
        self.progress = Progress(lambda: self.partitions.now)
        sender: Any = self.sender
        partitions: Any = self.partitions
        self.dispatcher = Dispatcher(
            Connection(partitions, self.letters), sender,
            timing=Timing(now=lambda: 0.0, clock=lambda: self.partitions.now, jitter=lambda: 0.0),
            progress=self.progress, telemetry=Telemetry(DispatcherMetrics(CollectorRegistry()), log.get("test")),
        )  # fmt: skip

    def submit(self, *ids: str) -> None:
        for id_ in ids:
            row = {"id": id_, "tenant": "t", "target": "on"}
            self.partitions.add(SUBMISSIONS, json.dumps({"op": "c", "after": row}).encode())

    def run(self, seconds: float) -> None:
        until = self.partitions.now + seconds
        while self.partitions.now < until:
            self.dispatcher.run_once()
            self.progress.round_completed(2)


@pytest.fixture(params=[Letters, Fussy])
def running(request: pytest.FixtureRequest) -> Running:
    letters: Callable[[], Letters] = request.param
    return Running(letters())


def test_one_change_that_always_fails_is_a_dead_letter_and_delays_no_other(running: Running) -> None:
    running.sender.poison = {B}
    running.submit(A, B, C)
    running.run(30)
    assert running.sender.sent == [A, C]
    assert running.partitions.committed == {SUBMISSIONS: 3}
    last = running.letters.sent[-1]
    assert b"ZeroDivisionError" in dict(last["headers"])["reason"]
    assert dict(last["headers"])["source"] == f"{SUBMISSIONS}/0/1".encode()


def test_a_change_that_fails_after_it_was_unknown_is_a_dead_letter_and_delays_no_other(running: Running) -> None:
    running.sender.poison, running.sender.unknown = {B}, {A, B}
    running.submit(A, B, C)
    running.run(5)
    assert (running.sender.sent, running.partitions.committed) == ([C], {SUBMISSIONS: 0})
    running.sender.unknown = set()
    running.run(30)
    assert sorted(running.sender.sent) == [A, C]
    assert running.partitions.committed == {SUBMISSIONS: 3}
    last = running.letters.sent[-1]
    assert b"ZeroDivisionError" in dict(last["headers"])["reason"]
    assert dict(last["headers"])["source"] == f"{SUBMISSIONS}/0/1".encode()


def test_an_error_for_every_change_makes_no_dead_letter_and_is_reported(running: Running) -> None:
    running.sender.poison = {A, B}
    running.submit(A, B)
    running.run(AGE_SECONDS_MAX + 20)
    assert (running.letters.sent, running.partitions.committed) == ([], {})
    assert "ZeroDivisionError" in str(running.progress.fault())
    running.sender.poison = set()
    running.run(20)
    assert (running.sender.sent, running.partitions.committed) == ([A, B], {SUBMISSIONS: 2})
    assert running.progress.fault() is None


def test_unknown_submissions_beyond_the_limit_delay_the_others_for_a_bounded_time() -> None:
    running = Running(Letters())
    unknown = [f"01930000-0000-7000-8000-{n:012d}" for n in range(UNKNOWN_MAX + 100)]
    running.sender.unknown = set(unknown)
    # Half a batch, so that a part of the unknown submissions fits.
    known = [f"01940000-0000-7000-8000-{n:012d}" for n in range(50)]
    running.submit(*known, *unknown, A)
    running.run(4 * UNKNOWN_SECONDS)
    assert running.sender.sent == [*known, A]
    assert len(running.letters.sent) == len(unknown)
    assert running.partitions.committed == {SUBMISSIONS: len(known) + len(unknown) + 1}
    assert running.progress.fault() is None


@pytest.mark.parametrize("value", [b'{"op": [], "after": []}', b'{"op": {}}'])
def test_an_operation_that_is_not_text_is_a_dead_letter(running: Running, value: bytes) -> None:
    running.partitions.add(SUBMISSIONS, value)
    running.submit(A)
    running.run(2)
    assert running.sender.sent == [A]
    assert len({dict(letter["headers"])["source"] for letter in running.letters.sent}) == 1
    assert running.partitions.committed == {SUBMISSIONS: 2}
