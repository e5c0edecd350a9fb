"""Executes the plan: each kind of fault is begun, held, and undone. A fault that could not be caused is reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from tests.chaos.harm import Harm
from tests.chaos.plan import Fault
from tests.chaos.system import System

# Twice the time that a restarting server needs.
UNDONE_SECONDS = 120.0


@dataclass(frozen=True)
class Done:
    """A fault as it happened: `fault` has the actual times. `error`: the reason why it could not be caused."""

    fault: Fault
    error: str | None = None


class Injector:
    """`run` executes a plan. `done` has the faults as they happened."""

    def __init__(self, system: System, seed: int, told: Callable[[str], None], ended: Callable[[int], None]) -> None:
        """`ended` is called with a fault's number at its end."""
        self._ended = ended
        self._harm = Harm(system, Random(seed))
        self._told = told
        self.done: list[Done] = []

    def run(self, faults: Sequence[Fault], began: float) -> None:
        """Run until the last fault is undone. `began` is Unix seconds."""
        threads = []
        for fault in faults:
            _wait_until(began + fault.at_seconds)
            thread = threading.Thread(target=self._one, args=(fault, began), daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join(UNDONE_SECONDS)
            assert not thread.is_alive(), "a fault is not undone"

    def _one(self, fault: Fault, began: float) -> None:
        at = time.time()
        self._told(
            f"{at - began:6.1f} s  {fault.kind}" + (f" for {fault.lasts_seconds:.1f} s" if fault.lasts_seconds else "")
        )
        error = None
        try:
            undo = self._harm.begin(fault)
            at = time.time()
            _wait_until(at + fault.lasts_seconds)
            undo()
            self._ended(fault.number)
        except Exception as found:  # noqa: BLE001  whatever it is, the run goes on, and the report says so
            error = f"{type(found).__name__}: {found}"[:300]
        lasts = time.time() - at if fault.lasts_seconds else 0.0
        self.done.append(Done(replace(fault, at_seconds=at - began, lasts_seconds=lasts), error))

    @property
    def undecodable(self) -> frozenset[bytes]:
        """The values of the undecodable records that faults have written."""
        return frozenset(self._harm.undecodable)


def _wait_until(moment: float) -> None:
    while (left := moment - time.time()) > 0:
        time.sleep(min(left, 0.5))
