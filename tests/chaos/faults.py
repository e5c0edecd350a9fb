"""Doing what the plan says: each kind of fault is begun, held, and undone. What could not be done is said, not hidden."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import psutil
import psycopg
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from tests.chaos.plan import Fault
from tests.chaos.system import System
from tests.wait import until
from tidings.topics import COMPLETIONS, SUBMISSIONS

DELAY_SECONDS = 0.4
# The one channel whose topic is deleted.
DELETED_CHANNEL = "red"
SERVER_SECONDS = 60.0
# A keeper waits for up to 10 s before it starts again what ended soon.
RESTART_SECONDS = 12.0

Undo = Callable[[], None]


@dataclass(frozen=True)
class Done:
    """A fault as it happened: `fault` has the true times. `error`: it was not done, for this reason."""

    fault: Fault
    error: str | None = None


class Injector:
    """`run` follows a plan; `done` is what came of it, `undecodable` the values of records that nobody can read."""

    def __init__(self, system: System, seed: int, told: Callable[[str], None]) -> None:
        self._system = system
        self._chance = Random(seed)
        self._told = told
        self.done: list[Done] = []
        self.undecodable: set[bytes] = set()

    def run(self, faults: Sequence[Fault], began: float) -> None:
        """Until the last fault is undone. `began` is Unix seconds."""
        threads = []
        for fault in faults:
            _wait_until(began + fault.at_seconds)
            thread = threading.Thread(target=self._one, args=(fault, began), daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join(SERVER_SECONDS * 2)
            assert not thread.is_alive(), "a fault is not undone"

    def _one(self, fault: Fault, began: float) -> None:
        at = time.time()
        self._told(
            f"{at - began:6.1f} s  {fault.kind}" + (f" for {fault.lasts_seconds:.1f} s" if fault.lasts_seconds else "")
        )
        error = None
        try:
            undo = self._begin(fault)
            at = time.time()
            _wait_until(at + fault.lasts_seconds)
            undo()
        except Exception as found:  # noqa: BLE001  whatever it is, the run goes on, and the report says so
            error = f"{type(found).__name__}: {found}"[:300]
        lasts = time.time() - at if fault.lasts_seconds else 0.0
        self.done.append(Done(replace(fault, at_seconds=at - began, lasts_seconds=lasts), error))

    def _begin(self, fault: Fault) -> Undo:
        system, target = self._system, fault.target
        match fault.name, target:
            case "kill", "postgres":
                self._running("postgres")[0].send_signal(signal.SIGKILL)
            case "kill", _:
                self._running(target)
                system.signal(target, signal.SIGKILL)
            case "terminate", _:
                self._running(target)
                system.signal(target, signal.SIGTERM)
            case "stop", _:
                return self._stop(target)
            case "terminate backends", _:
                self._terminate_backends()
            case "kill backend", _:
                self._kill_backend()
            case "drop", "slot":
                self._drop_slot()
            case "undecodable record", _:
                self._undecodable(fault.number)
            case "delete", "channel topic":
                self._delete_topic()
            case _:
                return self._harm_link(fault.name, target.removeprefix("link to "))
        return _nothing

    def _stop(self, target: str) -> Undo:
        family = self._running(target)
        for process in family:
            _send(process, signal.SIGSTOP)

        def go_on() -> None:
            for process in family:
                _send(process, signal.SIGCONT)

        return go_on

    def _running(self, target: str) -> list[psutil.Process]:
        """Its processes, which may just be started again after the fault before."""
        return until(lambda: self._system.family(target), RESTART_SECONDS)

    def _harm_link(self, name: str, server: str) -> Undo:
        link = self._system.links[server]
        match name:
            case "cut":
                link.cut()
                return _nothing
            case "delay":
                link.delay(DELAY_SECONDS)
            case "refuse":
                link.refuse()
            case "swallow":
                link.swallow()
        return link.heal

    def _terminate_backends(self) -> None:
        """Every third connection of our processes, by chance."""
        with self._admin() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'tidings%' AND pid <> pg_backend_pid()"
            ).fetchall()
            for (pid,) in rows:
                if self._chance.random() < 1 / 3:
                    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    def _kill_backend(self) -> None:
        """kill -9: the postmaster then ends all others and recovers."""
        found = [p for p in self._running("postgres")[1:] if " tidings_" in " ".join(p.cmdline())]
        _send(self._chance.choice(found), signal.SIGKILL)

    def _drop_slot(self) -> None:
        drop = """SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
            WHERE slot_name = 'tidings_cdc' AND active_pid IS NULL"""
        end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'tidings_cdc'"

        def dropped() -> bool:
            try:
                with self._admin() as connection:
                    connection.execute(end)
                    return connection.execute(drop).fetchone() is not None
            except psycopg.Error:
                return False

        until(dropped, SERVER_SECONDS)

    def _undecodable(self, number: int) -> None:
        self._broker()
        value = b"\xff no change " + str(number).encode()
        producer = KafkaProducer(
            bootstrap_servers=self._bootstrap(), acks="all", enable_idempotence=True, max_block_ms=SERVER_SECONDS * 1000
        )
        try:
            producer.send(SUBMISSIONS, value, key=os.urandom(8).hex().encode()).get(SERVER_SECONDS)
            self.undecodable.add(value)
        finally:
            producer.close(timeout=5)

    def _delete_topic(self) -> None:
        self._broker()
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap())
        try:
            admin.delete_topics([f"{COMPLETIONS}.{DELETED_CHANNEL}"])
        finally:
            admin.close()

    def _broker(self) -> None:
        until(lambda: self._system.ready("kafka"), SERVER_SECONDS)

    def _bootstrap(self) -> str:
        return f"127.0.0.1:{self._system.ports['kafka']}"

    def _admin(self) -> psycopg.Connection:
        url = self._system.stack.home.public_environment()["TIDINGS_DATABASE_URL"]
        return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _nothing() -> None:
    return


def _wait_until(moment: float) -> None:
    while (left := moment - time.time()) > 0:
        time.sleep(min(left, 0.5))
