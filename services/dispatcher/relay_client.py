"""The HTTP client of the relay (or the hosted service): publish a batch, cancel by label, remove contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import requests

from services.dispatcher.message import Message
from tidings.contract.removals import RemovalRequest

CONNECT_TIMEOUT_SECONDS = 5
ANSWER_TIMEOUT_SECONDS = 30
# Statuses worth a retry, besides 3xx and 5xx: too many requests, a timeout, and tokens that do not match.
_RETRIED = frozenset({401, 403, 408, 425, 429})


class UnavailableError(Exception):
    """The operation must be retried; `retry_after_seconds` is the time that the server requested, if any."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Accepted:
    message_id: str


@dataclass(frozen=True)
class Refused:
    """The relay refuses this message permanently."""

    reason: str


class RelayClient:
    """One session over one persistent connection. The client does not retry; the loop of the dispatcher does."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def publish(self, messages: Sequence[Message]) -> list[Accepted | Refused]:
        """Publish `messages`; return one verdict each, in order. Raises `UnavailableError`: the outcome is unknown."""
        body = orjson.dumps([message.item() for message in messages])
        answer = self._call("POST", "/v2/batch", body=body)
        if answer.status_code in {400, 404, 413, 422}:
            if len(messages) == 1:
                return [Refused(_error(answer))]
            return [verdict for message in messages for verdict in self.publish([message])]
        try:
            items = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            items = None  # not from the relay, but for example from a proxy
        if not isinstance(items, list) or len(items) != len(messages):
            raise UnavailableError("the relay's response does not match the batch")
        return [_verdict(item) for item in items]

    def cancel(self, labels: Sequence[str]) -> Refused | None:
        """Cancel every call that carries one of `labels`; no match is not an error. `Refused`: the relay cannot cancel
        them.

        Callbacks, which carry the label as well, report completed attempts and are kept. A relay without this filter
        cancels them too. Raises `UnavailableError`.
        """
        params = [("label", label) for label in labels]
        answer = self._call("DELETE", "/v2/messages", params=[*params, ("kind", "message")])
        if answer.status_code == 400:
            answer = self._call("DELETE", "/v2/messages", params=params)
        return None if answer.ok else Refused(f"{answer.status_code}: {_error(answer)}")

    def held(self, labels: Sequence[str]) -> set[str] | None:
        """Return those of `labels` that have a message in progress, or a callback among the dead letters, which carries
        a paid answer. Returns None if the relay cannot answer, like the hosted service: only deduplication ids then
        prevent a second call. Raises `UnavailableError`.
        """
        answer = self._call("POST", "/v2/labels", body=orjson.dumps({"labels": list(labels)}))
        if answer.status_code in {404, 405}:
            return None
        try:
            content = orjson.loads(answer.content)
            return {*content["live"], *content["callbackLetters"]}
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise UnavailableError(
                f"the relay's response to the request for labels cannot be read: status {answer.status_code}"
            ) from None

    def dead_letter(self, label: str) -> str | None:
        """Return the newest dead letter of a message with this label. Raises `UnavailableError`."""
        answer = self._call("GET", "/v2/dlq", params=[("label", label), ("count", "1")])
        try:
            dead_letters = orjson.loads(answer.content)["messages"]
            return str(dead_letters[0]["dlqId"]) if dead_letters else None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise UnavailableError(
                f"the relay's response to the request for dead letters cannot be read: status {answer.status_code}"
            ) from None

    def remove_contents(self, request: RemovalRequest) -> Refused | None:
        """Remove the stored content of ended messages.
        `Refused`: the relay has no such route. Raises `UnavailableError`.
        """
        body = orjson.dumps({"labels": request.labels, "messageIds": request.message_ids})
        answer = self._call("POST", "/v2/contents/remove", body=body)
        return None if answer.ok else Refused(f"{answer.status_code}: {_error(answer)}")

    def close(self) -> None:
        self._session.close()

    def _call(
        self, method: str, path: str, *, body: bytes | None = None, params: Sequence[tuple[str, str]] = ()
    ) -> requests.Response:
        try:
            answer = self._session.request(
                method,
                self._url + path,
                data=body,
                params=list(params),
                headers={"Content-Type": "application/json"} if body is not None else None,
                timeout=(CONNECT_TIMEOUT_SECONDS, ANSWER_TIMEOUT_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise UnavailableError(f"the relay does not respond: {type(error).__name__}") from None
        if answer.status_code in _RETRIED or answer.status_code >= 500 or 300 <= answer.status_code < 400:
            raise UnavailableError(
                f"the relay answered {answer.status_code}: {_error(answer)}",
                _seconds(answer.headers.get("Retry-After")),
            )
        return answer


def _verdict(item: object) -> Accepted | Refused:
    if isinstance(item, dict) and item.get("messageId"):
        return Accepted(str(item["messageId"]))
    reason = item.get("error") if isinstance(item, dict) else None
    return Refused(str(reason or "the relay returned no message id")[:300])


def _error(answer: requests.Response) -> str:
    try:
        return str(orjson.loads(answer.content)["error"])[:300]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return answer.reason or "no reason given"


def _seconds(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdigit() else None
