"""How one call is to be answered: from the settings, and from `x_provider` in the request's JSON. Pure.

`{"prompt": "…", "x_provider": {"latency_seconds": 0.3, "faults": ["500", "500"], "call_id": "a", "bytes": 20000000}}`:
the n-th call of this `call_id` gets the n-th fault, later ones succeed. A key of its own, because Tidings forwards the
body as it is and a target's headers alone.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

FAULTS = ("429", "429-reset", "500", "503", "400", "401", "200-error", "quota", "hang", "cut", "html")
LATENCY_SECONDS_MAX = 600.0
BYTES_MAX = 64 * 1024 * 1024


class BadInstructionError(Exception):
    """`x_provider` is not as above; the text says what."""


@dataclass(frozen=True)
class Latency:
    """Fixed at the median when `spread` is 0, else lognormal around it: exp(spread) is one standard deviation."""

    median_seconds: float
    spread: float = 0.0

    def draw(self, chance: random.Random) -> float:
        factor = math.exp(chance.gauss(0.0, self.spread)) if self.spread else 1.0
        return min(LATENCY_SECONDS_MAX, self.median_seconds * factor)


@dataclass(frozen=True)
class Instruction:
    latency_seconds: float
    fault: str | None
    call_id: str
    extra_bytes: int


def instruction(
    content: dict[str, Any], *, default_id: str, calls_before: int, drawn_seconds: float, drawn_fault: str | None
) -> Instruction:
    """What to do with a call; `drawn_*` is what the settings' chances gave. Raises `BadInstructionError`."""
    asked = content.get("x_provider", {})
    if not isinstance(asked, dict):
        raise BadInstructionError("x_provider must be an object")
    latency, faults, size = asked.get("latency_seconds"), asked.get("faults", []), asked.get("bytes", 0)
    if latency is not None and not (isinstance(latency, int | float) and 0 <= latency <= LATENCY_SECONDS_MAX):
        raise BadInstructionError(f"latency_seconds must be from 0 to {LATENCY_SECONDS_MAX:g}")
    if not isinstance(faults, list) or any(fault not in (*FAULTS, "") for fault in faults):
        raise BadInstructionError(f"faults must be a list of {', '.join(FAULTS)}")
    if not isinstance(size, int) or not 0 <= size <= BYTES_MAX:
        raise BadInstructionError(f"bytes must be from 0 to {BYTES_MAX}")
    fault = (faults[calls_before] or None) if calls_before < len(faults) else None
    return Instruction(
        latency_seconds=float(drawn_seconds if latency is None else latency),
        fault=fault if "faults" in asked else drawn_fault,
        call_id=call_id(content, default_id),
        extra_bytes=size,
    )


def call_id(content: dict[str, Any], default_id: str) -> str:
    """The id that calls are counted by."""
    asked = content.get("x_provider")
    return str(asked.get("call_id", default_id))[:200] if isinstance(asked, dict) else default_id
