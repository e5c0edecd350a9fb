"""`POST /v1/submissions` without Flask, whose own work is five sixths of such a request, and without a thread.

It is not a second api: whatever is out of the ordinary is left to Flask, and a contract test holds its answers to
Flask's.
"""

from __future__ import annotations

from services.api.head import Head
from services.api.intake import Intake
from services.api.models import parse_json, traceparent
from services.api.row import Row

PATH = "/v1/submissions"
JSON_TYPES = frozenset({"application/json", "application/json; charset=utf-8"})
# What Flask's side treats in a way of its own, or may one day: repeats, waiting, browsers, bodies without a length.
UNUSUAL = frozenset({"idempotency-key", "prefer", "origin", "expect", "transfer-encoding"})
# Parsing a body of this size holds up all other requests for a millisecond or so; a larger one goes to a thread.
INLINE_BYTES_MAX = 64 * 1024


def is_plain(head: Head, bytes_max: int) -> bool:
    """Whether this is a submission in its plain form, and of up to `bytes_max`."""
    return (
        head.path == PATH
        and head.method == "POST"
        and head.headers.get("content-type") in JSON_TYPES
        and "authorization" in head.headers
        and "content-length" in head.headers
        and UNUSUAL.isdisjoint(head.headers)
        and (head.length() or 0) <= bytes_max
    )


async def submit(intake: Intake, tenant: str, head: Head, body: bytes) -> Row:
    """Store a plain submission. Raises `ProblemError`, and what the commit raised."""
    content = parse_json(body, head.headers["content-type"])
    return await intake.one_async(tenant, content, trace=traceparent(head.headers.get("traceparent")))
