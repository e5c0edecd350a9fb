"""The system under test: a whole stack, a second api, relay and notifier, and proxies in front of their servers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests

from stack.jars import class_path, read_lock, repository_of
from stack.ports import free_ports, listens
from stack.processes import environment_of
from stack.servers import answers
from tests.acceptance.stacks import Stack, new_stack
from tests.chaos.naming import Naming, new_naming
from tests.chaos.receiver import Receiver
from tests.infra.tcp_proxy import TcpProxy
from tests.process import Process
from tests.wait import until

# Short times, so that leases, graces and drains end within a run.
SETTINGS = {
    "RECONCILER_GRACE_SECONDS": "20",
    "RECONCILER_SETTLE_SECONDS": "10",
    "RECONCILER_REPEAT_SECONDS": "30",
    "RECONCILER_INTERVAL_SECONDS": "1",
    "RELAY_LEASE_SECONDS": "6",
    "WATCHER_HANGING_SECONDS": "70",  # Connect's transactions end after 60
}
TARGETS = """
[chaos-images]
url = "{provider}/v1/images/generations"
headers = {{ Authorization = "Bearer demo" }}
retries = {retries}
retry_delay = "{retry_delay}"
timeout_seconds = 60

[chaos-paid]
url = "{provider}/v1/images/generations"
headers = {{ Authorization = "Bearer demo" }}
retries = {retries}
retry_delay = "{retry_delay}"
timeout_seconds = 60
on_unknown = "fail"

