"""Destinations in the raw path arrive unchanged."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.relay.protocol.address import GroupName, Url, destination, is_option, separated
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import given_token, options_of
from tests.unit.relay.quick import parsed, quick

# The characters of a raw HTTP path: visible ASCII.
VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
PATHS = st.text(VISIBLE, max_size=40).map("/{}".format)
PARAMETERS = st.text(VISIBLE.filter(lambda c: c not in "&=?#"), min_size=1, max_size=10).filter(
    lambda n: not is_option(n)
)
# The characters that no URI has.
UNSAFE = str.maketrans("", "", '"<>\\^`{|}')
PAIRS = st.lists(st.tuples(PARAMETERS, st.text(VISIBLE.filter(lambda c: c not in "&#"), max_size=8)), max_size=5)


@pytest.mark.parametrize(
    ("raw", "url"),
    [
        ("https://a.example/x//y%2Fz?q=1", "https://a.example/x//y%2Fz?q=1"),
        ("v2/publish/https://a.example/x", "https://a.example/x"),
        ("v2/publish/v2/publish/https://a.example/x", "https://a.example/x"),
        ("https:/a.example/x", "https://a.example/x"),
        ("HTTPS://a.example/x", "HTTPS://a.example/x"),
        ("https%3A%2F%2Fa.example%2Fx%3Fq=1", "https://a.example/x?q=1"),
        ("a.example/x", "https://a.example/x"),
        ("http://127.0.0.1:80/", "http://127.0.0.1:80/"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("https://a.example/?u=http://b.example//x", "https://a.example/?u=http://b.example//x"),
        ("https://a.example/café?q=ü#é", "https://a.example/caf%C3%A9?q=%C3%BC#%C3%A9"),
        ("https://a.example/caf%C3%A9/%zz/%e9", "https://a.example/caf%C3%A9/%zz/%e9"),
        ("https://a.example/хук?имя=1", "https://a.example/%D1%85%D1%83%D0%BA?%D0%B8%D0%BC%D1%8F=1"),
        (
            "https://a.example/a\"b<c>d\\e^f`g{h|i}j?[k]='l'",
            "https://a.example/a%22b%3Cc%3Ed%5Ce%5Ef%60g%7Bh%7Ci%7Dj?[k]='l'",
        ),
        # Bytes that are not UTF-8 are kept.
        ("https://a.example/caf\udce9", "https://a.example/caf%E9"),
        ("https%3A%2F%2Fa.example%2Fcaf%E9", "https://a.example/caf%E9"),
        # A host in Unicode has an encoding of its own.
        ("https://bücher.example/ü", "https://bücher.example/%C3%BC"),
    ],
)
def test_destinations(raw: str, url: str) -> None:
    assert destination(raw) == Url(url)


@quick
@given(st.sampled_from(["http", "https"]), PATHS)
def test_the_part_after_the_host_is_unchanged(scheme: str, path: str) -> None:
    url = f"{scheme}://a.example:8443{path}"
    assert destination(url) == Url(quote(url, safe="".join(map(chr, range(0x21, 0x7F))).translate(UNSAFE)))


@quick
@given(PATHS.filter(lambda path: "?" not in path), PAIRS, PAIRS)
def test_options_are_removed_from_the_destinations_query_and_the_rest_stays(
    path: str, own: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    before, after = ("&".join(f"{name}={value}" for name, value in pairs) for pairs in (own, more))
    options = "upstash-retries=3&qstash_token=t&Upstash-Delay=10s"
    query = "&".join(filter(None, [before, options, after]))
    kept = "&".join(filter(None, [before, after]))
    address, taken = separated(f"https://a.example{path}?{query}")
    assert address == f"https://a.example{path}{'?' if kept else ''}{kept}"
    assert options_of({}, taken) == {"upstash-retries": "3", "upstash-delay": "10s"}
    assert given_token(taken) == "t"


@quick
@given(st.text(VISIBLE, max_size=60))
def test_without_options_nothing_changes(text: str) -> None:
    address, options = separated(f"https://a.example/{text}")
    assert options or address == f"https://a.example/{text}"


@quick
@given(st.from_regex(r"[A-Za-z0-9._-]{1,50}", fullmatch=True))
def test_a_name_is_a_group(name: str) -> None:
    assert destination(name) == GroupName(name)


def test_a_group_that_does_not_exist_may_be_a_host() -> None:
    assert GroupName("my.app").as_host() == Url("https://my.app")
    assert GroupName("orders").as_host() is None


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("ftp://a.example", "scheme"),
        ("https://user:pw@a.example", "user"),
        ("https://a b", "white space"),
        ("https://", "host"),
        ("https://a:x/", "host"),
        ("https://a:0/", "host"),
        ("https://a:99999/", "host"),
        ("https://[::1/", "host"),
        ("", "host"),
        ("https://caf\udce9.example/", "not UTF-8"),
        ("https://a.example/\ud800", "not UTF-8"),
        ("api/llm", "not offered"),
        ("api/email?x=1", "not offered"),
    ],
)
def test_an_invalid_destination_is_refused(raw: str, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        destination(raw)


@quick
@given(st.text(max_size=50))
def test_any_text_is_a_destination_or_refused(text: str) -> None:
    found = parsed(lambda: destination(text))
    assert found is None or found.text
