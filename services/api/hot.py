"""`POST /v1/submissions` without Flask, whose own work is five sixths of such a request, and without a thread.

The rules are those of the Flask route: unusual requests are left to Flask, and a contract test compares the responses.
"""

from __future__ import annotations

from services.api.head import Head
from services.api.intake import Intake
from services.api.models import parse_json, traceparent
from services.api.row import Row

PATH = "/v1/submissions"
JSON_TYPES = frozenset({"application/json", "application/json; charset=utf-8"})
# Headers that the Flask route handles specially, or may one day: idempotency, waiting, browsers, bodies without a
# length.
UNUSUAL = frozenset({"idempotency-key", "prefer", "origin", "expect", "transfer-encoding"})
# Parsing a body of this size delays every other request for about a millisecond; a larger body goes to a thread.
INLINE_BYTES_MAX = 64 * 1024


def is_plain(head: Head, bytes_max: int) -> bool:
    """Return whether the request is a plain submission of up to `bytes_max`."""
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
    """Store a plain submission. Raises `ProblemError` and the exceptions of the commit."""
    content = parse_json(body, head.headers["content-type"])
    return await intake.one_async(tenant, content, trace=traceparent(head.headers.get("traceparent")))
