"""The names of a run: the provider, the receiver and both links have one, which a name server of the run's own knows.

Without root, which a mount namespace and port 53 need, there is no name server, and all is called by its address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.infra.names import NameServer, may_have_own_names, name_server, own_names

# A domain that nobody has (RFC 6761).
DOMAIN = "chaos.test"
HOSTS = ("provider", "receiver", "postgres", "kafka")
HOSTS_FILE = Path("/etc/hosts")
# One a run, so that several runs may share a machine.
ADDRESSES = tuple(f"127.0.54.{number}" for number in range(1, 255))


@dataclass(frozen=True)
class Naming:
    """`wrapper` is the command that runs another where `server` is the one that is asked; empty without a server."""

    server: NameServer | None = None
    wrapper: Sequence[str] = ()

    def host(self, name: str) -> str:
        """How one of `HOSTS`, all of them at 127.0.0.1, is called."""
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
        # The machine's own name is there, which a server looks up when it starts.
        yield Naming(server, own_names(directory, hosts=HOSTS_FILE.read_text(), resolv_conf=resolv_conf))


def _serve(ends: ExitStack) -> NameServer:
    known = {f"{host}.{DOMAIN}": "127.0.0.1" for host in HOSTS}
    for address in ADDRESSES:
        try:
            return ends.enter_context(name_server(address, known, absent=[""]))
        except OSError:
            continue
    raise AssertionError("no address is free for a name server")
