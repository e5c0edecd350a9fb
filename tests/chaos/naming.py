"""The host names of a run: the provider, the receiver and both links have one, which the run's own name server
resolves.

Without root, which a mount namespace and port 53 need, there is no name server, and all are called by their addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.infra.names import NameServer, may_have_own_names, name_server, own_names

# A reserved domain (RFC 6761).
DOMAIN = "chaos.test"
HOSTS = ("provider", "receiver", "postgres", "kafka")
HOSTS_FILE = Path("/etc/hosts")
# One per run, so that several runs can share a machine.
ADDRESSES = tuple(f"127.0.54.{number}" for number in range(1, 255))


@dataclass(frozen=True)
class Naming:
    """`wrapper` is a command that runs another command with `server` as its name server. Empty without a server."""

    server: NameServer | None = None
    wrapper: Sequence[str] = ()

    def host(self, name: str) -> str:
        """The address under which one of `HOSTS`, all on 127.0.0.1, is called."""
        assert name in HOSTS
        return "localhost" if self.server is None else f"{name}.{DOMAIN}"


@contextmanager
def new_naming(directory: Path) -> Iterator[Naming]:
    if not may_have_own_names(directory):
        yield Naming()
        return
    with ExitStack() as ends:
        server = _serve(ends)
        resolv_conf = f"nameserver {server.address}\n"
        # Contains the machine's own name, which a server looks up at its start.
        yield Naming(server, own_names(directory, hosts=HOSTS_FILE.read_text(), resolv_conf=resolv_conf))


def _serve(ends: ExitStack) -> NameServer:
    known = {f"{host}.{DOMAIN}": "127.0.0.1" for host in HOSTS}
    for address in ADDRESSES:
        try:
            return ends.enter_context(name_server(address, known, absent=[""]))
        except OSError:
            continue
    raise AssertionError("no address is free for a name server")
