"""A call's time limit, which stands still while this relay's own database is what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def standing_still(limit: asyncio.Timeout | None) -> Iterator[None]:
    """The time of the block does not count. Within a block of the same limit this changes nothing, as without one."""
    when = None if limit is None else limit.when()
    if limit is None or when is None:
        yield
        return
    loop = asyncio.get_running_loop()
    left = when - loop.time()
    limit.reschedule(None)
    try:
        yield
    finally:
        limit.reschedule(loop.time() + left)
