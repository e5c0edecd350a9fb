"""The dependencies of the handlers. `service` builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry
from structlog.stdlib import BoundLogger

from services.relay.api.authentication import Authenticator
from services.relay.engine.bodies import Bodies
from services.relay.engine.group_commit import GroupCommit
from services.relay.memory.memory import Memory
from services.relay.metrics import RelayMetrics
from services.relay.settings import RelaySettings
from services.relay.store.contents import Contents
from services.relay.store.dead_letters import DeadLetters
from services.relay.store.events import Events
from services.relay.store.flow_keys import FlowKeys
from services.relay.store.labels import Labels
from services.relay.store.message_views import MessageViews
from services.relay.store.messages import Messages
from services.relay.store.queues import Queues
from services.relay.store.schedules import Schedules
from services.relay.store.signing_keys import SigningKeys
from services.relay.store.topics import Topics


@dataclass(frozen=True)
class Deps:
    """`wake` (the claiming loop): a message may be due in this many seconds. `abort`: this message was cancelled.

    `rescheduled` (the scheduler): a schedule was created or changed. `faults`: why this process is not ready. `now` is
    aware.
    """

    settings: RelaySettings
    authenticator: Authenticator
    group_commit: GroupCommit
    bodies: Bodies
    memory: Memory
    messages: Messages
    views: MessageViews
    queues: Queues
    flow_keys: FlowKeys
    topics: Topics
    schedules: Schedules
    dead_letters: DeadLetters
    labels: Labels
    contents: Contents
    events: Events
    signing_keys: SigningKeys
    metrics: RelayMetrics
    registry: CollectorRegistry
    log: BoundLogger
    wake: Callable[[float], None]
    abort: Callable[[str], None]
    rescheduled: Callable[[], None]
    faults: Callable[[], Mapping[str, str]]
    now: Callable[[], datetime]
