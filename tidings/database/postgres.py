"""Connections to Postgres with a limit on every wait: for a connection, for a response, for a lost peer."""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import _WaitTimeout
from psycopg.rows import dict_row

RV = TypeVar("RV")

# libpq's settings for a peer that does not respond: 5 s to connect; on an idle connection three probes from the tenth
# second on, 2 s apart; 15 s for data that was sent and not acknowledged. The timeout for a response covers a peer, or a
# proxy, that acknowledges everything and never responds.
NETWORK = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
# The server's own statement timeout expires first while the server responds: the connection then remains usable.
ANSWER_MARGIN_SECONDS = 3.0


def network_of(url: str) -> dict[str, Any]:
    """Return NETWORK without the parameters that `url` sets itself."""
    said = conninfo_to_dict(url)
    return {name: value for name, value in NETWORK.items() if name not in said}


class BoundedConnection(Connection[Any]):
    """A connection that closes itself if one response takes longer than `answer_seconds`; a pool then replaces it."""

    answer_seconds: float

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Like psycopg's, with a timeout.
        Raises `OperationalError`; whether the statement was executed is then unknown.
        """
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except _WaitTimeout:
            # Without a cancel request, which would wait for the same unresponsive peer.
            self.pgconn.finish()
            raise OperationalError(f"no answer within {self.answer_seconds:g} s") from None


def bounded(answer_seconds: float) -> type[BoundedConnection]:
    """Return a class of connections, because a pool needs a class."""
    return type("BoundedConnection", (BoundedConnection,), {"answer_seconds": answer_seconds})


def connect(url: str, *, application: str, statement_seconds: float) -> BoundedConnection:
    """Return a connection in autocommit whose rows are dicts.
    Postgres cancels a statement after `statement_seconds`.
    """
    return bounded(statement_seconds + ANSWER_MARGIN_SECONDS).connect(
        url,
        autocommit=True,
        row_factory=dict_row,
        options=f"-c statement_timeout={round(statement_seconds * 1000)}",
        application_name=application,
        **network_of(url),
    )
