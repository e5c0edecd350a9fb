"""The reconciler's HTTP client of the relay: it asks which submissions have a live message, retries dead letters of
callbacks, and removes contents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import requests

from tidings.contract.removals import RemovalRequest

CONNECT_TIMEOUT_SECONDS = 5
ANSWER_TIMEOUT_SECONDS = 30
LABELS_MAX = 500


class RelayUnavailableError(Exception):
    """The relay did not respond as expected; the request must be retried."""


class UnsupportedError(Exception):
    """The relay has no such route, like the hosted service."""


@dataclass(frozen=True)
class Holding:
    """What the relay holds for some labels: those with a live message, and dead letters of callbacks by label."""

    live: frozenset[str]
    dead_letters: Mapping[str, Sequence[str]]


class RelayClient:
    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def holding(self, labels: Sequence[str]) -> Holding:
        """Raises `RelayUnavailableError`, `UnsupportedError`."""
        content = self._call("POST", "/v2/labels", {"labels": list(labels)})
        return Holding(frozenset(content["live"]), dict(content["callbackLetters"]))

    def live_labels(self, after: str) -> list[str]:
        """Return the next labels of live messages, in order. Raises the errors of `holding`."""
        return list(self._call("GET", f"/v2/labels?after={after}&limit={LABELS_MAX}", None)["live"])

    def retry_dead_letters(self, dead_letter_ids: Sequence[str]) -> None:
        """Retry dead letters; those that no longer exist are ignored."""
        self._call("POST", "/v2/dlq/retry", {"dlqIds": list(dead_letter_ids)}, gone=True)

    def remove_contents(self, request: RemovalRequest) -> None:
        """Remove the stored content of ended messages. Raises the errors of `holding`."""
        content = {"labels": request.labels, "messageIds": request.message_ids}
        self._call("POST", "/v2/contents/remove", content)

    def close(self) -> None:
        self._session.close()

    def _call(self, method: str, path: str, content: object, *, gone: bool = False) -> Mapping[str, Any]:
        try:
            answer = self._session.request(
                method,
                self._url + path,
                data=None if content is None else orjson.dumps(content),
                headers={"Content-Type": "application/json"},
                timeout=(CONNECT_TIMEOUT_SECONDS, ANSWER_TIMEOUT_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise RelayUnavailableError(f"the relay does not respond: {type(error).__name__}") from None
        if answer.status_code == 404 and gone:
            return {}
        if answer.status_code in {404, 405}:
            raise UnsupportedError(path)
        try:
            found = orjson.loads(answer.content) if answer.ok else None
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise RelayUnavailableError(f"the relay answered {answer.status_code}")
        return found
