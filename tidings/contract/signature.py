"""`Upstash-Signature`: the JWT that a delivery of the relay carries, created and verified.

Source: the vendor's documentation of signatures and the `Receiver` of its SDKs: HS256, `iss` Upstash, `sub` the exact
address, `body` the base64url SHA-256 of the raw body, whose padding is optional.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from functools import lru_cache

import jwt
import orjson
import uuid_utils

LIFETIME_SECONDS = 300
Claims = dict[str, object]
# RFC 4648, section 5.
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# {"alg":"HS256","typ":"JWT"}
_JWT_HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"


class InvalidSignatureError(Exception):
    """The request is not a delivery of our relay, or not to this address; the text gives the reason
    without the token.
    """


def sign(key: str, url: str, body: bytes, *, now: int) -> str:
    """Return a signature of `body` for `url`, valid from the epoch on (clocks differ) until `now` + 300 seconds."""
    return sign_digest(key, url, hashlib.sha256(body).digest(), now=now)


def sign_digest(key: str, url: str, sha256: bytes, *, now: int) -> str:
    """Like `sign`, for a body given by its SHA-256 (32 bytes).

    It does not use PyJWT, which takes several times as long, because each delivery needs a signature.
    """
    claims = {
        "iss": "Upstash",
        "sub": url,
        "exp": now + LIFETIME_SECONDS,
        "nbf": 0,
        "iat": now,
        "jti": f"jwt_{uuid_utils.uuid4().hex}",
        "body": b2a_base64(sha256, newline=False).translate(_URL_SAFE).decode(),
    }
    signed = b"%s.%s" % (_JWT_HEADER, _base64url(orjson.dumps(claims)))
    return (signed + b"." + _base64url(_hmac_of(key)(signed))).decode()


# During a rotation two keys are in use, in the relay and in the processes that verify signatures.
@lru_cache(8)
def _hmac_of(key: str) -> Callable[[bytes], bytes]:
    """Return the HMAC-SHA256 by `key` (RFC 2104).
    The part that depends only on the key is computed once (its section 4), which saves half of the work.
    """
    block = key.encode()
    block = (hashlib.sha256(block).digest() if len(block) > 64 else block).ljust(64, b"\0")
    inner, outer = (hashlib.sha256(block.translate(bytes(byte ^ pad for byte in range(256)))) for pad in (0x36, 0x5C))

    def of(content: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(content)
        second.update(first.digest())
        return second.digest()

    return of


def verify(token: str, body: bytes, *, keys: Iterable[str], urls: Iterable[str]) -> None:
    """Verify `token` against any of `keys`, any of the addresses under which this process is reachable, and `body`.

    Raises `InvalidSignatureError`.
    """
    check_body(verify_token(token, keys=keys, urls=urls), body)


def verify_token(token: str, *, keys: Iterable[str], urls: Iterable[str]) -> Claims:
    """The first half of `verify`: it checks the token before the body is read, so that an unsigned request cannot tie
    up a thread.
    """
    claims = _decode(token, keys)
    subject = _bytes(claims.get("sub", ""))
    if not any(hmac.compare_digest(subject, _bytes(url)) for url in urls):
        raise InvalidSignatureError("the signature is for another address")
    return claims


def check_body(claims: Claims, body: bytes) -> None:
    """The second half of `verify`: it checks the body."""
    expected = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=")
    if not hmac.compare_digest(_bytes(claims.get("body", "")).rstrip(b"="), expected):
        raise InvalidSignatureError("the signature is for another body")


def _base64url(content: bytes) -> bytes:
    """Encode without padding (RFC 7515, section 2)."""
    return b2a_base64(content, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _bytes(text: object) -> bytes:
    """Encode for a comparison. Some servers turn bytes that are not UTF-8 into half surrogate pairs."""
    return str(text).encode(errors="surrogatepass")


def _decode(token: str, keys: Iterable[str]) -> Claims:
    if not token.isascii():
        raise InvalidSignatureError("the signature contains characters that are not valid in one")
    problem = "no key"
    for key in keys:
        try:
            # 5 seconds for clocks that differ; `iat` may be in the future.
            return jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                issuer="Upstash",
                leeway=5,
                options={"require": ["iss", "sub", "exp", "nbf", "body"], "verify_iat": False},
            )
        # PyJWT lets the last four escape for a header nested too deep, or for claims that are not numbers.
        except (jwt.InvalidTokenError, RecursionError, TypeError, ValueError, OverflowError) as error:
            problem = type(error).__name__
    raise InvalidSignatureError(f"the signature is not valid ({problem})")
