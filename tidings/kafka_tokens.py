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
from pydantic import BaseModel, Field, ValidationError

# A broker drops a connection that has not authenticated after some 10 s; kafka-python waits for the token meanwhile.
REQUEST_TIMEOUT_SECONDS = 5.0
# A token is replaced when so much of its life is over, so that none expires on its way to the broker.
REUSE_FRACTION = 0.8
# Of an answer that does not say how long its token is valid.
LIFETIME_SECONDS = 300.0


@dataclass(frozen=True)
class OAuthClient:
    """`token_url` is the authorization server's token endpoint; `scope` is "" when none is asked for."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""


class _Granted(BaseModel):
    """RFC 6749, section 5.1."""

    access_token: str = Field(min_length=1)
    expires_in: float | None = Field(None, ge=0)


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]  # kafka-python has no types
    """A token of `client`, asked for when there is none and again before it expires. For any number of threads."""

    def __init__(self, client: OAuthClient, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._reuse_until = 0.0

    def token(self) -> str:
        """Raises `KafkaConnectionError`, which every client retries."""
        with self._lock:
            if self._clock() >= self._reuse_until:
                granted = self._ask()
                self._token = granted.access_token
                self._reuse_until = self._clock() + REUSE_FRACTION * (granted.expires_in or LIFETIME_SECONDS)
            return self._token

    def _ask(self) -> _Granted:
        form = {"grant_type": "client_credentials"} | ({"scope": self._client.scope} if self._client.scope else {})
        # Form-urlencoded before they are joined (RFC 6749, section 2.3.1).
        credentials = (quote_plus(self._client.client_id), quote_plus(self._client.client_secret))
        try:
            answer = requests.post(self._client.token_url, data=form, auth=credentials, timeout=REQUEST_TIMEOUT_SECONDS)
            answer.raise_for_status()
            granted = _Granted.model_validate_json(answer.content)
        except (requests.RequestException, ValidationError) as error:
            raise KafkaConnectionError(f"no access token for Kafka: {type(error).__name__}") from None
        return granted
