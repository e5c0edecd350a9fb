"""How many more calls may start: within the limits of connections, memory, and unwritten endings."""

from __future__ import annotations

from services.relay.engine.held_claims import HeldClaims
from services.relay.engine.http_attempt import HttpAttempt
from services.relay.memory.memory import CALL_BYTES

# The most messages of one round trip. Larger batches gain little.
CLAIM_MAX = 250
# The limit on calls that will have a connection soon. Beyond it, calls to a fast destination open new connections
# instead of reusing those just given back, and opening costs more than the call. For slow destinations see
# `egress/http/opening.py`.
OPENING_MAX = 300


class Capacity:
    def __init__(self, held: HeldClaims, http: HttpAttempt, concurrency_max: int) -> None:
        self._held = held
        self._http = http
        self._concurrency_max = concurrency_max

    def left(self) -> int:
        calls, writer = self._held.calls, self._held.writer
        if writer.full:
            return 0
        # Endings that the database refuses do not count against the limit, up to the number of places.
        unwritten = writer.unwritten - min(writer.put_aside, self._concurrency_max)
        places = calls.bytes_left // CALL_BYTES
        return min(CLAIM_MAX, OPENING_MAX - self._http.opening, self._concurrency_max - len(calls) - unwritten, places)
