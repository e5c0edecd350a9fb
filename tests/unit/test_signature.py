"""Any value of the signature header is a valid signature or an `InvalidSignatureError`."""

from __future__ import annotations

import base64
import hmac
import json
import time

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.relay.quick import parsed, quick
from tidings.contract.signature import InvalidSignatureError, check_body, sign, verify, verify_token

KEY = "sig_key_of_the_tests_0123456789abcdef"
URL = "https://a.example/x"
# Text that a server decoded from bytes that are not UTF-8.
TEXT = st.text(st.characters(), max_size=20)


def now() -> int:
    """The current time, for each test: a signature is valid for minutes, and a run of all tests takes longer."""
    return int(time.time())


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def test_a_signature_is_valid_for_its_address_and_body_and_for_no_other() -> None:
    token = sign(KEY, URL, b"x", now=now())
    verify(token, b"x", keys=["other" * 8, KEY], urls=["https://b.example", URL])
    for body, keys, urls in ((b"y", [KEY], [URL]), (b"x", ["other" * 8], [URL]), (b"x", [KEY], [URL + "/"])):
        with pytest.raises(InvalidSignatureError):
            verify(token, body, keys=keys, urls=urls)


@pytest.mark.parametrize(
    "token",
    ["a.b.\udcff", "\ud800", "é.é.é", "", "..", f"{segment(b'[' * 20_000)}.e30.AA", f"{segment(b'{}')}.\udfff.AA"],
)
def test_an_invalid_signature_is_one_error(token: str) -> None:
    with pytest.raises(InvalidSignatureError):
        verify(token, b"", keys=[KEY], urls=[URL])


@quick
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100), st.binary(max_size=300))
def test_a_key_of_any_length_signs_as_hmac_does(key: str, body: bytes) -> None:
    head, claims, signature = sign(key, URL, body, now=0).encode().split(b".")
    expected = hmac.digest(key.encode(), head + b"." + claims, "sha256")
    assert signature.decode() == segment(expected)


@quick
@given(TEXT, TEXT)
def test_any_text_is_refused_as_a_token_and_compared_as_an_address(token: str, url: str) -> None:
    parsed(lambda: verify(token, b"", keys=[KEY], urls=[URL]), InvalidSignatureError)
    parsed(lambda: verify(sign(KEY, URL, b"", now=now()), b"", keys=[KEY], urls=[url]), InvalidSignatureError)


@quick
@given(st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "body", "iss"]),
                       st.none() | st.integers() | st.floats() | TEXT | st.lists(st.integers(), max_size=2)))  # fmt: skip
def test_invalid_claims_are_refused_even_when_they_are_signed(claims: dict[str, object]) -> None:
    sound = {"iss": "Upstash", "sub": URL, "exp": now() + 100, "nbf": 0, "body": ""}
    token = jwt.api_jws.encode(json.dumps(sound | claims).encode(), KEY, algorithm="HS256")
    read = parsed(lambda: verify_token(token, keys=[KEY], urls=[URL]), InvalidSignatureError)
    if read is not None:
        parsed(lambda: check_body(read, b"x"), InvalidSignatureError)


def test_an_address_that_is_not_utf_8_is_another_address() -> None:
    with pytest.raises(InvalidSignatureError, match="another address"):
        verify(sign(KEY, URL, b"", now=now()), b"", keys=[KEY], urls=["https://a.example/\udce9"])
