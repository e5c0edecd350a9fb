"""The topics of channels that each tenant uses, and their number: one tenant cannot use up all topics."""

from __future__ import annotations

from collections.abc import Collection

# Beyond this number, the tenant whose last topic was added the longest time ago is forgotten.
TENANTS_MAX = 1000


class TenantTopics:
    """The uses that this process has seen since its start: an existing topic belongs to no tenant until an event names
    it.
    """

    def __init__(self, tenant_max: int) -> None:
        """`tenant_max`: the number of topics of one tenant at which no more are created for it."""
        self._tenant_max = tenant_max
        self._topics: dict[str, set[str]] = {}

    def add(self, tenant: str, topic: str) -> None:
        topics = self._topics.pop(tenant, set())
        topics.add(topic)
        self._topics[tenant] = topics
        while len(self._topics) > TENANTS_MAX:
            del self._topics[next(iter(self._topics))]

    def has_capacity(self, tenant: str, making: int = 0) -> bool:
        """Return whether `tenant` may have one more topic, beside its own and the `making` under creation."""
        return len(self._topics.get(tenant, ())) + making < self._tenant_max

    def users(self, topic: str) -> set[str]:
        return {tenant for tenant, topics in self._topics.items() if topic in topics}

    def keep(self, present: Collection[str]) -> None:
        """Forget the topics that no longer exist."""
        existing = set(present)
        self._topics = {tenant: left for tenant, topics in self._topics.items() if (left := topics & existing)}
