"""The choice of the messages to claim. Their calls are tested with the real process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from services.relay.ending import Ending
from services.relay.engine.attempt_runner import AttemptRunner, NotifyStart
from services.relay.engine.calls import Calls
from services.relay.engine.capacity import CLAIM_MAX, Capacity
from services.relay.engine.claimer import Claimer
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.held_claims import HeldClaims
from services.relay.engine.wakeup import Wakeup
from services.relay.message import Claim, Claimed
from services.relay.metrics import RelayMetrics
from services.relay.options import NO_OPTIONS, Options, StartedCallback
from services.relay.outcome.outcome import Answer, Failed, Retry
from tidings.process import log
from tidings.process.telemetry import Telemetry

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass
class Backlog:
    """A fake of `Messages`: both kinds have more messages than are claimed. `asked` is (kind, count)."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    async def claim(self, batch_max: int, _bytes_max: int) -> list[Claimed]:
        return self._take("plain", batch_max)

    async def claim_keyed(self, batch_max: int, _bytes_max: int) -> list[Claimed]:
        return self._take("keyed", batch_max)

    def _take(self, kind: str, batch_max: int) -> list[Claimed]:
        self.asked.append((kind, batch_max))
        return [cast("Claimed", _Message(f"{kind}-{len(self.asked)}-{n}")) for n in range(batch_max)]


@dataclass(frozen=True)
class _Message:
    id: str
    fault: None = None
    options: Options = NO_OPTIONS
    body: bytes = b""
    sealed_bytes: int = 0
    newer: bool = False

    @property
    def claim(self) -> Claim:
        return self.id, NOW


class Writer:
    unwritten = put_aside = 0
    full = False


class Attempts:
    """Holds every call for ever."""

    opening = 0

    async def make(self, _message: Claimed, _now: int, *, sending: Callable[[], None]) -> Any:  # noqa: ARG002
        await asyncio.Event().wait()


class Faulty:
    """Sends or not, and then raises an unexpected error."""

    opening = 0

    def __init__(self, *, sends: bool) -> None:
        self.sends = sends

    async def make(self, _message: Claimed, _now: int, *, sending: Callable[[], None]) -> Any:
        if self.sends:
            sending()
        raise KeyError("unforeseen")


class Ends(Writer):
    def __init__(self) -> None:
        self.endings: list[Ending] = []

    async def put(self, ending: Ending) -> None:
        self.endings.append(ending)


class One(Backlog):
    """A fake of `Messages` with one message, which was claimed at `started_at`."""

    def __init__(self, started_at: datetime, told: StartedCallback | None = None) -> None:
        super().__init__()
        self.message = Claimed(
            "m", "message", 2, "http://x.example/", "POST", {}, b"", 0, 3, 1000, "fail", "", NOW, NOW, 0, started_at,
            options=Options(started_callback=told),
        )  # fmt: skip

    def _take(self, kind: str, batch_max: int) -> list[Claimed]:
        return [self.message][:batch_max] if kind == "plain" else []


def claimer(
    messages: Backlog,
    http: object = None,
    writer: object = None,
    calls: Calls | None = None,
    notify_start: NotifyStart = lambda _message, _over: None,
) -> Claimer:
    backlog: Any = messages
    http_double: Any = http or Attempts()
    writer_double: Any = writer or Writer()
    held = HeldClaims(Calls() if calls is None else calls, writer_double)
    telemetry = Telemetry(RelayMetrics(CollectorRegistry()), log.get("test"))
    runner = AttemptRunner(http_double, writer_double, DatabaseClock(), telemetry, notify_start=notify_start)
    return Claimer(backlog, runner, held.calls, Capacity(held, http_double, 4 * CLAIM_MAX), Wakeup())


async def called(
    messages: One, http: object, notify_start: NotifyStart = lambda _message, _over: None
) -> tuple[list[Ending], Calls]:
    """The endings of one round, and the claims that are held after it."""
    ends, calls = Ends(), Calls()
    await claimer(messages, http, ends, calls, notify_start).claim_once()
    async with asyncio.timeout(20):
        while len(calls):  # noqa: ASYNC110  their tasks end by themselves
            await asyncio.sleep(0)
    return ends.endings, calls


def test_a_long_queue_of_messages_with_or_without_keys_does_not_starve_the_other() -> None:
    async def story() -> list[tuple[str, int]]:
        backlog = Backlog()
        claiming = claimer(backlog)
        assert [await claiming.claim_once() for _ in range(5)] == [CLAIM_MAX] * 4 + [0]
        return backlog.asked

    assert asyncio.run(story()) == [(kind, CLAIM_MAX) for kind in ("keyed", "plain", "keyed", "plain")]


