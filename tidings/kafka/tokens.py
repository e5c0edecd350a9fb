"""Access tokens for SASL OAUTHBEARER, by OAuth's client credentials grant (RFC 6749, section 4.4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote_plus

import requests
from kafka.errors import KafkaConnectionError
from kafka.net.sasl.oauth import AbstractTokenProvider
from pydantic import BaseModel, Field

# A broker closes a connection that has not authenticated after some 10 s, and kafka-python waits for the token in that
# time. The limit covers the name lookup, the connection, and the whole response.
FETCH_SECONDS_MAX = 8.0
# The timeout of the connection, and between two parts of the response: requests has no other limit.
REQUEST_TIMEOUT_SECONDS = 5.0
# A token has a few kilobytes.
ANSWER_BYTES_MAX = 256 * 1024
# The maximum number of abandoned fetches that still run, each in a thread; a name lookup cannot be cancelled.
UNFINISHED_MAX = 8
# A token is replaced after this fraction of its lifetime, so that none expires on its way to the broker.
REUSE_FRACTION = 0.8
# The lifetime of a token if the response does not state one.
LIFETIME_SECONDS = 300.0


@dataclass(frozen=True)
class OAuthClient:
    """`token_url` is the token endpoint of the authorization server; `scope` is "" if no scope is requested."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""


class _Grant(BaseModel):
    """RFC 6749, section 5.1."""

    access_token: str = Field(min_length=1)
    expires_in: float | None = Field(None, ge=0)


class _TooLargeError(Exception):
    """The response is larger than any token."""


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """Provides an access token of `client`, requested at the first use and again before it expires.
    Safe for any number of threads; none waits longer than `seconds_max`.
    """

    def __init__(
        self,
        client: OAuthClient,
        clock: Callable[[], float] = time.monotonic,
        *,
        seconds_max: float = FETCH_SECONDS_MAX,
    ) -> None:
        super().__init__()
        self._client = client
        self._clock = clock
        self._seconds_max = seconds_max
        self._lock = threading.Lock()
        self._token = ""
        self._reuse_until = 0.0
        self._fetch: _Fetch | None = None
        self._unfinished: list[_Fetch] = []

    def token(self) -> str:
        """Return the token. Raises `KafkaConnectionError`, which every client retries."""
        with self._lock:
            if self._clock() < self._reuse_until:
                return self._token
            if self._fetch is None:
                self._fetch = self._start_fetch()
            fetch = self._fetch
        grant = fetch.grant(self._seconds_max)
        with self._lock:
            if self._fetch is fetch:
                self._fetch = None
                self._unfinished.append(fetch)
            if grant is None:
                raise KafkaConnectionError(f"no access token for Kafka: {fetch.fault}")
            self._token = grant.access_token
            self._reuse_until = self._clock() + REUSE_FRACTION * (grant.expires_in or LIFETIME_SECONDS)
            return self._token

    def _start_fetch(self) -> _Fetch:
        self._unfinished = [fetch for fetch in self._unfinished if fetch.is_alive()]
        if len(self._unfinished) >= UNFINISHED_MAX:
            raise KafkaConnectionError(f"no access token for Kafka: {UNFINISHED_MAX} requests for one have not ended")
        fetch = _Fetch(self._client)
        fetch.start()
        return fetch


class _Fetch(threading.Thread):
    """One request in its own thread, which is the only way to limit the whole wait."""

    def __init__(self, client: OAuthClient) -> None:
        super().__init__(name="kafka-token", daemon=True)
        self._client = client
        self._grant: _Grant | None = None
        self.fault = "the authorization server did not respond in time"

    def grant(self, seconds: float) -> _Grant | None:
        """Return None if the request failed, or has not ended within `seconds`."""
        self.join(seconds)
        return self._grant

    def run(self) -> None:
        try:
            self._grant = self._request_token()
        except Exception as error:  # noqa: BLE001  the waiting thread reports it
            self.fault = type(error).__name__

    def _request_token(self) -> _Grant:
        form = {"grant_type": "client_credentials"} | ({"scope": self._client.scope} if self._client.scope else {})
        # Both values are form-urlencoded before they are joined (RFC 6749, section 2.3.1).
        credentials = (quote_plus(self._client.client_id), quote_plus(self._client.client_secret))
        started = time.monotonic()
        with requests.post(
            self._client.token_url, data=form, auth=credentials, timeout=REQUEST_TIMEOUT_SECONDS, stream=True
        ) as answer:
            answer.raise_for_status()
            content = b""
            for piece in answer.iter_content(1024):
                content += piece
                if len(content) > ANSWER_BYTES_MAX:
                    raise _TooLargeError
                if time.monotonic() - started > FETCH_SECONDS_MAX:
                    raise requests.exceptions.ReadTimeout
        return _Grant.model_validate_json(content)
