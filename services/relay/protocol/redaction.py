"""The visible form of headers and bodies in answers: hashes, if the sender asked for it or a header's name suggests a
key. Pure.

Source: the vendor's documentation of redaction (`REDACTED:<sha256>`). Hiding headers that look like keys without a
request is ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from services.relay.options import NOTHING_REDACTED, Redaction
from services.relay.protocol.headers import readable

_SECRET_WORDS = ("authorization", "key", "token", "secret", "cookie", "password")


def shown_headers(headers: Mapping[str, str], redact: Redaction = NOTHING_REDACTED) -> dict[str, list[str]]:
    """Headers in the protocol's form: each with an array of values."""
    return {name: [redacted(name, value, redact)] for name, value in headers.items()}


def redacted(name: str, value: str, redact: Redaction = NOTHING_REDACTED) -> str:
    """A header's value as an answer may show it."""
    lowered = name.lower()
    hidden = redact.all_headers or lowered in redact.headers or any(word in lowered for word in _SECRET_WORDS)
    return hashed(value.encode(errors="surrogateescape")) if hidden else readable(value)


def shown_body(body: bytes, redact: Redaction = NOTHING_REDACTED, *, name: str = "body") -> dict[str, Any]:
    """`body` when it is UTF-8, else `bodyBase64`; nothing for an empty one. `name` may be `responseBody`."""
    if not body:
        return {}
    if redact.body:
        return {name: hashed(body)}
    try:
        return {name: body.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(body).decode()}


def base64_body(body: bytes, redact: Redaction = NOTHING_REDACTED) -> str:
    """The body in the form of events."""
    return hashed(body) if redact.body else base64.b64encode(body).decode()


def hashed(content: bytes) -> str:
    return f"REDACTED:{hashlib.sha256(content).hexdigest()}"
