"""Runs one attempt of a claimed message: the call, its start notice, and its ending."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from services.relay.ending import Ending, ending_of, unjudged
from services.relay.engine.calls import Call
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.ending_writer import EndingWriter
from services.relay.engine.http_attempt import HttpAttempt
from services.relay.message import Claimed
from services.relay.metrics import RelayMetrics
from services.relay.outcome.outcome import Answer
from tidings.process.log import fault
from tidings.process.telemetry import Telemetry

# Receives an attempt, and a function that says whether it has ended by the time of the call.
NotifyStart = Callable[[Claimed, Callable[[], bool]], None]


class AttemptRunner:
    """Each function is the work of one held claim. It never raises, except for cancellation."""

    def __init__(
        self,
        http: HttpAttempt,
        writer: EndingWriter,
        clock: DatabaseClock,
        telemetry: Telemetry[RelayMetrics],
        *,
        notify_start: NotifyStart,
    ) -> None:
        """`notify_start` receives the attempts whose messages ask for a start notice. It must neither wait nor
        raise.
        """
        self._http = http
        self._writer = writer
        self._clock = clock
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._notify_start = notify_start

    async def call(self, message: Claimed, call: Call) -> None:
        started = time.monotonic()
        sending = call.sending if message.options.started_callback is None else partial(self._start, message, call)
        try:
            answer = await self._http.make(message, int(time.time()), sending=sending)
        except Exception as error:  # noqa: BLE001  no fault of ours may leave a message active for ever
            self._log.error("call_failed", error=fault(error), message_id=message.id)
            answer = Answer(
                0, (), b"", error="an internal error of the relay", fate="unknown" if call.sent else "not sent"
            )
        if answer.fate == "unknown":
            self._metrics.unknown.inc()
        self._metrics.seconds.observe(time.monotonic() - started)
        await self.settle(message, answer, call, final=False)

    def _start(self, message: Claimed, call: Call) -> None:
        """The request may be sent from now on. A request that found its connection closed is sent once more, within
        the same attempt.
        """
        first = not call.sent
        call.sending()
        if first:
            self._notify_start(message, lambda: call.over)

    async def settle(self, message: Claimed, answer: Answer, call: Call, *, final: bool) -> None:
        try:
            await self._writer.put(self._ending(message, answer, final=final))
        except Exception as error:  # noqa: BLE001  as above
            self._log.error("ending_without_callbacks", error=fault(error), message_id=message.id)
            await self._writer.put(replace(unjudged(message, answer, self._ended_at(message)), callbacks=()))
        call.settled = True

    def _ending(self, message: Claimed, answer: Answer, *, final: bool) -> Ending:
        try:
            return ending_of(message, answer, self._ended_at(message), final=final)
        except Exception as error:  # noqa: BLE001  as above
            self._log.error("answer_not_classified", error=fault(error), message_id=message.id)
            return unjudged(message, answer, self._ended_at(message))

    def _ended_at(self, message: Claimed) -> datetime:
        """The time by the clock that stamped the start, but never before that start: this process knows that clock only
        to within some milliseconds.
        """
        now = self._clock.now()
        return max(message.started_at, now)
