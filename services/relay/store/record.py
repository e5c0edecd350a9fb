"""The rows of attempts in addition to their verdicts: log, put-offs, dead letters, kept answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from psycopg import AsyncConnection

from services.relay.ending import Ending
from services.relay.outcome.outcome import Failed
from services.relay.store import written
from services.relay.store.slicing import slices

# The bodies and headers of a statement are in memory five times: as base64, as JSON, and so on.
STATEMENT_BYTES_MAX = 2 * 1024 * 1024


async def record(
    connection: AsyncConnection[Any], statements: Mapping[str, LiteralString], endings: Sequence[Ending]
) -> Sequence[Ending]:
    """Write within the transaction on `connection`. `statements` are those of messages.sql. Returns the endings that
    were put off.
    """
    again = await _put_off(connection, statements, endings)
    logged = [(ending.message, row) for ending in endings for row in ending.logged]
    for rows in slices(logged, STATEMENT_BYTES_MAX, lambda one: one[1].answer_bytes):
        steps = [written.step(n, message, row) for n, (message, row) in enumerate(rows)]
        await connection.execute(statements["log"], {"rows": written.as_json(steps)})
    if buried := [ending for ending in endings if isinstance(ending.verdict, Failed)]:
        for some in slices(buried, STATEMENT_BYTES_MAX, lambda ending: len(ending.answer.body)):
            dead_letters = [written.dead_letter(ending) for ending in some]
            await connection.execute(statements["bury"], {"rows": written.as_json(dead_letters)})
    if kept := [written.answer(ending) for ending in endings if ending.answer.spooled and ending.answer.spooled.url]:
        await connection.execute(statements["keep_answers"], {"rows": written.as_json(kept)})
    return again


async def _put_off(
    connection: AsyncConnection[Any], statements: Mapping[str, LiteralString], endings: Sequence[Ending]
) -> Sequence[Ending]:
    again = [ending for ending in endings if ending.put_off]
    if again:
        errors = {ending.message.id: ending.answer.error for ending in again}
        ids = sorted(errors)
        await connection.execute(statements["put_off"], {"ids": ids, "errors": [errors[id_] for id_ in ids]})
    if ids := sorted(ending.message.id for ending in endings if ending.message.put_offs and not ending.put_off):
        await connection.execute(statements["attempted"], {"ids": ids})
    return again
