"""Builds the parts that claim, hold and end calls. Their connections are separate from those of requests."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.relay.egress.routes import Routes
from services.relay.engine.attempt_runner import AttemptRunner
from services.relay.engine.bodies import Bodies
from services.relay.engine.calls import Calls
from services.relay.engine.cancellations import Cancellations
from services.relay.engine.capacity import Capacity
from services.relay.engine.claimer import Claimer
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.drain import Drain, DrainLoops
from services.relay.engine.ending_bodies import EndingBodies
from services.relay.engine.ending_writer import EndingWriter
from services.relay.engine.held_claims import HeldClaims
from services.relay.engine.http_attempt import HttpAttempt
from services.relay.engine.lease import Lease
from services.relay.engine.loops import FAULT_PAUSE_SECONDS, Loop
from services.relay.engine.readiness import Readiness
from services.relay.engine.recovery import Recovery
from services.relay.engine.start_notices import StartNotices
from services.relay.engine.wakeup import Wakeup
from services.relay.memory.memory import Memory
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.claims import Claims
from services.relay.store.database import Database
from services.relay.store.encryption import Encryption
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from tidings.process.telemetry import Telemetry

# A call is broken off within this time after another process cancelled its message.
CANCEL_CHECK_SECONDS = 0.5
SWEEP_SECONDS_MAX = 2.0


@dataclass(frozen=True)
class Engine:
    """`loops` are all loops of the process."""

    http: HttpAttempt
    notices: StartNotices
    calls: Calls
    readiness: Readiness
    drain: Drain
    loops: Sequence[Loop]


@dataclass(frozen=True)
class Shared:
    """The parts that the engine shares with the rest of its process. `accepting` continues during the drain; `others`
    end when it starts.
    """

    owner: UUID
    encryption: Encryption
    tls: ssl.SSLContext
    memory: Memory
    wakeup: Wakeup
    signing_key: Callable[[], str]
    accepting: Loop
    others: Sequence[Loop]


def build_engine(
    settings: RelaySettings,
    databases: tuple[Database, Database, Database],
    telemetry: Telemetry[RelayMetrics],
    shared: Shared,
) -> Engine:
    """`databases`: the pool of the engine, that of the lease, and that of large bodies."""
    database, lease_database, large = databases
    owner, memory, wakeup = shared.owner, shared.memory, shared.wakeup
    log, metrics = telemetry.log, telemetry.metrics
    messages = Messages(database, shared.encryption, owner=owner)
    bodies = Bodies(Chunks(large), settings.body_bytes_max, memory)
    http = HttpAttempt(settings, bodies, shared.tls, shared.signing_key)
    notices = StartNotices(Routes(settings, shared.tls), shared.signing_key, telemetry)
    clock = DatabaseClock()
    processes = Processes(database, owner=owner, lease=lease_database)
    lease = Lease(processes, clock, settings.lease_seconds)
    ending_bodies = EndingBodies(bodies, log, now=clock.now)
    writer = EndingWriter(messages, ending_bodies, telemetry, wake=wakeup.wake, held=memory.answers)
    held = HeldClaims(Calls(memory=memory, lapsed=lease.lapsed), writer)
    metrics.in_flight.set_function(lambda: len(held.calls))
    runner = AttemptRunner(http, writer, clock, telemetry, notify_start=notices.notify)
    capacity = Capacity(held, http, settings.concurrency_max)
    claimer = Claimer(messages, runner, held.calls, capacity, wakeup)
    claims = Claims(database, shared.encryption, owner=owner)
    recovery = Recovery(lease, claims, held, claimer, telemetry)
    readiness = Readiness(settings.lease_seconds, lambda: lease.renewed, writer.unwritten_since)
    claiming = Loop("claim", _claiming(claimer, writer, memory, readiness), log)
    renewal_seconds = settings.lease_seconds / 3
    heartbeat = Loop("heartbeat", lease.renew_once, log, every=renewal_seconds, again=FAULT_PAUSE_SECONDS)
    cancellations = Cancellations(processes, held.calls)
    continuing = [
        Loop("finish", writer.run_once, log),
        heartbeat,
        Loop("cancel_check", cancellations.run_once, log, every=CANCEL_CHECK_SECONDS),
        shared.accepting,
    ]
    sweep_seconds = min(SWEEP_SECONDS_MAX, renewal_seconds)
    others = [Loop("tend", recovery.recover_once, log, every=sweep_seconds, again=FAULT_PAUSE_SECONDS), *shared.others]
    loops = DrainLoops(claiming, heartbeat, others)
    drain = Drain(claimer, recovery, loops, log, seconds=settings.drain_seconds)
    return Engine(http, notices, held.calls, readiness, drain, [claiming, *continuing, *others])


def _claiming(
    claimer: Claimer, writer: EndingWriter, memory: Memory, readiness: Readiness
) -> Callable[[], Awaitable[None]]:
    async def claim() -> None:
        await claimer.round()
        readiness.claimed(blocked=writer.full or claimer.stuck, settled=memory.answers.given)

    return claim
