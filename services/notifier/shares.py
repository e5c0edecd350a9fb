"""Which tenants name which channels' topics, and how many each: one tenant cannot use up all that there may be."""

from __future__ import annotations

from collections.abc import Collection

# Of more tenants the one whose last topic was added the longest time ago is forgotten.
TENANTS_MAX = 1000


class Shares:
    """What this process has seen since its start: a topic that was there before is nobody's until it is named."""

    def __init__(self, tenant_max: int) -> None:
        """`tenant_max`: topics of one tenant for which more are made."""
        self._tenant_max = tenant_max
        self._topics: dict[str, set[str]] = {}

    def add(self, tenant: str, topic: str) -> None:
        topics = self._topics.pop(tenant, set())
        topics.add(topic)
        self._topics[tenant] = topics
        while len(self._topics) > TENANTS_MAX:
            del self._topics[next(iter(self._topics))]

    def room(self, tenant: str, making: int = 0) -> bool:
        """Whether `tenant` may have one more than it has, and than the number that are being made for it."""
        return len(self._topics.get(tenant, ())) + making < self._tenant_max

    def users(self, topic: str) -> set[str]:
        return {tenant for tenant, topics in self._topics.items() if topic in topics}

    def keep(self, present: Collection[str]) -> None:
        """Forget the topics that are not there any more."""
        there = set(present)
        self._topics = {tenant: left for tenant, topics in self._topics.items() if (left := topics & there)}
