"""Publishing: one message, one in a queue, or many at once; and the first version's publish, which may make a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from services.relay.bodies import inline_part
from services.relay.message import Draft, Stored
from services.relay.routes.call import Call
from services.relay.routes.deps import Deps
from services.relay.routes.drafting import Asked, Drafted, Drafter
from services.relay.routes.reply import RefusedError, json_reply
from services.relay.routes.schedules import create_schedule
from services.relay.store.messages import Accepted
from services.relay.wire import values
from services.relay.wire.answers import published_object
from services.relay.wire.invalid import InvalidRequestError
from services.relay.wire.publishing import options_of, separated

BATCH_MAX = 1000
# URL groups multiply: so many messages, with so much in their bodies, come of one request at the most.
MESSAGES_MAX = 10_000
BYTES_MAX = 256 * 1024 * 1024


async def publish(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/publish/{destination}`."""
    return await _publish(deps, call, call.parts[0])


async def enqueue(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/enqueue/{queue}/{destination}`: the queue is made when there is none."""
    return await _publish(deps, call, call.parts[1], queue=values.name(call.name(), "queue name"))


async def publish_v1(deps: Deps, call: Call) -> web.Response:
    """`POST /v1/publish/{destination}`; with `Upstash-Cron` it makes a schedule."""
    _, query = separated(call.parts[0])
    if options_of(call.headers, query).get("upstash-cron", "").strip():
        return json_reply({"scheduleId": await create_schedule(deps, call, protocol=1)}, 201)
    return await _publish(deps, call, call.parts[0], protocol=1)


async def batch(deps: Deps, call: Call) -> web.Response:
    """`POST /v2/batch`: a malformed item refuses the whole; an item that cannot be accepted has its error in its place."""
    asked = _items(await call.json(), call.caller_ip)
    drafter = Drafter(deps.topics, deps.now().timestamp())
    drafted: list[Drafted | str] = []
    for item in asked:
        try:
            drafted.append(await drafter.draft(item))
        except InvalidRequestError as error:
            drafted.append(str(error))
    accepted = iter(
        await _accept(deps, call, [d for item in drafted if isinstance(item, Drafted) for d in item.drafts])
    )
    answers = [
        {"error": item} if isinstance(item, str) else _answer(item, [next(accepted) for _ in item.drafts])
        for item in drafted
    ]
    return json_reply(answers)


async def _publish(deps: Deps, call: Call, tail: str, *, queue: str | None = None, protocol: int = 2) -> web.Response:
    address, query = separated(tail)
    options = options_of(call.headers, query)
    taken = await call.take(deps.bodies)
    stored = taken if isinstance(taken, Stored) else None
    asked = Asked(address, options, inline_part(taken), call.caller_ip, protocol, queue, stored)
    try:
        drafted = await Drafter(deps.topics, deps.now().timestamp()).draft(asked)
        accepted = await _accept(deps, call, drafted.drafts)
    except Exception:
        await _release(deps, stored)
        raise
    if any(message.deduplicated for message in accepted):
        await _release(deps, stored)
    status = 202 if all(message.deduplicated for message in accepted) else 201 if protocol == 1 else 200
    return json_reply(_answer(drafted, accepted), status)


async def _release(deps: Deps, stored: Stored | None) -> None:
    """Remove a stored body, unless a message took it after all."""
    if stored is not None:
        await deps.bodies.release(stored.key)


async def _accept(deps: Deps, call: Call, drafts: Sequence[Draft]) -> list[Accepted]:
    check_amount(drafts)
    check_rate(deps, call, len(drafts))
    accepted = await deps.intake.accept(drafts)
    deps.metrics.accepted.labels("message").inc(sum(not one.deduplicated for one in accepted))
    return accepted


def check_amount(drafts: Sequence[Draft]) -> None:
    """They are one transaction. Raises `RefusedError`."""
    if len(drafts) > MESSAGES_MAX:
        raise RefusedError(413, f"more than {MESSAGES_MAX} messages come of this request")
    if sum(len(draft.body) for draft in drafts) > BYTES_MAX:
        raise RefusedError(413, f"the messages of this request hold more than {BYTES_MAX} bytes together")


def check_rate(deps: Deps, call: Call, publishes: int) -> None:
    """Raises `RefusedError` when the token may not publish so many now. Header names are those the clients read."""
    if call.token is None or not publishes:
        return
    wait_seconds = deps.authenticator.wait_seconds(call.token, publishes)
    if wait_seconds <= 0:
        return
    limit = str(call.token.publishes_per_second)
    raise RefusedError(
        429,
        f"rate limit of the token: {limit} messages a second",
        {
            "Retry-After": str(math.ceil(wait_seconds)),
            "Burst-RateLimit-Limit": limit,
            "Burst-RateLimit-Remaining": "0",
            "Burst-RateLimit-Reset": str(math.ceil(deps.now().timestamp() + wait_seconds)),
        },
    )


def _answer(drafted: Drafted, accepted: Sequence[Accepted]) -> Any:
    answers = [
        published_object(
            message.message_id, deduplicated=message.deduplicated, url=asked.url if drafted.group else None
        )
        for asked, message in zip(drafted.drafts, accepted, strict=True)
    ]
    return answers if drafted.group else answers[0]


def _items(content: Any, caller_ip: str) -> list[Asked]:
    if not isinstance(content, list):
        raise InvalidRequestError("the body must be a JSON array of messages")
    if not 0 < len(content) <= BATCH_MAX:
        raise InvalidRequestError(f"the body must be an array of 1 to {BATCH_MAX} messages, not {len(content)}")
    return [_item(index, item, caller_ip) for index, item in enumerate(content)]


def _item(index: int, item: Any, caller_ip: str) -> Asked:
    """One message of a batch. Null counts as absent, as the vendor's clients send it. Raises `InvalidRequestError`."""
    if not isinstance(item, dict):
        raise InvalidRequestError(f"message {index} of the batch must be an object")
    present = {name: value for name, value in item.items() if value is not None}
    if not isinstance(present.get("destination"), str):
        raise InvalidRequestError(f"destination of message {index} of the batch is missing or no text")
    for name, kind, shown in (("headers", dict, "an object"), ("body", str, "text"), ("queue", str, "text")):
        if not isinstance(present.get(name, kind()), kind):
            raise InvalidRequestError(f"{name} of message {index} of the batch must be {shown}")
    headers = {
        name.lower(): _header(index, name, value)
        for name, value in present.get("headers", {}).items()
        if value is not None
    }
    # As with publish: telemetry is no option of the message.
    kept = options_of(headers, "")
    return Asked(
        present["destination"], kept, present.get("body", "").encode(), caller_ip, queue=present.get("queue") or None
    )


def _header(index: int, name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    raise InvalidRequestError(f"header {name[:50]!r} of message {index} of the batch must be text")