@pytest.mark.parametrize(("sends", "fate"), [(True, "unknown"), (False, "not sent")])
def test_a_call_that_ends_by_an_unexpected_error_has_an_ending_too(sends: bool, fate: str) -> None:
    [ending], calls = asyncio.run(called(One(NOW), Faulty(sends=sends)))
    assert (ending.answer.status, ending.answer.fate) == (0, fate)
    assert isinstance(ending.verdict, Failed if sends else Retry)
    assert calls.orphans == frozenset()


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=-1)])
def test_the_end_of_an_attempt_has_a_time_of_the_same_clock_as_its_start(ahead: timedelta) -> None:
    database_now = datetime.now(UTC) + ahead
    clock = DatabaseClock()
    clock.set(database_now, time.monotonic())
    assert abs(clock.now() - database_now) < timedelta(minutes=1)
    # The known time of that clock may be slightly behind: an end is never before its start.
    [ending], _ = asyncio.run(called(One(datetime.now(UTC) + timedelta(hours=1)), Faulty(sends=True)))
    assert all(row.at >= ending.message.started_at for row in ending.logged)


def test_messages_that_are_claimed_during_the_stop_are_not_called() -> None:
    class Slow(One):
        async def claim(self, batch_max: int, bytes_max: int) -> list[Claimed]:
            claiming.stop()
            return await super().claim(batch_max, bytes_max)

    calls = Calls()
    claiming = claimer(Slow(NOW), calls=calls)

    async def story() -> None:
        assert await claiming.claim_once() == 1
        assert await claiming.claim_once() == 0

    asyncio.run(story())
    assert len(calls) == 0


class Cancelling(One):
    """Cancels a message after its claim has committed, and before its row arrives."""

    def __init__(self, calls: Calls, message_id: str) -> None:
        super().__init__(NOW)
        self.calls, self.message_id = calls, message_id

    async def claim(self, batch_max: int, bytes_max: int) -> list[Claimed]:
        self.calls.abort(self.message_id)
        return await super().claim(batch_max, bytes_max)


@pytest.mark.parametrize(("cancelled", "held"), [("m", 0), ("another", 1)])
def test_a_message_that_is_cancelled_while_its_claim_is_in_transit_is_not_called(cancelled: str, held: int) -> None:
    async def story() -> None:
        ends, calls = Ends(), Calls()
        await claimer(Cancelling(calls, cancelled), None, ends, calls).claim_once()
        assert (len(calls), ends.endings) == (held, [])
        await calls.abort_all(10)

    asyncio.run(story())


def test_a_cancellation_is_forgotten_after_the_claims_in_progress() -> None:
    """This only limits memory: a cancelled message is never claimed again."""

    async def story() -> None:
        messages, calls = One(NOW), Calls()
        with calls.claiming():
            calls.abort("m")
        await claimer(messages, None, Ends(), calls).claim_once()
        assert len(calls) == 1
        await calls.abort_all(10)

    asyncio.run(story())


class Stale(Ends):
    """The kept connection was closed: the request is sent once more, as a part of the same attempt."""

    opening = 0

    async def make(self, _message: Claimed, _now: int, *, sending: Callable[[], None]) -> Answer:
        sending()
        sending()
        return Answer(200, (), b"")


@pytest.mark.parametrize(("http", "asks", "times"), [
    (Stale(), True, 1), (Stale(), False, 0), (Faulty(sends=True), True, 1), (Faulty(sends=False), True, 0),
])  # fmt: skip
def test_the_start_of_an_attempt_is_reported_once_and_only_if_its_message_requests_it(
    http: object, asks: bool, times: int
) -> None:
    told: list[tuple[str, Callable[[], bool], bool]] = []

    def begun(message: Claimed, over: Callable[[], bool]) -> None:
        told.append((message.id, over, over()))

    asyncio.run(called(One(NOW, StartedCallback("http://api/") if asks else None), http, begun))
    assert [(id_, before, over()) for id_, over, before in told] == [("m", False, True)] * times


class Connected:
    """Has a connection after some time, and sends unless it is told not to, as `HttpAttempt` does."""

    opening = 0

    def __init__(self, *, times: int) -> None:
        self._times = times
        self.sent = 0

    async def make(self, _message: Claimed, _now: int, *, sending: Callable[[], None]) -> Answer:
        for _ in range(self._times):
            sending()
            self.sent += 1
        return Answer(200, (), b"")


@pytest.mark.parametrize(("lapses", "sent"), [([False], 1), ([True], 0), ([False, True], 1)])
def test_nothing_is_sent_once_the_lease_has_expired(lapses: list[bool], sent: int) -> None:
    left = iter(lapses)
    http, ends, calls = Connected(times=len(lapses)), Ends(), Calls(lapsed=lambda _: next(left))

    async def story() -> None:
        await claimer(One(NOW), http, ends, calls).claim_once()
        async with asyncio.timeout(20):
            while len(calls):  # noqa: ASYNC110  their tasks end by themselves
                await asyncio.sleep(0)

    asyncio.run(story())
    assert http.sent == sent
    # A claim without an ending is recovered by its state: one that was sent has an unknown fate.
    lapsed = lapses[-1]
    assert len(ends.endings) == (0 if lapsed else 1)
    assert len(calls.orphans) == (1 if lapsed and sent else 0)
