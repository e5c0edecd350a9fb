"""Each kind of fault: a function begins it, and returns a function that undoes it. Raises the error that prevented it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from random import Random

import psutil
import psycopg
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from tests.chaos.plan import CONTROL, Fault
from tests.chaos.system import System
from tests.infra.names import Mode
from tests.wait import until
from tidings.contract.topics import COMPLETIONS, SUBMISSIONS

DELAY_SECONDS = 0.4
# The only channel whose topic is deleted.
DELETED_CHANNEL = "red"
# The supervisor waits for up to 10 s before it restarts a process that ended soon. A server then needs time to start.
SERVER_SECONDS = 60.0
MODES: dict[str, Mode] = {"silence": "silent", "fail": "fails"}

Undo = Callable[[], None]


class Harm:
    """`undecodable`: the values of the undecodable records that were written here."""

    def __init__(self, system: System, chance: Random) -> None:
        self._system = system
        self._chance = chance
        self.undecodable: set[bytes] = set()

    def begin(self, fault: Fault) -> Undo:
        match fault.name, fault.target:
            case "stop", "postgres backend":
                return self._stop([self._backend()])
            case "stop", target:
                return self._stop(self._running(target))
            case (("silence" | "fail"), _):
                return self._harm_names(MODES[fault.name])
            case (("cut" | "delay" | "refuse" | "swallow"), target):
                return self._harm_link(fault.name, target.removeprefix("link to "))
            case _:
                self._do(fault)
                return _nothing

    def _do(self, fault: Fault) -> None:
        """The faults that have no duration."""
        match fault.name, fault.target:
            case "kill" | "terminate" | "restart", target:
                self._end(fault.name, target)
            case "terminate backends", _:
                self._terminate_backends()
            case "kill backend", _:
                _send(self._backend(), signal.SIGKILL)  # the postmaster then ends all other backends and recovers
            case "drop", "slot":
                self._drop_slot()
            case "undecodable record", _:
                self._undecodable(fault.number)
            case "delete", "channel topic":
                self._delete_topic()
            case _:
                assert fault.name == CONTROL, fault

    def _end(self, name: str, target: str) -> None:
        family = self._running(target)
        if target != "postgres":
            self._system.signal(target, signal.SIGKILL if name == "kill" else signal.SIGTERM)
            return
        # Only the postmaster. A restart is a fast shutdown, as by `pg_ctl`: SIGTERM would wait until all clients have
        # disconnected.
        family[0].send_signal(signal.SIGKILL if name == "kill" else signal.SIGINT)

    def _stop(self, family: Sequence[psutil.Process]) -> Undo:
        for process in family:
            _send(process, signal.SIGSTOP)

        def go_on() -> None:
            for process in family:
                _send(process, signal.SIGCONT)

        return go_on

    def _running(self, target: str) -> list[psutil.Process]:
        """The processes of the target, which may still be restarting after the previous fault."""
        return until(lambda: self._system.family(target), SERVER_SECONDS)

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
        """A random third of our processes' connections."""
        with self._admin() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'tidings%' AND pid <> pg_backend_pid()"
            ).fetchall()
            for (pid,) in rows:
                if self._chance.random() < 1 / 3:
                    connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    def _backend(self) -> psutil.Process:
        """A random backend that serves one of our processes."""
        return self._chance.choice(until(self._backends, SERVER_SECONDS))

    def _backends(self) -> list[psutil.Process]:
        return [process for process in self._system.family("postgres")[1:] if _serves_ours(process)]

    def _harm_names(self, mode: Mode) -> Undo:
        server = self._system.naming.server
        assert server is not None
        server.mode = mode

        def answer() -> None:
            server.mode = "answers"

        return answer

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
        """Act as soon as the server accepts connections: a fast shutdown waits until the connector has confirmed all
        changes.
        """
        connection = until(self._connected, SERVER_SECONDS, every=0.2)
        assert connection is not None
        return connection

    def _connected(self) -> psycopg.Connection | None:
        url = self._system.stack.home.public_environment()["TIDINGS_DATABASE_URL"]
        try:
            return psycopg.connect(url, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError:
            return None


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _serves_ours(process: psutil.Process) -> bool:
    """Find a backend by its title, such as `postgres: tidings_api tidings 127.0.0.1(40000) idle`."""
    try:
        return " tidings_" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _nothing() -> None:
    return
