"""The dependencies of the routes. composition.py builds them."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from structlog.stdlib import BoundLogger

from services.api.acceptance import Acceptor
from services.api.authentication import Authentication
from services.api.committer import Committer
from services.api.settings import ApiSettings
from services.api.store import Store
from services.api.submit import Submit
from tidings.contract.targets import Target


@dataclass(frozen=True)
class Dependencies:
    """The dependencies of the routes."""

    settings: ApiSettings
    store: Store
    committer: Committer
    acceptor: Acceptor
    submit: Submit
    authentication: Authentication
    targets: dict[str, Target]
    registry: CollectorRegistry
    log: BoundLogger
