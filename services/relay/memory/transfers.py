"""The places of large bodies that are under way piece by piece: one set for the process, whoever uses them."""

from __future__ import annotations

import asyncio
import sys

from services.relay.memory.shares import Shares

# Requests that wait for a place, of which each holds some 200 KB; one token may have a fifth. More are told to come
# again.
WAITING_MAX = 1000
# Of the places so many twelfths are for each kind. Uploads, deliveries and answers may last as long as the other side
# takes; whoever reads a kept answer can come again, and callbacks that are put together wait for nobody but the database.
TAKING, SENDING, SPOOLING, READING, COMPOSING = 3, 3, 3, 2, 1
# Beginnings of answers that are stored at a time: each is in memory in four copies meanwhile.
BEGINNING = 4
PARTS = TAKING + SENDING + SPOOLING + READING + COMPOSING


class Transfers:
    """`places` are those of all kinds together, and `calls_max` deliveries may wait for theirs."""

    def __init__(self, places: int, calls_max: int) -> None:
        parts = (TAKING, SENDING, SPOOLING, READING, COMPOSING)
        self.places = sum(_part(places, part) for part in parts)
        self.taking = Shares(_part(places, TAKING), WAITING_MAX)
        self.sending = Shares(_part(places, SENDING), calls_max)
        # An answer that was paid for is not refused: its call waits, as long as it may, with its beginning stored.
        self.spooling = Shares(_part(places, SPOOLING), sys.maxsize)
        self.beginning = asyncio.Semaphore(BEGINNING)
        self.reading = Shares(_part(places, READING), WAITING_MAX)
        self.composing = asyncio.Semaphore(_part(places, COMPOSING))


def _part(places: int, parts: int) -> int:
    """With too little memory for that, one at a time."""
    return max(1, places * parts // PARTS)
