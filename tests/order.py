"""The order of tests in the processes of xdist: the units that run in one process, and those that begin first."""

from __future__ import annotations

from collections.abc import Sequence

# Files whose tests share one running stack. Its start takes half a minute of processor time, and it uses half a
# processor when idle, so a run has one stack, not one per process.
STACK = "running stack"
STACK_FILES = {
    "tests/acceptance/test_kills.py",
    "tests/acceptance/test_local_users.py",
    "tests/acceptance/test_outage.py",
    "tests/acceptance/test_two_clients.py",
    "tests/acceptance/test_way.py",
    "tests/acceptance/test_webhooks.py",
}
# Files whose tests share the running stack of a checkout. The commands of documents stop it at their end.
CHECKOUT = "stack of a checkout"
CHECKOUT_FILES = (
    "tests/acceptance/test_starts.py",
    "tests/acceptance/test_reconciler.py",
    "tests/acceptance/test_documents.py",
)
# A folder whose files share one Connect worker.
CONNECT = "tests/integration/cdc/"
# Files whose tests share nothing and take minutes together: each test is a unit.
SPLIT = {
    "tests/acceptance/test_commands.py",
    "tests/integration/relay/test_lost_answers.py",
    "tests/integration/relay/test_stops.py",
}
# The longest units begin first, so that no process works alone at the end. Unlisted units follow in the order of their
# files. Tests without I/O are last. Each line is the beginning of a unit's name.
FIRST = (
    STACK,
    CHECKOUT,
    "tests/integration/relay/test_stops.py",
    "tests/acceptance/test_commands.py",
    CONNECT,
    "tests/integration/relay/test_lost_answers.py",
    "tests/integration/secure_kafka/",
    "tests/integration/notifier/",
    "tests/integration/watcher/",
    "tests/integration/processes/",
    "tests/integration/test_consumers.py",
    "tests/integration/relay/",
    "tests/integration/sdk/",
    "tests/integration/api/",
)
LAST = "tests/unit/"


def unit_of(test: str) -> str:
    """The unit of a test, by its node id."""
    file = test.split("::", 1)[0]
    if file in SPLIT:
        return test
    if file in STACK_FILES:
        return STACK
    if file in CHECKOUT_FILES:
        return CHECKOUT
    return CONNECT if file.startswith(CONNECT) else file


def in_order(tests: Sequence[str]) -> list[str]:
    """The node ids with the longest units first."""
    return sorted(tests, key=lambda test: (_rank(unit_of(test)), _place(test)))


def _place(test: str) -> int:
    """The place of a test's file within its unit, where that has an order."""
    file = test.split("::", 1)[0]
    return CHECKOUT_FILES.index(file) if file in CHECKOUT_FILES else 0


def _rank(unit: str) -> int:
    ranks = (number for number, name in enumerate(FIRST) if unit.startswith(name))
    return next(ranks, len(FIRST) + unit.startswith(LAST))
