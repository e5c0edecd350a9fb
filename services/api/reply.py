"""A response as plain values, which each server interface converts to its own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson


class Reply(NamedTuple):
    """`headers` is complete: it includes the length of the body, where a response has one."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return encoded("application/json", content, status, headers)


def encoded(media_type: str, content: Any, status: int, headers: Mapping[str, str] | None) -> Reply:
    """Build a reply whose body is `content` as JSON, of a media type that is based on JSON."""
    body = orjson.dumps(content)
    return Reply(status, {"Content-Type": media_type, **(headers or {}), "Content-Length": str(len(body))}, body)
