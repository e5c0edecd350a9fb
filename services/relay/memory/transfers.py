"""The places for large bodies in transfer: one set for the whole process."""

from __future__ import annotations

import asyncio
import sys

from services.relay.memory.places import Places

# The limit on requests that wait for a place. Each holds some 200 KB, and one token may have a fifth of them. Further
# requests are told to retry.
WAITING_MAX = 1000
# The twelfths of the places for each kind. Uploads, deliveries and answers may last as long as the other side takes. A
# reader of a kept answer can retry, and the composition of callbacks waits only for the database.
TAKING, SENDING, SPOOLING, READING, COMPOSING = 3, 3, 3, 2, 1
# The beginnings of answers that are stored at the same time. Each is in memory in four copies meanwhile.
BEGINNING = 4
PARTS = TAKING + SENDING + SPOOLING + READING + COMPOSING


class Transfers:
    """`places` is the number of all kinds together. `calls_max` deliveries may wait for theirs."""

    def __init__(self, places: int, calls_max: int) -> None:
        parts = (TAKING, SENDING, SPOOLING, READING, COMPOSING)
        self.places = sum(_part(places, part) for part in parts)
        self.taking = Places(_part(places, TAKING), WAITING_MAX)
        self.sending = Places(_part(places, SENDING), calls_max)
        # An answer that was paid for is not refused: its call waits, as long as its limit allows, with its beginning
        # stored.
        self.spooling = Places(_part(places, SPOOLING), sys.maxsize)
        self.beginning = asyncio.Semaphore(BEGINNING)
        self.reading = Places(_part(places, READING), WAITING_MAX)
        self.composing = asyncio.Semaphore(_part(places, COMPOSING))


def _part(places: int, parts: int) -> int:
    """With too little memory for a part, one at a time."""
    return max(1, places * parts // PARTS)
