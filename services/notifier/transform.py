"""From a change to the record to be sent: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass

from tidings.contract.change import ResultChange, UndecodableChangeError, decode_result
from tidings.contract.completion import Completion, completion
from tidings.process.log import fault


@dataclass(frozen=True)
class Event:
    """A completion event is to be sent."""

    change: ResultChange
    completion: Completion


@dataclass(frozen=True)
class DeadLetter:
    """The change becomes a dead letter with this reason, and without its value if the broker refuses the value too."""

    reason: str
    bare: bool = False


def transform(value: bytes | None, public_url: str) -> Event | DeadLetter | None:
    """Decide on a message of `tidings.cdc.results`. Returns None if the change is not an insert."""
    try:
        change = decode_result(value)
        return None if change is None else Event(change, completion(change, public_url))
    except UndecodableChangeError as error:
        return DeadLetter(str(error)[:1000])
    except Exception as error:  # noqa: BLE001  this code does no I/O: it would fail again each time
        return DeadLetter(fault(error))
