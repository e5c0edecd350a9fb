"""The claims that this process holds: as calls in flight, or as endings that are not written yet."""

from __future__ import annotations

from dataclasses import dataclass

from services.relay.engine.calls import Calls
from services.relay.engine.ending_writer import EndingWriter
from services.relay.message import Claim


@dataclass(frozen=True)
class HeldClaims:
    calls: Calls
    writer: EndingWriter

    def __contains__(self, claim: Claim) -> bool:
        return claim in self.calls or claim in self.writer

    @property
    def claims(self) -> list[Claim]:
        return [*self.calls.claims, *self.writer.claims]

    @property
    def any(self) -> bool:
        return len(self.calls) > 0 or self.writer.unwritten > 0
