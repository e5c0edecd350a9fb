"""The process that owns a running stack: all others are its children and end with it."""

from __future__ import annotations

import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping

import psycopg
from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer
from pydantic import SecretStr

from stack.errors import StackError
from stack.home import ROOT, Home
from stack.jars import class_path, missing, read_lock, repository_of
from stack.java import find_java
from stack.lock import held
from stack.ports import is_free
from stack.postgres import Postgres, PostgresError
from stack.processes import environment_of
from stack.servers import ConnectPasswords, Jvm, Server, answers, connect, kafka
from stack.steps import Steps
from tidings.database.migrate import MigrateSettings, migrate
from tidings.database.queries import load_queries

HEALTH_SECONDS_MAX = 90.0
SERVERS_CHECK_SECONDS = 1.0
DISK_BYTES_MIN = 500 * 1024 * 1024


def run(home: Home, environment: Mapping[str, str]) -> int:
    """Start everything, serve until SIGTERM or Ctrl-C, stop everything; return the exit status."""
    try:
        with held(home.pid_file):
            return _run(home, environment)
    except StackError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _run(home: Home, environment: Mapping[str, str]) -> int:
    steps = Steps(home.steps)
    postgres = Postgres(home.postgres, home.ports["postgres"], home.secrets["postgres"])
    servers: list[Server] = []
    stopping = threading.Event()
    restarting = threading.Lock()
    try:
        _check(home)
        worker = _start_servers(home, environment, postgres, servers, steps)
        home.write_env_file()
        manager = _manager(home, environment)

        def keep() -> None:
            respawn_servers(postgres, servers, stopping, restarting)

        threading.Thread(target=await_then_respawn, args=(home, worker, steps, keep), daemon=True).start()
        manager.loop()
    except (StackError, PostgresError, OSError) as error:
        steps.failed(str(error))
        return 1
    finally:
        stopping.set()
        with restarting:  # a restart in progress must end first, or it would undo the stop
            for server in reversed(servers):
                server.stop()
            postgres.stop()
    return 0


def _check(home: Home) -> None:
    used = [f"{name} ({port})" for name, port in home.ports.items() if not is_free(port)]
    if used:
        raise StackError(
            f"these ports are in use: {', '.join(used)}; stop what uses them, or choose others with "
            f"TIDINGS_PORT_{used[0].split()[0].upper()}=…"
        )
    free = shutil.disk_usage(home.directory).free
    if free < DISK_BYTES_MIN:
        raise StackError(f"the disk is full: {free // 2**20} MiB are left in {home.directory}, 500 are needed")


def _start_servers(
    home: Home, environment: Mapping[str, str], postgres: Postgres, servers: list[Server], steps: Steps
) -> Server:
    """Start all three at once, because each is slow; return the worker. Postgres and the broker are then ready."""
    jars, repository = read_lock(), repository_of(environment)
    fetching = missing(jars, repository)
    with steps.step(f"Java parts: {len(jars)} jars" + (f", {fetching} to fetch" if fetching else ", checked")):
        jvm = Jvm(find_java(environment), class_path(jars, repository))
    ports = home.ports
    broker = kafka(jvm, home.directory / "kafka", port=ports["kafka"], controller_port=ports["controller"]).start()
    servers.append(broker)
    # The worker itself waits a minute for the broker, and loads its classes meanwhile.
    worker = connect(
        jvm, home.directory / "connect", (ports["connect"], ports["kafka"]),
        ConnectPasswords(database=home.secrets["cdc"], rest=home.secrets["connect"]),
    ).start()  # fmt: skip
    servers.append(worker)
    with steps.step("Postgres 18"):
        postgres.create()
        postgres.start()
    with steps.step("schema"):
        _migrate(home)
    with steps.step("Kafka 4.3"):
        broker.wait()
    return worker


