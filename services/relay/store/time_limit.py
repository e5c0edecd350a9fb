"""The time limit of a call. It is paused while the call waits for this relay's own database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def standing_still(limit: asyncio.Timeout | None) -> Iterator[None]:
    """Pause the limit during the block. A nested block with the same limit changes nothing, nor does a block without
    one.
    """
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
