"""A change on which the dispatcher fails for a reason nobody foresaw."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from kafka.errors import MessageSizeTooLargeError
from prometheus_client import CollectorRegistry

from services.dispatcher.dispatcher import Dispatcher
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.unknown import UNKNOWN_MAX, UNKNOWN_SECONDS
from tests.unit.dispatcher.broker import Letters, Partitions
from tidings.contract.change import ContentRemoval, ResultChange, SubmissionChange
from tidings.contract.topics import SUBMISSIONS
from tidings.process import log
from tidings.process.progress import AGE_SECONDS_MAX, Progress

A, B, C = (f"01920000-0000-7000-8000-00000000000{n}" for n in (1, 2, 3))


class Outbox:
    """Fails on `poison`, or on all."""

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
    """A dead-letter topic that takes no value."""

    def get(self, timeout: float) -> None:
        super().get(timeout)
        if self.sent[-1]["value"]:
            raise MessageSizeTooLargeError


class Running:
    def __init__(self, letters: Letters) -> None:
        self.partitions, self.letters, self.outbox = Partitions(), letters, Outbox()
        self.progress = Progress(lambda: self.partitions.now)
        outbox: Any = self.outbox
        partitions: Any = self.partitions
        self.dispatcher = Dispatcher(
            partitions, self.letters, outbox,
            clock=lambda: self.partitions.now, jitter=lambda: 0.0, progress=self.progress,
            metrics=DispatcherMetrics(CollectorRegistry()), log=log.get("test"),
        )  # fmt: skip

    def submit(self, *ids: str) -> None:
        for id_ in ids:
            row = {"id": id_, "tenant": "t", "target": "on"}
            self.partitions.add(SUBMISSIONS, json.dumps({"op": "c", "after": row}).encode())

    def run(self, seconds: float) -> None:
        until = self.partitions.now + seconds
        while self.partitions.now < until:
            self.dispatcher.run_once()
            self.progress.turned(2)


@pytest.fixture(params=[Letters, Fussy])
def running(request: pytest.FixtureRequest) -> Running:
    letters: Callable[[], Letters] = request.param
    return Running(letters())


def test_one_change_that_fails_for_ever_is_put_aside_and_holds_nobody_up(running: Running) -> None:
    running.outbox.poison = {B}
    running.submit(A, B, C)
    running.run(30)
    assert running.outbox.sent == [A, C]
    assert running.partitions.committed == {SUBMISSIONS: 3}
    last = running.letters.sent[-1]
    assert b"ZeroDivisionError" in dict(last["headers"])["reason"]
    assert dict(last["headers"])["source"] == f"{SUBMISSIONS}/0/1".encode()


def test_one_that_fails_after_it_was_unknown_is_put_aside_and_holds_nobody_up(running: Running) -> None:
    running.outbox.poison, running.outbox.unknown = {B}, {A, B}
    running.submit(A, B, C)
    running.run(5)
    assert (running.outbox.sent, running.partitions.committed) == ([C], {SUBMISSIONS: 0})
    running.outbox.unknown = set()
    running.run(30)
    assert sorted(running.outbox.sent) == [A, C]
    assert running.partitions.committed == {SUBMISSIONS: 3}
    last = running.letters.sent[-1]
    assert b"ZeroDivisionError" in dict(last["headers"])["reason"]
    assert dict(last["headers"])["source"] == f"{SUBMISSIONS}/0/1".encode()


def test_a_fault_that_hits_every_change_puts_none_aside_and_is_told(running: Running) -> None:
    running.outbox.poison = {A, B}
    running.submit(A, B)
    running.run(AGE_SECONDS_MAX + 20)
    assert (running.letters.sent, running.partitions.committed) == ([], {})
    assert "ZeroDivisionError" in str(running.progress.fault())
    running.outbox.poison = set()
    running.run(20)
    assert (running.outbox.sent, running.partitions.committed) == ([A, B], {SUBMISSIONS: 2})
    assert running.progress.fault() is None


def test_more_unknown_submissions_than_are_waited_for_hold_up_the_others_for_a_bounded_time() -> None:
    running = Running(Letters())
    unknown = [f"01930000-0000-7000-8000-{n:012d}" for n in range(UNKNOWN_MAX + 100)]
    running.outbox.unknown = set(unknown)
    # Half a batch, so that one of the unknown fits in part.
    known = [f"01940000-0000-7000-8000-{n:012d}" for n in range(50)]
    running.submit(*known, *unknown, A)
    running.run(4 * UNKNOWN_SECONDS)
    assert running.outbox.sent == [*known, A]
    assert len(running.letters.sent) == len(unknown)
    assert running.partitions.committed == {SUBMISSIONS: len(known) + len(unknown) + 1}
    assert running.progress.fault() is None


@pytest.mark.parametrize("value", [b'{"op": [], "after": []}', b'{"op": {}}'])
def test_an_operation_that_is_no_text_is_put_aside(running: Running, value: bytes) -> None:
    running.partitions.add(SUBMISSIONS, value)
    running.submit(A)
    running.run(2)
    assert running.outbox.sent == [A]
    assert len({dict(letter["headers"])["source"] for letter in running.letters.sent}) == 1
    assert running.partitions.committed == {SUBMISSIONS: 2}
