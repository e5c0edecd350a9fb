"""What clients send, as pydantic models; and reading JSON within limits."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from services.api.problem import Fault, ProblemError
from tidings.contract.targets import EXPIRES_IN_SECONDS_MAX

# Deeper than any provider's format; parsers and readers downstream recurse.
JSON_DEPTH_MAX = 64
# In one body. Each costs about a microsecond and a hundred bytes, so 5 MiB of `[]` would cost seconds and gigabytes
# where 200,000 cost a quarter of a second. A long conversation has some thousands; a large embedding has 4,096.
JSON_VALUES_MAX = 200_000
METADATA_BYTES_MAX = 4096
BATCH_MAX = 1000
IDEMPOTENCY_KEY_MAX = 255
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def _webhook(url: str) -> str:
    # urlsplit takes line breaks out in silence; the relay refuses them, long after the client was told 202.
    if not url.isprintable() or " " in url:
        raise ValueError("must not hold white space or control characters")
    parts = urlsplit(url)
    if parts.port == 0:  # reading it refuses what is no number up to 65535
        raise ValueError("must not name port 0")
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an absolute http or https URL without user and password")
    return url


def is_plainly_private(url: str) -> bool:
    """Whether a webhook's address itself says that it is in a private network: one such as 10.0.0.1, a name without a dot.

    It spares the client the wait. What a name leads to is for the relay to judge, at each attempt.
    """
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(".localhost")


def _metadata(value: Any) -> Any:
    if len(orjson.dumps(value)) > METADATA_BYTES_MAX:
        raise ValueError(f"must be at most {METADATA_BYTES_MAX} bytes of JSON")
    return value


class NewSubmission(BaseModel):
    """The body of `POST /v1/submissions`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    target: str = Field(min_length=1, max_length=63)
    # Any JSON: parse_json has made it, so pydantic need not look at, and rebuild, each of its values.
    input: Any
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_metadata)] | None = None
    channel: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    # Seconds from now; past them the call is cancelled and the outcome is `expired`.
    expires_in: int | None = Field(None, ge=1, le=EXPIRES_IN_SECONDS_MAX)
    webhook: Annotated[str, Field(max_length=2048), AfterValidator(_webhook)] | None = None


class NewBatch(BaseModel):
    """The body of `POST /v1/submissions/batch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    submissions: list[Any] = Field(min_length=1, max_length=BATCH_MAX)


def parse_json(body: bytes, content_type: str) -> Any:
    """The body as JSON. Raises `ProblemError`: 415 for another type; 400 for no JSON, too deep, or with NUL in text;
    422 for too many values.
    """
    if content_type.partition(";")[0].strip().lower() not in {"application/json", ""}:
        raise ProblemError(415, "the body must be application/json", Fault("Content-Type", "not application/json"))
    openers = body.count(b"[") + body.count(b"{")
    if too_many_values(body, openers):
        raise ProblemError(422, "the body holds too many values", Fault("body", f"more than {JSON_VALUES_MAX} values"))
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "the body is not JSON", Fault("body", str(error)[:200])) from None
    if b"\\u0000" in body and writes_nul(body):
        raise ProblemError(400, "the body holds a NUL character", Fault("body", "\\u0000 is not allowed in text"))
    if openers > JSON_DEPTH_MAX and depth(value) > JSON_DEPTH_MAX:
        raise ProblemError(400, "the body is nested too deeply", Fault("body", f"deeper than {JSON_DEPTH_MAX} levels"))
    return value


def writes_nul(text: bytes) -> bool:
    """Whether JSON text holds the escape of U+0000. The text \\\\u0000, in which the backslash is escaped, is none."""
    return b"\\u0000" in text.replace(b"\\\\", b"")


def too_many_values(body: bytes, openers: int, values_max: int = JSON_VALUES_MAX) -> bool:
    """Whether `body` holds more than `values_max` values, an empty array or object counted as two.

    Found by scans in C that are far cheaper than parsing it. A value follows a comma or an opening bracket (a member's
    name stands between), so there are at most one more than those are. Only a body with that many is looked at closely,
    without its strings: an honest text may be full of commas.
    """
    if body.count(b",") + openers < values_max:
        return False
    # Without escaped backslashes, and then without escaped quotes, each quote begins or ends a string.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * values_max:  # at most two strings a value, a name and the value itself
        return True
    outside = b"".join(plain.split(b'"')[::2])
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") >= values_max


def depth(value: Any) -> int:
    """How deep arrays and objects are nested; 0 for a plain value. Level by level, so it needs no deep stack."""
    level, found = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        found += 1
        if found > JSON_DEPTH_MAX:
            return found
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return found


def fingerprint(submission: NewSubmission) -> bytes:
    """What makes two submissions the same: SHA-256 over all that was asked for, whatever the order of keys."""
    asked = dict(vars(submission))
    if asked["expires_in"] is None:
        # Fingerprints of earlier releases, which knew no such member, stay valid.
        del asked["expires_in"]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()


def batch_fingerprint(submissions: list[Any]) -> bytes:
    """The same of a batch: of its items in their order."""
    return hashlib.sha256(b"batch" + orjson.dumps(submissions, option=orjson.OPT_SORT_KEYS)).digest()


def idempotency_key(header: str | None) -> str | None:
    """The key of the header `Idempotency-Key`, a quoted string or not (draft-ietf-httpapi-idempotency-key-header)."""
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= IDEMPOTENCY_KEY_MAX or not key.isprintable():
        why = f"must be 1 to {IDEMPOTENCY_KEY_MAX} printable characters"
        raise ProblemError(400, "the Idempotency-Key is not valid", Fault("Idempotency-Key", why))
    return key


def traceparent(header: str | None) -> str | None:
    """The W3C trace context, or None when there is none or it is not valid (then a new trace begins, as it says)."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
