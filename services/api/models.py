"""The request bodies as pydantic models, and a JSON parser with limits."""

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

# Deeper than the format of any provider; parsers and consumers downstream recurse.
JSON_DEPTH_MAX = 64
# The limit for one body. A value costs about a microsecond and a hundred bytes: 5 MiB of `[]` would cost seconds and
# gigabytes, 200,000 values cost a quarter of a second. A long conversation has some thousands of values; a large
# embedding has 4,096.
JSON_VALUES_MAX = 200_000
METADATA_BYTES_MAX = 4096
BATCH_MAX = 1000
IDEMPOTENCY_KEY_MAX = 255
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def _webhook(url: str) -> str:
    # urlsplit removes line breaks silently; the relay refuses them, but only long after the client received its 202.
    if not url.isprintable() or " " in url:
        raise ValueError("must not contain white space or control characters")
    parts = urlsplit(url)
    if parts.port == 0:  # reading the port raises ValueError unless it is a number up to 65535
        raise ValueError("must not name port 0")
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an absolute http or https URL without user and password")
    return url


def is_plainly_private(url: str) -> bool:
    """Return whether the address of a webhook is visibly private: an address such as 10.0.0.1, or a name without a dot.

    An early refusal saves the client the wait. The relay checks at each attempt which address a name resolves to.
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
    target: str = Field(min_length=1, max_length=63, description="the name of a table of targets.toml")
    # Any JSON: parse_json made the value, so pydantic need not inspect and rebuild each of its members.
    input: Any = Field(description="the body of the call to the provider")
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_metadata)] | None = Field(
        None, description=f"returned in the event and by GET; at most {METADATA_BYTES_MAX:,} bytes of JSON"
    )
    channel: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="the event is written to `tidings.completions.<channel>` as well",
    )
    expires_in: int | None = Field(
        None,
        ge=1,
        le=EXPIRES_IN_SECONDS_MAX,
        description="seconds from now, after which the call is cancelled and the outcome is expired",
    )
    webhook: Annotated[str, Field(max_length=2048), AfterValidator(_webhook)] | None = Field(
        None, description="the http or https URL that receives the completion by POST"
    )


class NewBatch(BaseModel):
    """The body of `POST /v1/submissions/batch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    submissions: list[Any] = Field(min_length=1, max_length=BATCH_MAX)


def parse_json(body: bytes, content_type: str) -> Any:
    """Parse the body as JSON. Raises `ProblemError`: 415 for another type; 400 for invalid JSON, for JSON nested too
    deep, and for NUL in text; 422 for too many values.
    """
    if content_type.partition(";")[0].strip().lower() not in {"application/json", ""}:
        raise ProblemError(415, "the body must be application/json", Fault("Content-Type", "not application/json"))
    openers = body.count(b"[") + body.count(b"{")
    if too_many_values(body, openers):
        raise ProblemError(
            422, "the body contains too many values", Fault("body", f"more than {JSON_VALUES_MAX} values")
        )
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "the body is not JSON", Fault("body", str(error)[:200])) from None
    if b"\\u0000" in body and writes_nul(body):
        raise ProblemError(400, "the body contains a NUL character", Fault("body", "\\u0000 is not allowed in text"))
    if openers > JSON_DEPTH_MAX and depth(value) > JSON_DEPTH_MAX:
        raise ProblemError(400, "the body is nested too deeply", Fault("body", f"deeper than {JSON_DEPTH_MAX} levels"))
    return value


def writes_nul(text: bytes) -> bool:
    """Return whether JSON text contains the escape of U+0000.
    The text \\\\u0000, in which the backslash is escaped, does not count.
    """
    return b"\\u0000" in text.replace(b"\\\\", b"")


def too_many_values(body: bytes, openers: int, values_max: int = JSON_VALUES_MAX) -> bool:
    """Return whether `body` contains more than `values_max` values; an empty array or object counts as two.

    The function counts with scans in C, which are far cheaper than parsing. A value follows a comma or an opening
    bracket (the name of a member stands between), so there is at most one value more than there are commas and
    brackets. Only a body with that many is checked again without its strings: honest text may contain many commas.
    """
    if body.count(b",") + openers < values_max:
        return False
    # After the removal of escaped backslashes, and then of escaped quotes, each quote begins or ends a string.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * values_max:  # at most two strings per value: a name and the value itself
        return True
    outside = b"".join(plain.split(b'"')[::2])
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") >= values_max


def depth(value: Any) -> int:
    """Return the nesting depth of arrays and objects; 0 for a scalar. It proceeds level by level, without recursion."""
    level, found = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        found += 1
        if found > JSON_DEPTH_MAX:
            return found
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return found


def fingerprint(submission: NewSubmission) -> bytes:
    """Return the SHA-256 over everything that the client requested, independent of the order of keys.
    Two submissions are the same if their fingerprints are equal.
    """
    content = dict(vars(submission))
    if content["expires_in"] is None:
        # Fingerprints from earlier releases, which did not have this member, remain valid.
        del content["expires_in"]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


def batch_fingerprint(submissions: list[Any]) -> bytes:
    """Return the fingerprint of a batch: the fingerprint of its items in order."""
    return hashlib.sha256(b"batch" + orjson.dumps(submissions, option=orjson.OPT_SORT_KEYS)).digest()


def idempotency_key(header: str | None) -> str | None:
    """Return the key of the `Idempotency-Key` header, a quoted string or not
    (draft-ietf-httpapi-idempotency-key-header).
    """
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
    """Return the W3C trace context, or None if it is absent or invalid (then a new trace begins, as the specification
    requires).
    """
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
