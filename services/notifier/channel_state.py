"""The state of channels that outlives a connection to Kafka: a failure does not discard it."""

from __future__ import annotations

from dataclasses import dataclass

from services.notifier.channels import Channels
from services.notifier.tenants import Tenants


@dataclass(frozen=True)
class ChannelState:
    """Which topics exist, or refuse events, and the tenants whose channels are excluded."""

    channels: Channels
    tenants: Tenants
