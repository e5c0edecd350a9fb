"""The metrics and the log of a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from structlog.stdlib import BoundLogger

M = TypeVar("M")


@dataclass(frozen=True)
class Telemetry(Generic[M]):
    """`metrics` are those of the worker's process, or of its loop."""

    metrics: M
    log: BoundLogger
