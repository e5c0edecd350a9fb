"""From one change to what is to be sent: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.contract.change import ResultChange, UndecodableChangeError, decode_result
from tidings.contract.completion import Completion, completion
from tidings.process.log import fault


@dataclass(frozen=True)
class Event:
    """A completion is to be sent."""

    change: ResultChange
    completion: Completion


@dataclass(frozen=True)
class DeadLetter:
    """The change is to be put aside, for this reason; without its value when that is refused, too."""

    reason: str
    bare: bool = False


def transform(value: bytes | None, public_url: str) -> Event | DeadLetter | None:
    """What follows from a message of `tidings.cdc.results`; None: nothing (no insert)."""
    try:
        change = decode_result(value)
        return None if change is None else Event(change, completion(change, public_url))
    except UndecodableChangeError as error:
        return DeadLetter(str(error)[:1000])
    except Exception as error:  # noqa: BLE001  nothing else is read or asked here: it would fail again each time
        return DeadLetter(fault(error))
