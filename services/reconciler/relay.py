"""The relay over HTTP, as the reconciler asks it: which submissions have a live message, callbacks to be sent again, and
contents to be removed.
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
    """The relay does not answer as it should; to be asked again."""


class UnsupportedError(Exception):
    """The relay has no such route, as the hosted service has none."""


@dataclass(frozen=True)
class Holding:
    """What the relay has of some labels: those with a live message, and dead letters of callbacks by label."""

    live: frozenset[str]
    letters: Mapping[str, Sequence[str]]


class Relay:
    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def holding(self, labels: Sequence[str]) -> Holding:
        """Raises `RelayUnavailableError`, `UnsupportedError`."""
        content = self._call("POST", "/v2/labels", {"labels": list(labels)})
        return Holding(frozenset(content["live"]), dict(content["callbackLetters"]))

    def live_labels(self, after: str) -> list[str]:
        """The next labels of live messages, in their order. Raises as `holding` does."""
        return list(self._call("GET", f"/v2/labels?after={after}&limit={LABELS_MAX}", None)["live"])

    def retry_letters(self, letter_ids: Sequence[str]) -> None:
        """Have dead letters delivered again; those that are gone meanwhile are fine."""
        self._call("POST", "/v2/dlq/retry", {"dlqIds": list(letter_ids)}, gone=True)

    def remove_contents(self, request: RemovalRequest) -> None:
        """Remove what is kept of ended messages. Raises as `holding` does."""
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
            raise RelayUnavailableError(f"the relay does not answer: {type(error).__name__}") from None
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
