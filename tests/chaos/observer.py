"""Records about once a second whether each process is ready, and its memory."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.chaos.evidence import Sample
from tests.chaos.system import System

EVERY_SECONDS = 1.0


class Observer:
    """`start`, then `stop`; after that `samples` is complete."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._stopped = threading.Event()
        self._families: dict[str, list[psutil.Process]] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.samples: list[Sample] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _look(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            while not self._stopped.wait(EVERY_SECONDS):
                self.samples += pool.map(self._sample, self._system.names)

    def _sample(self, name: str) -> Sample:
        ready = self._system.ready(name)
        return Sample(name, time.time(), ready, self._memory(name))

    def _memory(self, name: str) -> int:
        family = self._families.get(name, [])
        if not family or not family[0].is_running():
            self._families[name] = family = self._system.family(name)
        found = 0
        for process in family:
            try:
                found += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return found
