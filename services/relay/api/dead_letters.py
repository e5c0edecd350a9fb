"""Dead letters: shown, removed, and published again."""

from __future__ import annotations

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.consent import bulk_filters, list_filters
from services.relay.api.deps import Deps
from services.relay.api.rates import check_rate
from services.relay.api.reply import RefusedError, done_reply, json_reply, not_found
from services.relay.message import ANSWER_INLINE_BYTES_MAX
from services.relay.protocol.answers import dead_letter_object, present, published_object
from services.relay.protocol.filters import Filters, Route
from services.relay.protocol.headers import OPTION_PREFIXES
from services.relay.protocol.publishing import options_of
from services.relay.store.dead_letters import RETRY_BYTES_MAX


async def listed(deps: Deps, call: Call) -> web.Response:
    """`GET /v2/dlq`. The last page has no cursor."""
    filters = list_filters(Route.LETTERS, call.query)
    await call.holding.take_page()
    dead_letters, cursor = await deps.dead_letters.list(filters)
    return json_reply(present({"cursor": cursor, "messages": [dead_letter_object(letter) for letter in dead_letters]}))


async def get(deps: Deps, call: Call) -> web.Response:
    await call.holding.take_page(ANSWER_INLINE_BYTES_MAX)
    letter = await deps.dead_letters.get(call.name())
    if letter is None:
        raise not_found(f"dead letter {call.name()}")
    return json_reply(dead_letter_object(letter))


async def delete(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/dlq/{id}`."""
    if not await deps.dead_letters.delete(call.name()):
        raise not_found(f"dead letter {call.name()}")
    return done_reply()


async def delete_many(deps: Deps, call: Call) -> web.Response:
    """`DELETE /v2/dlq`. The answer has a cursor when there are more."""
    filters = await _chosen(deps, call)
    deleted, cursor = (0, None) if filters is None else await deps.dead_letters.delete_many(filters)
    return json_reply(present({"deleted": deleted, "cursor": cursor}))


async def retry(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/dlq/retry/{id}`: any header of publish overrides the message's own."""
    check_rate(deps, call, 1)
    overrides = {
        name: value for name, value in options_of(call.headers, call.query).items() if name.startswith(OPTION_PREFIXES)
    }
    accepted = await deps.dead_letters.retry(call.name(), overrides)
    if accepted is None:
        raise not_found(f"dead letter {call.name()}")
    if accepted.deduplicated:
        # The same answer as publish gives. The dead letter stays.
        return json_reply(published_object(accepted.message_id, deduplicated=True), 202)
    deps.wake(0.0)
    return json_reply({"messageId": accepted.message_id}, 201)


async def retry_many(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/dlq/retry`. The last page has an empty cursor, as in the documentation. 404 when ids are given and none
    exists.
    """
    check_rate(deps, call, 1)
    filters = await _chosen(deps, call)
    await call.holding.take(2 * RETRY_BYTES_MAX)
    message_ids, cursor = ([], None) if filters is None else await deps.dead_letters.retry_many(filters)
    if filters is not None and filters.dlq_ids and filters.cursor is None and not message_ids:
        raise RefusedError(404, "none of these dead letters is there to be sent again")
    if message_ids:
        deps.wake(0.0)
        if call.token is not None:
            # The first message is counted already.
            deps.authenticator.charge(call.token, len(message_ids) - 1)
    return json_reply(
        {"cursor": cursor or "", "responses": [{"messageId": message_id} for message_id in message_ids]}, 201
    )


async def _chosen(deps: Deps, call: Call) -> Filters | None:
    rule = deps.settings.bulk_without_filter
    return bulk_filters(Route.LETTERS_BULK, call.query, await call.json_body(), call.headers, rule)
