"""Who may call what. Every view says which of these decisions guards it; a test fails when one says none."""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from flask import request

from services.api.problem import Fault, ProblemError
from tidings.callback_token import is_callback_token
from tidings.keys import hash_api_key

Decision = Literal["api_key", "internal", "signature", "public"]
View = TypeVar("View", bound=Callable[..., Any])

# A revoked key works for so long at the most; in exchange a submission costs no second query.
CACHE_SECONDS = 5.0
CACHE_MAX = 10_000


def guarded_by(decision: Decision) -> Callable[[View], View]:
    """Mark a view with its decision. The view itself carries it out first; a test asks each without credentials."""

    def mark(view: View) -> View:
        view.auth_decision = decision  # type: ignore[attr-defined]
        return view

    return mark


class Authentication:
    """Carries out decisions. `tenant_of_key` looks a key's hash up; `clock` is monotonic seconds."""

    def __init__(
        self, tenant_of_key: Callable[[bytes], str | None], *, internal_token: str, clock: Callable[[], float]
    ) -> None:
        self._lookup = tenant_of_key
        self._internal_token = internal_token.encode()
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, str | None]] = OrderedDict()
        self._lock = threading.Lock()

    def tenant(self) -> str:
        """The tenant of this request's key. Raises `ProblemError` 401."""
        return self.tenant_of(request.headers.get("Authorization", ""))

    def tenant_of(self, authorization: str) -> str:
        """The tenant of the key in a header `Authorization`. Raises `ProblemError` 401."""
        tenant = self._cached(hash_api_key(_bearer(authorization)))
        if tenant is None:
            raise _unauthorized("the API key is not valid")
        return tenant

    def internal(self) -> None:
        """Raises `ProblemError` 401 unless the request holds the internal token."""
        if not hmac.compare_digest(_bearer(request.headers.get("Authorization", "")).encode(), self._internal_token):
            raise _unauthorized("the token is not valid")

    def callback(self, submission_id: str) -> None:
        """Raises `ProblemError` 401 unless the request holds the token that the dispatcher made for this submission."""
        token = _bearer(request.headers.get("Authorization", ""))
        if not is_callback_token(token, self._internal_token.decode(), submission_id):
            raise _unauthorized("the callback's token is not valid for this submission")

    def _cached(self, key_sha256: bytes) -> str | None:
        now = self._clock()
        with self._lock:
            found = self._cache.get(key_sha256)
        if found is not None and found[0] > now:
            return found[1]
        tenant = self._lookup(key_sha256)
        with self._lock:
            self._cache[key_sha256] = (now + CACHE_SECONDS, tenant)
            while len(self._cache) > CACHE_MAX:
                self._cache.popitem(last=False)
        return tenant


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized("a bearer token is needed")
    return token.strip()


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, detail, Fault("Authorization", detail), WWW_Authenticate='Bearer realm="tidings"')
