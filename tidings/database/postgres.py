"""Connections to Postgres on which no wait is without an end: connecting, an answer, a peer that is gone."""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg import Connection, OperationalError
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import _WaitTimeout
from psycopg.rows import dict_row

RV = TypeVar("RV")

# libpq's words for a peer that is silent: 5 s to connect; idle, three probes from the tenth second on, 2 s apart; 15 s
# for what was sent and not acknowledged. The end of an answer is for the peer, or the proxy on the way, that
# acknowledges everything and answers nothing.
NETWORK = {
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
# The server's own end of a statement comes first as long as the server is there: the connection then lives on.
ANSWER_MARGIN_SECONDS = 3.0


def network_of(url: str) -> dict[str, Any]:
    """NETWORK, but for what `url` itself says."""
    said = conninfo_to_dict(url)
    return {name: value for name, value in NETWORK.items() if name not in said}


class BoundedConnection(Connection[Any]):
    """Closes itself when one answer takes longer than `answer_seconds`; a pool then makes another in its place."""

    answer_seconds: float

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, with an end. Raises `OperationalError`; whether the statement was carried out is not known."""
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except _WaitTimeout:
            # Without a word to the server: a cancel would wait for the same silent peer.
            self.pgconn.finish()
            raise OperationalError(f"no answer within {self.answer_seconds:g} s") from None


def bounded(answer_seconds: float) -> type[BoundedConnection]:
    """A class of connections, as a pool makes connections of a class."""
    return type("BoundedConnection", (BoundedConnection,), {"answer_seconds": answer_seconds})


def connect(url: str, *, application: str, statement_seconds: float) -> BoundedConnection:
    """A connection in autocommit whose rows are dicts. Postgres ends a statement after `statement_seconds`."""
    return bounded(statement_seconds + ANSWER_MARGIN_SECONDS).connect(
        url,
        autocommit=True,
        row_factory=dict_row,
        options=f"-c statement_timeout={round(statement_seconds * 1000)}",
        application_name=application,
        **network_of(url),
    )