[chaos-limited]
url = "{receiver}/calls/chaos-limited"
retries = {retries}
retry_delay = "{retry_delay}"
timeout_seconds = 60
flow_control = {{ key = "chaos-limited", parallelism = {parallelism} }}
"""
LIMITED = 3
# 0.3 s, 0.6 s, 1.2 s and so on: four of the six retries outlast a name server that fails for 6 s and the time for which
# a failed lookup is cached. Two are for the provider's faults.
RETRIES, RETRY_DELAY = 6, "300 * pow(2, retried)"
JAVA_CLASSES = {"kafka": "kafka.Kafka", "connect": "org.apache.kafka.connect.cli.ConnectDistributed"}
READY_SECONDS = 90.0
STOPPED_SECONDS = 30.0


class System:
    """`names` are its processes without Postgres. `links` are the proxies by their server's name."""

    def __init__(self, stack: Stack, receiver: Receiver, naming: Naming, directory: Path) -> None:
        self.stack = stack
        self.naming = naming
        self.receiver = receiver
        self.links: dict[str, TcpProxy] = {}
        self.ports = dict(stack.home.ports)
        more = ("api-2", "internal-2", "relay-2", "notifier-2", "kafka-2")
        self.ports |= dict(zip(more, free_ports(len(more)), strict=True))
        self._directory = directory
        self._second: dict[str, Process] = {}

    def start(self, ends: ExitStack) -> None:
        targets = self._directory / "targets.toml"
        provider = f"http://{self.naming.host('provider')}:{self.ports['provider']}"
        limits = {"parallelism": LIMITED, "retries": RETRIES, "retry_delay": RETRY_DELAY}
        targets.write_text(TARGETS.format(provider=provider, receiver=self.receiver.url, **limits))
        targets.chmod(0o644)
        hosts = ",".join(self.naming.host(name) for name in ("provider", "receiver"))
        self.stack.environment |= SETTINGS | {"TIDINGS_TARGETS_FILE": str(targets), "RELAY_ALLOW_HOSTS": hosts}
        # Names that the name server does not know are resolved before the stack uses it.
        class_path(read_lock(), repository_of(self.stack.environment))
        self.stack.wrapper = self.naming.wrapper
        done = self.stack.command("up")
        assert done.returncode == 0, done.stdout + done.stderr
        for server, port in (("postgres", self.ports["postgres"]), ("kafka", self.ports["kafka-2"])):
            self.links[server] = proxy = TcpProxy("127.0.0.1", port).start()
            ends.callback(proxy.stop)
        self._add_listener()
        for name in ("api", "relay", "notifier"):
            self._start_second(name, ends)
        until(self.all_ready, READY_SECONDS, every=0.5)

    @property
    def names(self) -> tuple[str, ...]:
        return ("api", "dispatcher", "relay", "notifier", "watcher", "reconciler", "kafka", "connect", *self._second)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def ready(self, name: str) -> bool:
        if name == "kafka":
            return listens(self.ports["kafka"])
        if name == "connect":
            return answers(self.url("connect") + "/connectors", self.stack.home.secrets["connect"])
        try:
            return requests.get(self.url(name) + "/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def all_ready(self) -> bool:
        return all(self.ready(name) for name in self.names)

    def family(self, name: str) -> list[psutil.Process]:
        """The worker `name` and its children; empty while it does not run."""
        try:
            if name == "postgres":
                text = (self.stack.home.postgres / "data" / "postmaster.pid").read_text()
                first = psutil.Process(int(text.splitlines()[0]))
                return [first, *first.children(recursive=True)]
            found = [process for process in self._above(name).children(recursive=True) if _is(process, name)]
            if not found:
                return []
            first = min(found, key=lambda process: process.create_time())
            return [first, *first.children(recursive=True)]
        except (psutil.NoSuchProcess, OSError, ValueError, IndexError):
            return []

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send the signal to all processes of the target; SIGTERM to its worker only. Raises `LookupError` when none
        runs.
        """
        family = self.family(name)
        if not family:
            raise LookupError(f"{name} does not run")
        for process in family[:1] if number == signal.SIGTERM else family:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def _above(self, name: str) -> psutil.Process:
        if name in self._second:
            return psutil.Process(self._second[name].pid)
        return psutil.Process(int(self.stack.home.pid_file.read_text()))

    def _add_listener(self) -> None:
        """Add a second listener to the broker, whose clients connect through the proxy. Its supervisor restarts it with
        the file that is changed here.
        """
        home, port, second = self.stack.home, self.ports["kafka"], self.ports["kafka-2"]
        with (home.directory / "kafka" / "broker.properties").open("a") as file:
            file.write(
                f"\nlisteners=PLAINTEXT://127.0.0.1:{port},LINK://127.0.0.1:{second},"
                f"CONTROLLER://127.0.0.1:{home.ports['controller']}"
                f"\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port},LINK://{self._linked('kafka')}"
                "\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,LINK:PLAINTEXT,CONTROLLER:PLAINTEXT"
                "\ninter.broker.listener.name=PLAINTEXT\n"
            )
        self.signal("kafka", signal.SIGTERM)
        until(lambda: listens(second), READY_SECONDS)

    def _linked(self, server: str) -> str:
        """The host and port of the proxy in front of a server, for its clients."""
        return f"{self.naming.host(server)}:{self.links[server].port}"

    def _start_second(self, name: str, ends: ExitStack) -> None:
        environment = environment_of(self.stack.home, name, self.stack.environment)
        environment |= {"PYTHONUNBUFFERED": "1", f"{name.upper()}_LISTEN": f"127.0.0.1:{self.ports[name + '-2']}"}
        if name == "notifier":
            environment["NOTIFIER_INSTANCE"] = "1"
            environment["TIDINGS_KAFKA"] = self._linked("kafka")
        else:
            variable = f"{name.upper()}_DATABASE_URL"
            url = urlsplit(environment[variable])
            credentials = url.netloc.rpartition("@")[0]
            environment[variable] = url._replace(netloc=f"{credentials}@{self._linked('postgres')}").geturl()
        if name == "api":
            environment["API_INTERNAL_LISTEN"] = f"127.0.0.1:{self.ports['internal-2']}"
        log = self.stack.home.log / f"{name}-2.log"
        keeper = (*self.naming.wrapper, sys.executable, "-m", "stack.respawn")
        process = Process(f"services.{name}", environment, log, wrapper=keeper)
        ends.callback(lambda: process.stop() if process.running() else None)
        process.start()
        self._second[f"{name}-2"] = process


def _is(process: psutil.Process, name: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    if name in JAVA_CLASSES:
        return JAVA_CLASSES[name] in words
    return list(words[1:3]) == ["-m", f"services.{name.removesuffix('-2')}"]


@contextmanager
def new_system(directory: Path) -> Iterator[System]:
    """The started system. At the end of the block all its processes have ended. `directory` must be accessible to every
    user.
    """
    with ExitStack() as ends:
        naming = ends.enter_context(new_naming(directory))
        receiver = Receiver(naming.host("receiver"))
        ends.callback(receiver.close)
        stack = ends.enter_context(new_stack())
        system = System(stack, receiver, naming, directory)
        system.start(ends)
        yield system
