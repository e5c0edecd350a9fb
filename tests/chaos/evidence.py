"""The evidence of a run, read when the system has come to rest. It is frozen, so the checks are pure. Times are Unix
seconds of one machine's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.chaos.plan import Fault

_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Sent:
    """One submission as the load sent it. `key` is its name in its metadata and in the provider's counts.

    `ids`: the ids in the api's answers, one for each time it was accepted. `once`: it has no Idempotency-Key, and is
    never repeated. `faults`: the provider is asked to fail. `expires`: its call takes longer than its `expires_in`.
    `cancelled`: the api's answer to DELETE, 200 or 409, if there was one. `seen`: an outcome that a reader saw.
    `probe`: the number of the fault at whose end it was sent.
    """

    key: str
    target: str
    at: float
    ids: tuple[str, ...] = ()
    once: bool = False
    faults: bool = False
    expires: bool = False
    cancelled: int | None = None
    seen: str | None = None
    channel: str | None = None
    webhook: bool = False
    probe: int | None = None


@dataclass(frozen=True)
class Stored:
    """A submission in Postgres, with its result if it has one. `nudges`: the number of nudges for its result."""

    id: str
    key: str
    outcome: str | None
    event_id: str | None = None
    reason: str | None = None
    ended_at: float | None = None
    nudges: int = 0


@dataclass(frozen=True)
class Completion:
    """A record on a topic of completions, read committed."""

    topic: str
    submission_id: str
    ce_id: str
    outcome: str
    at: float


@dataclass(frozen=True)
class Logged:
    """A row of the relay's log, of a message that is not a callback. `label`: a submission's id or a direct message's
    key. `at`: the time at which it was written, by the database's clock.
    """

    message_id: str
    label: str
    state: str
    error: str | None = None
    status: int | None = None
    at: float = 0.0


@dataclass(frozen=True)
class Arrival:
    """A request to one of our receivers, from its head to its answer. `limit` is the flow key, and `key` the
    submission's or message's key.
    """

    key: str
    limit: str | None
    began: float
    ended: float


@dataclass(frozen=True)
class Webhook:
    submission_id: str
    webhook_id: str


@dataclass(frozen=True)
class Limit:
    """`rate` calls in `period_seconds`; None: not limited."""

    name: str
    parallelism: int | None = None
    rate: int | None = None
    period_seconds: float = 1.0


@dataclass(frozen=True)
class Sample:
    """A process at one moment. `ready`: the answer of its /readyz. None: it has none."""

    process: str
    at: float
    ready: bool | None
    memory_bytes: int


@dataclass(frozen=True)
class Refused:
    """An answer that the load must not get."""

    what: str
    status: int
    text: str


@dataclass(frozen=True)
class Evidence:
    """`direct`: the keys of messages that the relay accepted without a submission. `calls`: by key, the calls that the
    provider received. `streamed`: by submission, the number of insert events of its result, without those of a snapshot
    or a nudge. `snapshots`: by submission, the number of events of its result that came from a snapshot. `remains`:
    counts that must be zero. `dead_letters` and `undecodable` are values of records.
    """

    sent: tuple[Sent, ...] = ()
    stored: tuple[Stored, ...] = ()
    streamed: Mapping[str, int] = field(default_factory=lambda: _NONE)
    snapshots: Mapping[str, int] = field(default_factory=lambda: _NONE)
    completions: tuple[Completion, ...] = ()
    logged: tuple[Logged, ...] = ()
    calls: Mapping[str, int] = field(default_factory=lambda: _NONE)
    direct: tuple[str, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    limits: tuple[Limit, ...] = ()
    samples: tuple[Sample, ...] = ()
    budgets: Mapping[str, int] = field(default_factory=lambda: _NONE)
    refused: tuple[Refused, ...] = ()
    remains: Mapping[str, int] = field(default_factory=lambda: _NONE)
    dead_letters: frozenset[bytes] = frozenset()
    undecodable: frozenset[bytes] = frozenset()
    faults: tuple[Fault, ...] = ()
    began: float = 0.0

    def did(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self.faults)