def _migrate(home: Home) -> None:
    admin = home.database_url("postgres", "postgres")
    with psycopg.connect(admin.removesuffix("tidings") + "postgres", autocommit=True) as connection:
        queries = load_queries("stack", "database.sql")
        if connection.execute(queries["exists"]).fetchone() is None:
            connection.execute(queries["create"])
    secret = {
        name: SecretStr(home.secrets[name]) for name in ("api", "cdc", "stream", "relay", "reconciler", "api_key")
    }
    migrate(
        MigrateSettings(
            database_url=SecretStr(admin),
            api_password=secret["api"],
            cdc_password=secret["cdc"],
            stream_password=secret["stream"],
            relay_password=secret["relay"],
            reconciler_password=secret["reconciler"],
            api_key=secret["api_key"],
        )
    )


def _manager(home: Home, environment: Mapping[str, str]) -> Manager:
    # One file for all; each line has the name of its process, as `honcho start` would print it.
    output = (home.log / "processes.log").open("a", buffering=1)
    manager = Manager(Printer(output=output, prefix=True))
    for name, command in parse_procfile((ROOT / "Procfile").read_text()).processes.items():
        arguments = [sys.executable if argument == "python" else argument for argument in shlex.split(command)]
        respawned = shlex.join([sys.executable, "-m", "stack.respawn", *arguments])
        env = environment_of(home, name, environment) | {"PYTHONPATH": str(ROOT)}
        manager.add_process(name, f"exec {respawned}", env=env, cwd=str(ROOT))
    return manager


def await_then_respawn(home: Home, worker: Server, steps: Steps, keep: Callable[[], None]) -> None:
    """Wait until the stack is healthy, then `keep` its servers, even if it was not healthy in time."""
    try:
        _await_health(home, worker, steps)
    except OSError as error:  # such as a full disk, on which no step can be written
        sys.stderr.write(f"{error}\n")
    keep()


def respawn_servers(
    postgres: Postgres, servers: list[Server], stopping: threading.Event, restarting: threading.Lock
) -> None:
    """Restart a postmaster, broker or worker that died, as respawn.py does for the processes of Tidings."""
    while not stopping.wait(SERVERS_CHECK_SECONDS):
        with restarting:
            if stopping.is_set():
                return
            _respawn_postgres(postgres)
            for server in servers:
                _respawn_server(server)


def _respawn_server(server: Server) -> None:
    if server.process.poll() is None:
        return
    sys.stderr.write(f"{server.name} ended with {server.process.returncode}; starting it again\n")
    try:
        server.start()
    except OSError as error:
        # The disk, the descriptors or the processes are exhausted; a later attempt may succeed.
        sys.stderr.write(f"{server.name} cannot be started: {error}\n")


def _respawn_postgres(postgres: Postgres) -> None:
    if postgres.alive():
        return
    sys.stderr.write("the postmaster ended; starting it again\n")
    try:
        postgres.start()
    except (PostgresError, OSError) as error:
        # Its processes may take some seconds to notice that it died, and hold the lock of the data until then.
        sys.stderr.write(f"{error}\n")


def _await_health(home: Home, worker: Server, steps: Steps) -> None:
    """Wait step by step until everything is healthy, and report a component that is not healthy in time."""
    try:
        with steps.step("Connect 4.3 with Debezium 3.6"):
            worker.wait()
    except StackError as error:
        steps.failed(str(error))
        return
    deadline = time.monotonic() + HEALTH_SECONDS_MAX
    for name, path in (
        ("api", "/readyz"), ("relay", "/readyz"), ("provider", "/healthz"),
        ("watcher", "/readyz"), ("dispatcher", "/readyz"), ("notifier", "/readyz"), ("reconciler", "/readyz"),
    ):  # fmt: skip
        with steps.step(name):
            while not answers(home.url(name) + path):
                if time.monotonic() > deadline:
                    steps.failed(f"{name} is not ready after {HEALTH_SECONDS_MAX:.0f} s: see {home.log}/processes.log")
                    return
                time.sleep(0.1)
    steps.ready()
