"""Notifiers share the partitions: every change has one completion, also when one of them joins or is killed meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import requests

from tests.integration.notifier.conftest import Notifying, Topics
from tests.process import started
from tests.wait import until

# In each round, so that each of the partitions has some.
CHANGES = 20


def test_two_notifiers_share_the_changes_and_each_has_one_completion(
    topics: Topics, instance: str, tmp_path: Path
) -> None:
    first, second = (Notifying(topics.bootstrap, tmp_path, f"{instance}-{number}") for number in (1, 2))
    ids: list[str] = []

    def work(*notifiers: Notifying) -> bool:
        """Write changes; whether each of these has emitted completions."""
        ids.extend(topics.changes([None] * CHANGES))
        return all(_emitted(one) for one in notifiers)

    with ExitStack() as stack:
        stack.enter_context(started(first.process))
        until(lambda: work(first), 60, every=0.5)
        # The second joins while the first works, and then each has partitions of its own.
        stack.enter_context(started(second.process))
        until(lambda: work(first, second), 60, every=0.5)
        first.process.kill()
        work(second)
        # Its partitions are the other's once its session is over.
        until(lambda: set(topics.completions(*ids)) == set(ids), 60, every=1)
        assert topics.completions(*ids) == sorted(ids)


def _emitted(notifying: Notifying) -> bool:
    lines = requests.get(notifying.process_url("/metrics"), timeout=30).text.splitlines()
    return any(line.startswith("tidings_completions_total{") and float(line.split()[1]) > 0 for line in lines)
