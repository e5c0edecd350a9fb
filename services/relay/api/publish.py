"""Publishing: one message, one in a queue, or many at once; and the first version's publish, which may create a
schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.drafting import Asked, Drafted, Drafter
from services.relay.api.rates import check_rate
from services.relay.api.reply import REFUSALS, RefusedError, json_reply
from services.relay.api.schedules import create_schedule
from services.relay.message import Body, Draft, Stored
from services.relay.protocol import values
from services.relay.protocol.address import separated
from services.relay.protocol.answers import published_object
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import options_of
from services.relay.store.messages import Accepted

BATCH_MAX = 1000
# The limit on the messages of one request, which URL groups multiply, and with it on the size of their rows.
MESSAGES_MAX = 10_000
BYTES_MAX = 256 * 1024 * 1024


async def publish(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/publish/{destination}`."""
    return await _publish(deps, call, call.parts[0])


async def enqueue(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/enqueue/{queue}/{destination}`. An unknown queue is created."""
    return await _publish(deps, call, call.parts[1], queue=values.name(call.name(), "queue name"))


async def publish_v1(deps: Deps, call: Call) -> web.Response:
    """`POST /v1/publish/{destination}`. With `Upstash-Cron` it creates a schedule."""
    _, query = separated(call.parts[0])
    if options_of(call.headers, query).get("upstash-cron", "").strip():
        return json_reply({"scheduleId": await create_schedule(deps, call, protocol=1)}, 201)
    return await _publish(deps, call, call.parts[0], protocol=1)


async def batch(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/batch`. A malformed item refuses the whole batch. An item that cannot be accepted has an error in its
    place.
    """
    items = _items(await call.json(deps.settings.body_bytes_max))
    drafted: list[Drafted | str] = []
    try:
        await _draft_items(deps, call, items, drafted)
        accepted = await _accept(deps, call, _drafts(drafted))
    except REFUSALS:
        await _release(deps, _drafts(drafted))
        raise
    await _release(deps, [draft for draft, one in zip(_drafts(drafted), accepted, strict=True) if one.deduplicated])
    left = iter(accepted)
    answers = [
        {"error": item} if isinstance(item, str) else _answer(item, [next(left) for _ in item.drafts])
        for item in drafted
    ]
    return json_reply(answers)


async def _draft_items(deps: Deps, call: Call, items: list[_Item], drafted: list[Drafted | str]) -> None:
    """Append to `drafted` the messages of each of `items`, or the reason why it cannot be accepted. `items` is emptied,
    so that no body is in memory twice.
    """
    drafter = Drafter(deps.topics, deps.now().timestamp())
    items.reverse()
    while items:
        item = items.pop()
        body = await deps.bodies.keep(item.body.encode())
        try:
            drafted.append(
                await drafter.draft(Asked(item.address, item.options, body, call.caller_ip, queue=item.queue))
            )
        except InvalidRequestError as error:
            drafted.append(str(error))
            await _release_body(deps, body)


def _drafts(drafted: Sequence[Drafted | str]) -> list[Draft]:
    return [draft for item in drafted if isinstance(item, Drafted) for draft in item.drafts]


async def _publish(deps: Deps, call: Call, tail: str, *, queue: str | None = None, protocol: int = 2) -> web.Response:
    address, query = separated(tail)
    options = options_of(call.headers, query)
    body = await call.take(deps.bodies)
    asked = Asked(address, options, body, call.caller_ip, protocol, queue)
    try:
        drafted = await Drafter(deps.topics, deps.now().timestamp()).draft(asked)
        accepted = await _accept(deps, call, drafted.drafts)
    except REFUSALS:
        await _release_body(deps, body)
        raise
    if any(message.deduplicated for message in accepted):
        await _release_body(deps, body)
    status = 202 if all(message.deduplicated for message in accepted) else 201 if protocol == 1 else 200
    return json_reply(_answer(drafted, accepted), status)


async def _release_body(deps: Deps, body: Body) -> None:
    """Remove a stored body, unless a message refers to it."""
    if isinstance(body, Stored):
        await deps.bodies.release(body.key)


async def _release(deps: Deps, drafts: Sequence[Draft]) -> None:
    if keys := {draft.body.key for draft in drafts if isinstance(draft.body, Stored)}:
        await deps.bodies.release(*keys)


async def _accept(deps: Deps, call: Call, drafts: Sequence[Draft]) -> list[Accepted]:
    check_amount(drafts)
    check_rate(deps, call, len(drafts))
    accepted = await deps.group_commit.accept(drafts)
    deps.metrics.accepted.labels("message").inc(sum(not message.deduplicated for message in accepted))
    return accepted


def check_amount(drafts: Sequence[Draft]) -> None:
    """Check that the messages fit into one transaction. Raises `RefusedError`."""
    if len(drafts) > MESSAGES_MAX:
        raise RefusedError(413, f"more than {MESSAGES_MAX} messages result from this request")
    if sum(draft.inline_bytes for draft in drafts) > BYTES_MAX:
        raise RefusedError(413, f"the messages of this request hold more than {BYTES_MAX} bytes together")


def _answer(drafted: Drafted, accepted: Sequence[Accepted]) -> Any:
    answers = [
        published_object(
            message.message_id, deduplicated=message.deduplicated, url=asked.url if drafted.group else None
        )
        for asked, message in zip(drafted.drafts, accepted, strict=True)
    ]
    return answers if drafted.group else answers[0]


@dataclass(frozen=True)
class _Item:
    """A message of a batch, as requested."""

    address: str
    options: dict[str, str]
    body: str
    queue: str | None


def _items(content: Any) -> list[_Item]:
    if not isinstance(content, list):
        raise InvalidRequestError("the body must be a JSON array of messages")
    if not 0 < len(content) <= BATCH_MAX:
        raise InvalidRequestError(f"the body must be an array of 1 to {BATCH_MAX} messages, not {len(content)}")
    return [_item(index, item) for index, item in enumerate(content)]


def _item(index: int, item: Any) -> _Item:
    """One message of a batch. Null counts as absent, as the vendor's clients send it. Raises `InvalidRequestError`."""
    if not isinstance(item, dict):
        raise InvalidRequestError(f"message {index} of the batch must be an object")
    present = {name: value for name, value in item.items() if value is not None}
    if not isinstance(present.get("destination"), str):
        raise InvalidRequestError(f"destination of message {index} of the batch is missing or not text")
    for name, kind, shown in (("headers", dict, "an object"), ("body", str, "text"), ("queue", str, "text")):
        if not isinstance(present.get(name, kind()), kind):
            raise InvalidRequestError(f"{name} of message {index} of the batch must be {shown}")
    headers = {
        name.lower(): _header(index, name, value)
        for name, value in present.get("headers", {}).items()
        if value is not None
    }
    # As for publish: telemetry is not an option of the message.
    kept = options_of(headers, "")
    return _Item(present["destination"], kept, present.get("body", ""), present.get("queue") or None)


def _header(index: int, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int, float)):
        raise InvalidRequestError(f"header {name[:50]!r} of message {index} of the batch must be text")
    text = str(value)
    # No header of a request can contain these.
    if any(character in text for character in "\r\n\0"):
        raise InvalidRequestError(f"header {name[:50]!r} of message {index} of the batch holds a line break or NUL")
    return text
