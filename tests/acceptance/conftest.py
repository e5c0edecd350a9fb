"""The stacks that tests share. Each ends with the last of its tests, because an idle one takes half a processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.acceptance.checkouts import Checkout, running_checkout
from tests.acceptance.stacks import Stack, new_stack


@pytest.fixture(scope="package")
def checkout() -> Iterator[Checkout]:
    """The system of a checkout, for tests that mind neither its reconciler's short times nor a snapshot."""
    with running_checkout() as made:
        yield made


@pytest.fixture(scope="package")
def stack() -> Iterator[Stack]:
    """One running stack for all tests that share it."""
    with new_stack() as started:
        done = started.command("up")
        log = started.home.log / "processes.log"
        assert done.returncode == 0, done.stdout + done.stderr + (log.read_text()[-3000:] if log.exists() else "")
        yield started


@pytest.fixture
def fresh_stack() -> Iterator[Callable[[], Stack]]:
    with new_stack() as made:
        yield lambda: made
