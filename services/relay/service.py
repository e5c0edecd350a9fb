"""The relay's composition: what one process consists of, and which loops and connections it has."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import REGISTRY
from structlog.stdlib import BoundLogger

from services.relay.api.authentication import Authenticator
from services.relay.api.deps import Deps
from services.relay.api.router import Router
from services.relay.engine.bodies import Bodies
from services.relay.engine.drain import Drain
from services.relay.engine.engine import Shared, build_engine
from services.relay.engine.group_commit import GroupCommit
from services.relay.engine.http_attempt import HttpAttempt
from services.relay.engine.janitor import Janitor
from services.relay.engine.loops import Loop
from services.relay.engine.scheduler import Scheduler
from services.relay.engine.start_notices import StartNotices
from services.relay.engine.wakeup import Wakeup
from services.relay.memory.memory import Memory
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.contents import Contents
from services.relay.store.database import Database, Pool, new_pool
from services.relay.store.dead_letters import DeadLetters
from services.relay.store.encryption import Encryption
from services.relay.store.events import Events
from services.relay.store.flow_keys import FlowKeys
from services.relay.store.labels import Labels
from services.relay.store.message_views import MessageViews
from services.relay.store.messages import Messages
from services.relay.store.queues import Queues
from services.relay.store.schedules import Schedules
from services.relay.store.signing_keys import KeyPair, SigningKeys
from services.relay.store.tokens import Tokens
from services.relay.store.topics import Topics
from tidings.process.telemetry import Telemetry

# Requests, and the loops that no call in flight depends on. More connections than cores gain little.
API_CONNECTIONS_MAX = 10
# Claims and endings. Requests and the pieces of large bodies have other pools, so they cannot exhaust this one.
ENGINE_CONNECTIONS_MAX = 4
BODIES_CONNECTIONS_MAX = 4
# The longest delay before this process uses signing keys that another process rotated.
KEYS_SECONDS = 2.0
JANITOR_SECONDS = 5.0
# Counting a long queue is slow in the database, and Prometheus does not scrape more often.
GAUGE_SECONDS = 10.0


@dataclass(frozen=True)
class Pools:
    """The connections to the database, in separate pools: no use waits for another's connections, and the lease has its
    own.
    """

    api: Pool
    engine: Pool
    lease: Pool
    bodies: Pool

    @property
    def all(self) -> tuple[Pool, ...]:
        return self.api, self.engine, self.lease, self.bodies


@dataclass(frozen=True)
class Service:
    """The running parts of one process: its loops, and the router that uses them."""

    pools: Pools
    drain: Drain
    http: HttpAttempt
    notices: StartNotices
    signing_keys: SigningKeys
    loops: Sequence[Loop]
    router: Router


def build(
    settings: RelaySettings, encryption: Encryption, tls: ssl.SSLContext, pools: Pools, log: BoundLogger
) -> Service:
    """Wire everything. Nothing runs yet, and no statement has been sent to the database."""
    metrics = RelayMetrics(REGISTRY)
    api = Database(pools.api)
    owner, window = uuid.uuid4(), settings.deduplication_seconds
    messages = Messages(api, encryption, owner=owner)
    signing_keys = SigningKeys(api, encryption, seed(settings))
    wakeup = Wakeup()
    group_commit = GroupCommit(messages, deduplication_seconds=window, wake=wakeup.wake)
    topics = Topics(api, encryption)
    authenticator = Authenticator(settings.token.get_secret_value(), Tokens(api).find, time.monotonic)
    schedules = Schedules(
        api,
        encryption,
        messages,
        topics,
        deduplication_seconds=window,
        wait_seconds=authenticator.wait_seconds,
        accepted=metrics.accepted.labels("message").inc,
    )
    scheduler = Scheduler(schedules, now=_now, fired=wakeup.wake, log=log)
    others = [
        Loop("scheduler", scheduler.run, log),
        Loop("janitor", Janitor(api, settings).run_once, log, every=JANITOR_SECONDS),
        Loop("signing_keys", signing_keys.refresh, log, every=KEYS_SECONDS),
        Loop("gauge", lambda: _measure(messages, metrics), log, every=GAUGE_SECONDS),
    ]
    memory = Memory(settings.memory_bytes_max, calls_max=max(1, settings.concurrency_max // 2))
    accepting = Loop("accept", group_commit.run, log)
    shared = Shared(owner, encryption, tls, memory, wakeup, lambda: signing_keys.pair.current, accepting, others)
    bodies = Bodies(Chunks(api), settings.body_bytes_max, memory)
    databases = Database(pools.engine), Database(pools.lease), Database(pools.bodies)
    engine = build_engine(settings, databases, Telemetry(metrics, log), shared)
    deps = Deps(
        settings=settings,
        authenticator=authenticator,
        group_commit=group_commit,
        bodies=bodies,
        memory=memory,
        messages=messages,
        views=MessageViews(api, encryption),
        queues=Queues(api, discard=bodies.discard),
        flow_keys=FlowKeys(api),
        topics=topics,
        schedules=schedules,
        dead_letters=DeadLetters(api, encryption, messages, discard=bodies.discard, deduplication_seconds=window),
        labels=Labels(api),
        contents=Contents(api),
        events=Events(api, encryption),
        signing_keys=signing_keys,
        metrics=metrics,
        registry=REGISTRY,
        log=log,
        wake=wakeup.wake,
        abort=engine.calls.abort,
        rescheduled=scheduler.wake,
        faults=engine.readiness.faults,
        now=_now,
    )

    return Service(pools, engine.drain, engine.http, engine.notices, signing_keys, engine.loops, Router(deps))


def build_pools(settings: RelaySettings) -> Pools:
    url, prepared = settings.database_url.get_secret_value(), settings.database_prepared
    return Pools(
        new_pool(url, connections_max=API_CONNECTIONS_MAX, prepared=prepared),
        new_pool(url, connections_max=ENGINE_CONNECTIONS_MAX, prepared=prepared),
        new_pool(url, connections_max=1, timeout_seconds=settings.lease_seconds / 3, prepared=prepared),
        new_pool(url, connections_max=BODIES_CONNECTIONS_MAX, prepared=prepared),
    )


async def _measure(messages: Messages, metrics: RelayMetrics) -> None:
    depth = await messages.depth()
    metrics.waiting.set(depth["waiting"])
    metrics.active.set(depth["active"])
    metrics.oldest.set(depth["oldest"])
    metrics.cooling.set(depth["cooling"])


def seed(settings: RelaySettings) -> KeyPair:
    return KeyPair(settings.current_signing_key.get_secret_value(), settings.next_signing_key.get_secret_value())


def _now() -> datetime:
    return datetime.now(UTC)
