"""The representation of submissions in responses. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson

from tidings.contract.completion import timestamp

RETRY_AFTER_SECONDS = 2


@dataclass(frozen=True)
class StartedAttempt:
    """The newest attempt whose start the relay reported; it may have ended since."""

    number: int
    at: datetime


def running_attempt(
    outcome: str | None, attempts: Sequence[dict[str, Any]], started: StartedAttempt | None
) -> StartedAttempt | None:
    """Return the attempt that has started and not ended. `attempts` are the ended attempts, in order."""
    if outcome is not None or started is None or (attempts and attempts[-1]["number"] >= started.number):
        return None
    return started


def derived_status(
    outcome: str | None, attempts: Sequence[dict[str, Any]], started: StartedAttempt | None, now: datetime
) -> str:
    """The status of a submission with a result is its outcome. Without a result it is `running` while an attempt is in
    progress, and `queued` before the first attempt has ended. After an attempt it is `retrying` until the time of
    the next one, then `running`: the next attempt starts, or its start was not reported.
    """
    if outcome is not None:
        return outcome
    if running_attempt(outcome, attempts, started) is not None:
        return "running"
    if not attempts:
        return "queued"
    retry_at = attempts[-1]["retry_at"]
    return "retrying" if retry_at is not None and retry_at > now else "running"


def links(id_: UUID | str, output: Any = None, *, answered: bool = False) -> dict[str, Any]:
    """Return the links of a submission.
    `images` needs `output`: the images of a larger answer have the same addresses, counted from 0.
    """
    base = f"/v1/submissions/{id_}"
    found: dict[str, Any] = {"self": base}
    if answered:
        found["result"] = f"{base}/result"
        count = len(images(output))
        if count:
            found["images"] = [f"{base}/images/{n}" for n in range(count)]
    return found


def submission(row: dict[str, Any], attempts: Sequence[dict[str, Any]], now: datetime) -> dict[str, Any]:
    """The response to `GET /v1/submissions/{id}`."""
    started = None if row["begun_number"] is None else StartedAttempt(row["begun_number"], row["begun_at"])
    running = running_attempt(row["outcome"], attempts, started)
    return {
        "id": str(row["id"]),
        "status": derived_status(row["outcome"], attempts, started, now),
        "running_since": None if running is None else timestamp(running.at),
        "target": row["target"],
        "channel": row["channel"],
        "metadata": row["metadata"],
        "outcome": row["outcome"],
        "reason": row["reason"],
        "status_code": row["status_code"],
        "output": row["output"],
        "result_size": row["body_size"],
        "attempts": [*map(_attempt, attempts), *([] if running is None else [_running(running)])],
        "created_at": timestamp(row["created_at"]),
        "expires_at": timestamp(row["expires_at"]) if row["expires_at"] else None,
        "completed_at": timestamp(row["completed_at"]) if row["completed_at"] else None,
        "content_removed_at": timestamp(row["content_removed_at"]) if row["content_removed_at"] else None,
        "links": links(row["id"], row["output"], answered=row["body_size"] is not None),
    }


def listed(row: dict[str, Any]) -> dict[str, Any]:
    """An item in the response to `GET /v1/submissions`."""
    return {
        "id": str(row["id"]),
        "status": row["status"],
        "running_since": timestamp(row["running_since"]) if row["running_since"] else None,
        "target": row["target"],
        "channel": row["channel"],
        "created_at": timestamp(row["created_at"]),
        "completed_at": timestamp(row["completed_at"]) if row["completed_at"] else None,
        "links": links(row["id"]),
    }


@dataclass(frozen=True)
class Image:
    """An image in an answer: its bytes, or its address at the provider."""

    content: bytes | None
    url: str | None


def images(answer: Any) -> list[Image]:
    """Return the images in an answer of OpenAI's format `{"data": [{"url"} | {"b64_json"}]}`; others have none."""
    items = answer.get("data") if isinstance(answer, dict) else None
    found = [_image(item) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [image for image in found if image is not None]


def _image(item: dict[str, Any]) -> Image | None:
    url, encoded = item.get("url"), item.get("b64_json")
    # Some providers send both fields and leave one empty.
    if isinstance(encoded, str) and encoded:
        try:
            return Image(base64.b64decode(encoded, validate=True), None)
        except ValueError:  # also raised for text that is not ASCII
            return None
    return Image(None, url) if isinstance(url, str) and _is_address(url) else None


def _is_address(url: str) -> bool:
    """Return whether a browser can be redirected to the address."""
    try:
        parts = urlsplit(url)
        return url.isprintable() and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def images_in(body: bytes) -> list[Image]:
    """Return the images in the raw bytes of an answer; an answer that is not JSON has none."""
    try:
        return images(orjson.loads(body))
    except orjson.JSONDecodeError:
        return []


def image_type(content: bytes) -> str:
    """Return the media type that the first bytes indicate. An unknown type is served as plain bytes, never as HTML."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"


def _attempt(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": row["number"],
        "status_code": row["status_code"],
        "error": row["error"],
        "fate": row["fate"],
        "retry_at": timestamp(row["retry_at"]) if row["retry_at"] else None,
        "started_at": timestamp(row["started_at"]) if row["started_at"] else None,
        "ended_at": timestamp(row["ended_at"]),
    }


def _running(started: StartedAttempt) -> dict[str, Any]:
    """The attempt in progress, of which only the start is known."""
    unknown = dict.fromkeys(("status_code", "error", "fate", "retry_at"))
    return {"number": started.number, **unknown, "started_at": timestamp(started.at), "ended_at": None}
