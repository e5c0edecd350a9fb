"""Builds the parts that claim, hold and end calls. Their connections are separate from those of requests."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from structlog.stdlib import BoundLogger

from services.relay.egress.ways import Ways
from services.relay.engine.bodies import Bodies
from services.relay.engine.calls import Calls
from services.relay.engine.courier import Courier
from services.relay.engine.database_clock import DatabaseClock
from services.relay.engine.drain import Drain
from services.relay.engine.ending_writer import EndingWriter
from services.relay.engine.leases import Leases
from services.relay.engine.loops import FAULT_PAUSE_SECONDS, Loop
from services.relay.engine.pump import Pump
from services.relay.engine.readiness import Readiness
from services.relay.engine.start_notices import StartNotices
from services.relay.engine.waking import Waking
from services.relay.memory.memory import Memory
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.claims import Claims
from services.relay.store.database import Database
from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from services.relay.store.vault import Vault

# A call is broken off within this time after another process cancelled its message.
CANCEL_CHECK_SECONDS = 0.5
SWEEP_SECONDS_MAX = 2.0


@dataclass(frozen=True)
class Engine:
    """`loops` are all loops of the process."""

    courier: Courier
    notices: StartNotices
    calls: Calls
    readiness: Readiness
    drain: Drain
    loops: Sequence[Loop]


@dataclass(frozen=True)
class Surroundings:
    """The parts that the engine shares with the rest of its process. `intake` continues during the drain; `others` end
    when it starts.
    """

    owner: UUID
    memory: Memory
    waking: Waking
    signing_key: Callable[[], str]
    intake: Loop
    others: Sequence[Loop]


def build_engine(
    settings: RelaySettings,
    vault: Vault,
    tls: ssl.SSLContext,
    databases: tuple[Database, Database, Database],
    metrics: RelayMetrics,
    log: BoundLogger,
    around: Surroundings,
) -> Engine:
    """`databases`: the pool of the engine, that of the lease, and that of large bodies."""
    database, lease, large = databases
    owner, memory, waking = around.owner, around.memory, around.waking
    messages = Messages(database, vault, owner=owner)
    bodies = Bodies(Chunks(large), settings.body_bytes_max, memory)
    courier = Courier(settings, bodies, tls, around.signing_key)
    notices = StartNotices(Ways(settings, tls), around.signing_key, metrics, log)
    calls, clock = Calls(memory=memory, lapsed=lambda: leases.lapsed), DatabaseClock()
    writer = EndingWriter(messages, bodies, metrics, log, wake=waking.wake, now=clock.now, held=memory.answers)
    pump = Pump(messages, courier, writer, calls, clock, settings, metrics, log, waking=waking, begun=notices.tell)
    leases = Leases(
        Processes(database, owner=owner, lease=lease),
        Claims(database, vault, owner=owner),
        calls,
        writer,
        clock,
        metrics,
        log,
        lease_seconds=settings.lease_seconds,
        fail=pump.fail,
        given_up=waking.wake,
    )
    readiness = Readiness(settings.lease_seconds, lambda: leases.renewed, writer.unwritten_since)
    claims = Loop("claim", _claiming(pump, writer, memory, readiness), log)
    beat_seconds = settings.lease_seconds / 3
    heartbeat = Loop("heartbeat", leases.beat_once, log, every=beat_seconds, again=FAULT_PAUSE_SECONDS)
    carrying = [
        Loop("finish", writer.run_once, log),
        heartbeat,
        Loop("cancel_check", leases.cancel_once, log, every=CANCEL_CHECK_SECONDS),
        around.intake,
    ]
    sweep_seconds = min(SWEEP_SECONDS_MAX, beat_seconds)
    others = [Loop("tend", leases.tend_once, log, every=sweep_seconds, again=FAULT_PAUSE_SECONDS), *around.others]
    drain = Drain(pump, leases, calls, writer, claims, heartbeat, others, log, seconds=settings.drain_seconds)
    return Engine(courier, notices, calls, readiness, drain, [claims, *carrying, *others])


def _claiming(pump: Pump, writer: EndingWriter, memory: Memory, readiness: Readiness) -> Callable[[], Awaitable[None]]:
    async def claim() -> None:
        await pump.round()
        readiness.claimed(blocked=writer.full or pump.stuck, settled=memory.answers.given)

    return claim
