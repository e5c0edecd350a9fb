"""The dispatcher's HTTP client of the api: it fetches bodies and reports calls that could not be sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import requests

from services.dispatcher.message import callback_address, refusal
from services.dispatcher.relay_client import UnavailableError
from tidings.contract.callback_token import callback_token
from tidings.contract.signature import sign

TIMEOUTS_SECONDS = (5, 30)


@dataclass(frozen=True)
class Submission:
    """A submission to be sent, unless it has `ended` meanwhile."""

    id: str
    target: str
    content_type: str
    body: str
    ended: bool


class ApiClient:
    """One session to the api."""

    def __init__(
        self, api_url: str, callback_url: str, *, internal_token: str, signing_key: str, now: Callable[[], float]
    ) -> None:
        self._api_url = api_url
        self._callback_url = callback_url
        self._signing_key = signing_key
        self._now = now
        self._session = requests.Session()
        self._internal_token = internal_token
        self._authorization = {"Authorization": f"Bearer {internal_token}"}

    def fetch(self, ids: Sequence[str]) -> tuple[list[Submission], list[str]]:
        """Return the submissions of `ids` (at most 100), and the ids that did not fit into this response.

        Raises `UnavailableError`.
        """
        body = orjson.dumps({"ids": list(ids)})
        answer = self._post(f"{self._api_url}/internal/dispatches", body, self._authorization)
        try:
            content = orjson.loads(answer.content)
            found = [
                Submission(row["id"], row["target"], row["content_type"], row["body"], row["ended"])
                for row in content["submissions"]
            ]
            return found, list(content["left_out"])
        except (ValueError, KeyError, TypeError) as error:  # a proxy's page, or an api of another version
            raise UnavailableError(f"the api's response cannot be read: {type(error).__name__}") from None

    def refuse(self, submission_id: str, url: str, reason: str) -> None:
        """Fail the submission with `reason`, through the route and with the signature that the relay uses.

        Raises `UnavailableError`.
        """
        now = self._now()
        body = refusal(url, reason, int(now * 1000))
        address = callback_address(self._callback_url, submission_id)
        token = sign(self._signing_key, address, body, now=int(now))
        local = callback_address(self._api_url, submission_id)
        proof = f"Bearer {callback_token(self._internal_token, submission_id)}"
        self._post(local, body, {"Upstash-Signature": token, "Authorization": proof})

    def close(self) -> None:
        self._session.close()

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        try:
            answer = self._session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json", **headers},
                timeout=TIMEOUTS_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise UnavailableError(f"the api does not respond: {type(error).__name__}") from None
        if answer.status_code != 200:
            # A 4xx is retried too: between two processes of one system it means a configuration error. The dispatcher
            # retries until an operator fixes it, so that nothing is lost.
            raise UnavailableError(f"the api answered {answer.status_code}: {answer.text[:200]}")
        return answer
