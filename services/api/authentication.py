"""The authorization decisions. Each view names the decision that guards it; a test fails if a view names none."""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from flask import request

from services.api.problem import Fault, ProblemError
from tidings.contract.callback_token import is_callback_token
from tidings.contract.keys import hash_api_key

Decision = Literal["api_key", "internal", "signature", "public"]
View = TypeVar("View", bound=Callable[..., Any])

# A revoked key works for at most this long; in exchange, a submission needs no second query.
CACHE_SECONDS = 5.0
CACHE_MAX = 10_000


def access(decision: Decision) -> Callable[[View], View]:
    """Mark a view with its decision.
    The view executes the decision first; a test calls each view without credentials.
    """

    def mark(view: View) -> View:
        view.auth_decision = decision  # type: ignore[attr-defined]
        return view

    return mark


class Authentication:
    """Executes the decisions. `tenant_of_key` looks up the hash of a key; `clock` returns monotonic seconds."""

    def __init__(
        self, tenant_of_key: Callable[[bytes], str | None], *, internal_token: str, clock: Callable[[], float]
    ) -> None:
        self._lookup = tenant_of_key
        self._internal_token = internal_token.encode()
        self._clock = clock
        self._valid = _Cache()
        # A separate cache, so that invalid keys, however many, never evict a valid one.
        self._invalid = _Cache()

    def tenant(self) -> str:
        """Return the tenant of the request's key. Raises `ProblemError` 401."""
        return self.tenant_of(request.headers.get("Authorization", ""))

    def tenant_of(self, authorization: str) -> str:
        """Return the tenant of the key in an `Authorization` header. Raises `ProblemError` 401."""
        tenant = self._cached(hash_api_key(_bearer(authorization)))
        if tenant is None:
            raise _unauthorized("the API key is not valid")
        return tenant

    def internal(self) -> None:
        """Raises `ProblemError` 401 unless the request carries the internal token."""
        self.check_internal(request.headers.get("Authorization", ""))

    def check_internal(self, authorization: str) -> None:
        """Raises `ProblemError` 401 unless an `Authorization` header carries the internal token."""
        if not hmac.compare_digest(_bearer(authorization).encode(), self._internal_token):
            raise _unauthorized("the token is not valid")

    def callback(self, submission_id: str) -> None:
        """Raises `ProblemError` 401 unless the request carries the dispatcher's token for this submission."""
        token = _bearer(request.headers.get("Authorization", ""))
        if not self.is_callback_token(token, submission_id):
            raise _unauthorized("the callback's token is not valid for this submission")

    def is_callback_token(self, token: str, submission_id: str) -> bool:
        """Return whether the dispatcher made `token` for this submission."""
        return is_callback_token(token, self._internal_token.decode(), submission_id)

    def known_tenant_of(self, authorization: str) -> str | None:
        """Like `tenant_of`, but without a query; returns None if a query is needed.
        Raises `ProblemError` 401 if the header holds no bearer token.
        """
        return self._valid.get(hash_api_key(_bearer(authorization)), self._clock())

    def _cached(self, key_sha256: bytes) -> str | None:
        now = self._clock()
        tenant = self._valid.get(key_sha256, now)
        if tenant is not None or self._invalid.get(key_sha256, now) is not None:
            return tenant
        tenant = self._lookup(key_sha256)
        if tenant is None:
            self._invalid.put(key_sha256, "", now)
        else:
            self._valid.put(key_sha256, tenant, now)
        return tenant


class _Cache:
    """A cache of the tenants of keys. An entry is valid for `CACHE_SECONDS`; the oldest entry is evicted first."""

    def __init__(self) -> None:
        self._found: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key_sha256: bytes, now: float) -> str | None:
        found = self._found.get(key_sha256)  # one operation in C, which needs no lock
        return found[1] if found is not None and found[0] > now else None

    def put(self, key_sha256: bytes, tenant: str, now: float) -> None:
        with self._lock:
            self._found[key_sha256] = (now + CACHE_SECONDS, tenant)
            while len(self._found) > CACHE_MAX:
                self._found.popitem(last=False)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized("a bearer token is required")
    return token.strip()


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, detail, Fault("Authorization", detail), WWW_Authenticate='Bearer realm="tidings"')
