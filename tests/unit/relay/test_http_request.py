"""A request as bytes: exactly one request, whatever its parts contain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.egress.http.faults import NotSentError
from services.relay.egress.http.request import Origin, origin_of, request, target_of


def test_a_request_is_its_line_its_headers_and_a_length() -> None:
    made = request("POST", "/x?y=ä", {"Host": "h", "X-A": "ö"}, b"body", 4)
    assert made.head == "POST /x?y=ä HTTP/1.1\r\nHost: h\r\nX-A: ö\r\nContent-Length: 4\r\n\r\n".encode()
    assert made.body == b"body"


@pytest.mark.parametrize(("method", "length"), [("POST", True), ("PUT", True), ("GET", False), ("DELETE", False)])
def test_an_empty_body_has_a_content_length_where_one_is_expected(method: str, length: bool) -> None:
    assert (b"Content-Length: 0\r\n" in request(method, "/", {"Host": "h"}, b"", 0).head) == length


_TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\0 :"), max_size=20)


@given(st.dictionaries(_TEXT, _TEXT, max_size=3), _TEXT)
def test_nothing_in_a_header_or_target_makes_a_second_line(headers: dict[str, str], path: str) -> None:
    target = target_of(path)
    try:
        head = request("POST", target, {"Host": "h"} | headers, b"", 0).head
    except NotSentError:
        assert any(character in target + "".join(f"{n}{v}" for n, v in headers.items()) for character in "\r\n\0 ")
        return
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert len(lines) == 2 + len({"Host": "h"} | headers)
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    assert lines[0].count(b" ") == 2


@pytest.mark.parametrize(
    ("text", "origin", "authority"),
    [
        ("http://example.com", Origin("http", "example.com", 80), "example.com"),
        ("HTTPS://Example.COM:8443/x", Origin("https", "example.com", 8443), "example.com:8443"),
        ("https://example.com:443", Origin("https", "example.com", 443), "example.com"),
        ("http://[::1]:81", Origin("http", "::1", 81), "[::1]:81"),
        ("http://bücher.example", Origin("http", "xn--bcher-kva.example", 80), "xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_the_address_of_the_connection_and_the_host_header(
    text: str, origin: Origin, authority: str
) -> None:
    assert (origin_of(text), origin.authority) == (origin, authority)


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "ftp://example.com", "http://", "http://a\\b", "http://a:0", "http://a:99999", "http://a b"],
)
def test_an_invalid_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        origin_of(text)


@pytest.mark.parametrize(("path", "target"), [("", "/"), ("/a#b", "/a"), ("?a", "/?a"), ("#b", "/")])
def test_a_target_is_never_empty_and_has_no_fragment(path: str, target: str) -> None:
    assert target_of(path) == target
