"""`Upstash-Signature`: the JWT that a delivery of the relay carries, made and checked.

Source: the vendor's documentation of signatures and its SDKs' `Receiver`: HS256, `iss` Upstash, `sub` the exact address,
`body` the base64url SHA-256 of the raw body, whose padding is optional.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import jwt
import orjson

LIFETIME_SECONDS = 300
Claims = dict[str, object]
# {"alg":"HS256","typ":"JWT"}
_JWT_HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"


class InvalidSignatureError(Exception):
    """Not a delivery of our relay, or not to this address; the text says what does not fit, without the token."""


def sign(key: str, url: str, body: bytes, *, now: int) -> str:
    """A signature of `body` for `url`, good from the epoch on (clocks differ) until `now` + 300 seconds."""
    return sign_digest(key, url, hashlib.sha256(body).digest(), now=now)


def sign_digest(key: str, url: str, sha256: bytes, *, now: int) -> str:
    """Like `sign`, of a body by its SHA-256 (32 bytes).

    Written out rather than by PyJWT, which takes several times as long, and each delivery needs one.
    """
    claims = {
        "iss": "Upstash",
        "sub": url,
        "exp": now + LIFETIME_SECONDS,
        "nbf": 0,
        "iat": now,
        "jti": f"jwt_{secrets.token_hex(16)}",
        "body": base64.urlsafe_b64encode(sha256).decode(),
    }
    signed = b"%s.%s" % (_JWT_HEADER, _base64url(orjson.dumps(claims)))
    signature = _base64url(hmac.digest(key.encode(), signed, "sha256"))
    return (signed + b"." + signature).decode()


def verify(token: str, body: bytes, *, keys: Iterable[str], urls: Iterable[str]) -> None:
    """Check `token` against any of `keys`, any of the addresses this may be reached by, and `body`.

    Raises `InvalidSignatureError`.
    """
    check_body(verify_token(token, keys=keys, urls=urls), body)


def verify_token(token: str, *, keys: Iterable[str], urls: Iterable[str]) -> Claims:
    """The first half of `verify`, for which the body need not be there: who has no signature is not waited for."""
    claims = _decode(token, keys)
    subject = _bytes(claims.get("sub", ""))
    if not any(hmac.compare_digest(subject, _bytes(url)) for url in urls):
        raise InvalidSignatureError("the signature is for another address")
    return claims


def check_body(claims: Claims, body: bytes) -> None:
    """The second half."""
    expected = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=")
    if not hmac.compare_digest(_bytes(claims.get("body", "")).rstrip(b"="), expected):
        raise InvalidSignatureError("the signature is for another body")


def _base64url(content: bytes) -> bytes:
    """Without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _bytes(text: object) -> bytes:
    """To be compared. Some servers make half surrogate pairs of bytes that are no UTF-8, of an address too."""
    return str(text).encode(errors="surrogatepass")


def _decode(token: str, keys: Iterable[str]) -> Claims:
    if not token.isascii():
        raise InvalidSignatureError("the signature holds characters that no signature has")
    problem = "no key"
    for key in keys:
        try:
            # 5 seconds for clocks that differ; `iat` is not required to be in the past.
            return jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                issuer="Upstash",
                leeway=5,
                options={"require": ["iss", "sub", "exp", "nbf", "body"], "verify_iat": False},
            )
        # Of a header nested without end, or claims that are no numbers, the library lets these through.
        except (jwt.InvalidTokenError, RecursionError, TypeError, ValueError, OverflowError) as error:
            problem = type(error).__name__
    raise InvalidSignatureError(f"the signature does not hold ({problem})")
