"""The options of a publish request, from headers and query."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from services.relay.message import Draft
from services.relay.options import FlowControl, Redaction, StartedCallback
from services.relay.protocol.headers import canonical
from services.relay.protocol.invalid import InvalidRequestError
from services.relay.protocol.publishing import draft, lasting, merged, options_of
from services.relay.protocol.redaction import shown_headers
from services.relay.store.encryption import Encryption
from services.relay.store.sealing import Sealer, open_sealed
from tests.unit.relay.quick import parsed, quick

OF_ONE_HOP = {"host", "te", "expect", "upgrade", "trailer", "connection", "keep-alive", "content-length",
              "transfer-encoding", "proxy-connection", "proxy-authenticate", "proxy-authorization"}  # fmt: skip
PARTS = st.text("abcxyzABCXYZ019", min_size=1, max_size=6)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("-".join).filter(lambda name: name.lower() not in OF_ONE_HOP)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


def read(headers: dict[str, str], query: str = "", body: bytes = b"x", **more: Any) -> Draft:
    return draft("https://a.example", options_of(headers, query), body, now_seconds=0.0, **more)


def recased(text: str, data: st.DataObject) -> str:
    flags = data.draw(st.lists(st.booleans(), min_size=len(text), max_size=len(text)))
    return "".join(c.upper() if flag else c.lower() for c, flag in zip(text, flags, strict=True))


@quick
@given(st.dictionaries(NAMES.map(str.lower), VALUES, max_size=5), st.data())
def test_forwarded_headers_make_the_round_trip_in_any_case(headers: dict[str, str], data: st.DataObject) -> None:
    given_headers = {recased(f"Upstash-Forward-{name}", data): value for name, value in headers.items()}
    assert read(given_headers).headers == {canonical(name): value for name, value in headers.items()}


@quick
@given(st.sampled_from(["callback", "failure-callback"]), st.dictionaries(NAMES.map(str.lower), VALUES, max_size=3))
def test_callbacks_have_their_own_headers(kind: str, headers: dict[str, str]) -> None:
    given_headers = {f"Upstash-{kind}": "https://b.example"} | {
        f"Upstash-{kind}-Forward-{name}": value for name, value in headers.items()
    }
    message = read(given_headers)
    options = message.options.callback if kind == "callback" else message.options.failure_callback
    assert options is not None
    assert options.headers == {canonical(name): value for name, value in headers.items()}
    assert message.headers == {}


@pytest.mark.parametrize("kind", ["Callback", "Failure-Callback"])
def test_a_header_that_is_no_option_of_a_callback_is_sent_with_it(kind: str) -> None:
    options = {"X": "v", "Forward-Y": "w", "Method-Note": "m", "Retries": "2", "Workflow-RunId": "r", "Label": "l",
               "Content-Length": "7", "Z": "a\nb"}  # fmt: skip
    message = read(
        {f"Upstash-{kind}": "https://b.example"} | {f"Upstash-{kind}-{name}": v for name, v in options.items()}
    )
    callback = message.options.callback if kind == "Callback" else message.options.failure_callback
    assert callback is not None
    assert (callback.headers, callback.retries_max) == ({"X": "v", "Y": "w", "Method-Note": "m"}, 2)


@quick
@given(st.dictionaries(st.text(max_size=30), st.text(max_size=30), max_size=5), st.text(max_size=60))
def test_any_headers_and_query_are_a_message_or_refused(headers: dict[str, str], query: str) -> None:
    message = parsed(lambda: read({f"Upstash-{name}": value for name, value in headers.items()}, query))
    assert message is None or message.url == "https://a.example"


def test_all_options_are_read() -> None:
    message = read(
        {
            "upstash-METHOD": "put",
            "Content-Type": "text/plain",
            "Upstash-Retries": "2",
            "Upstash-Retry-Delay": "1000 * retried",
            "Upstash-Delay": "500ms",
            "Upstash-Timeout": "1m30s",
            "Upstash-Label": "a, b,,a",
            "Upstash-Flow-Control-Key": "key",
            "Upstash-Flow-Control-Value": "parallelism=5, rate=10, period=1m",
            "Tidings-Cooling": "off",
            "Upstash-Redact-Fields": "body, header[Authorization]",
            "Upstash-Callback": "my.app/c",
            "Upstash-Callback-Method": "PATCH",
            "Upstash-Callback-Retries": "0",
            "Upstash-Callback-Timeout": "5s",
            "Upstash-Failure-Callback": "https://my.app/f",
            "Upstash-Deduplication-Id": "once",
            "Upstash-Telemetry-Sdk": "py",
            "Tidings-Final-Status": "400, 401",
            "Tidings-Final-Error": "insufficient_quota",
            "Tidings-On-Unknown": "fail",
            "Tidings-Addresses": "public",
        },
        queue="q",
    )
    assert (message.method, message.headers, message.retries_max) == ("PUT", {"Content-Type": "text/plain"}, 2)
    assert (message.options.retry_delay, message.delay_seconds, message.timeout_ms) == ("1000 * retried", 0.5, 90_000)
    assert (message.labels, message.label, message.queue) == (("a", "b"), "a", "q")
    assert message.options.flow == FlowControl("key", 5, 10, 60, cooling=False)
    assert message.options.redact == Redaction(body=True, headers=frozenset({"authorization"}))
    assert message.options.callback is not None
    assert message.options.failure_callback is not None
    assert (message.options.callback.url, message.options.callback.method) == ("https://my.app/c", "PATCH")
    assert (message.options.callback.retries_max, message.options.callback.timeout_ms) == (0, 5000)
    assert message.options.failure_callback.url == "https://my.app/f"
    assert message.deduplication_id == "once"
    assert (message.options.final_status, message.options.final_errors) == ((400, 401), ("insufficient_quota",))
    assert message.on_unknown == "fail"
    assert message.options.public_only


def test_a_header_takes_precedence_over_its_query_parameter() -> None:
    options = options_of({"Upstash-Retries": "1"}, "upstash-retries=5&upstash-delay=1d&page=2")
    assert options == {"upstash-retries": "1", "upstash-delay": "1d"}


def test_a_forwarded_content_type_takes_precedence() -> None:
    message = read({"Content-Type": "application/json", "Upstash-Forward-content-type": "text/plain"})
    assert message.headers == {"Content-Type": "text/plain"}


WEBHOOK = {
    "Host": "relay", "Content-Length": "1", "Connection": "keep-alive, X-Hop", "X-Hop": "1", "X-Event": "push",
    "Content-Type": "application/json", "Upstash-Telemetry-Sdk": "x", "Upstash-Forward-X-Own": "2",
}  # fmt: skip


def test_header_forward_delivers_all_headers_except_the_relays_token() -> None:
    message = read(WEBHOOK | {"Authorization": "Bearer relay"}, "upstash-header-forward=true")
    assert message.headers == {"X-Event": "push", "Content-Type": "application/json", "X-Own": "2"}
    assert read(WEBHOOK).headers == {"Content-Type": "application/json", "X-Own": "2"}


def test_with_a_token_in_the_query_the_authorization_header_is_the_senders_own() -> None:
    query = "upstash-header-forward=true&qstash_token=relay"
    assert read({"Authorization": "Bearer own"}, query).headers == {"Authorization": "Bearer own"}
    assert read({"Authorization": "Bearer relay"}, query).headers == {}


def test_stored_options_are_read_as_the_same() -> None:
    options = options_of(
        WEBHOOK | {"Authorization": "Bearer relay", "Upstash-Retries": "1"}, "upstash-header-forward=true"
    )
    stored = lasting(options)
    again = draft("https://a.example", stored, b"x", now_seconds=0.0)
    assert again == draft("https://a.example", options, b"x", now_seconds=0.0)
    assert not {"authorization", "host", "x-event"} & set(stored)


def test_a_requests_headers_override_those_of_a_group() -> None:
    options = merged({"Upstash-Header-Forward": ["true"], "Upstash-Retries": "3", "Upstash-Delay": "5s"},
                     options_of({"Upstash-Retries": "1", "X-Event": "push"}, ""))  # fmt: skip
    message = draft("https://a.example", options, b"", now_seconds=0.0, topic="g", endpoint="e")
    assert (message.retries_max, message.delay_seconds, message.headers) == (1, 5, {"X-Event": "push"})
    assert (message.topic, message.endpoint) == ("g", "e")


@pytest.mark.parametrize("true", ["true", "True"])
def test_content_based_deduplication_includes_destination_body_and_forwarded_headers(true: str) -> None:
    base = {"Upstash-Content-Based-Deduplication": true, "Content-Type": "text/plain", "Upstash-Forward-A": "1"}
    first = read(base).deduplication_id
    assert first is not None
    assert first == read(base | {"Date": "now", "Upstash-Delay": "5s", "Upstash-Label": "x"}).deduplication_id
    others = [
        read(base, body=b"y"),
        read(base | {"Content-Type": "text/html"}),
        read(base | {"Upstash-Forward-A": "2"}),
        draft("https://b.example", options_of(base, ""), b"x", now_seconds=0.0),
    ]
    assert len({first, *(other.deduplication_id for other in others)}) == 5


def test_each_endpoint_of_a_group_is_deduplicated_separately() -> None:
    options = {"upstash-deduplication-id": "once"}
    urls = ["https://a.example", "https://b.example"]
    ids = [draft(url, options, b"", now_seconds=0.0, topic="g").deduplication_id for url in urls]
    assert len(set(ids)) == 2


def test_a_long_deduplication_id_is_shortened_for_the_index() -> None:
    long = "é" * 5000
    ids = [read({"Upstash-Deduplication-Id": given}).deduplication_id for given in (long, long, f"{long}2")]
    assert ids[0] == ids[1] != ids[2]
    assert all(id_ is not None and len(id_.encode()) <= 1000 for id_ in ids)
    to_group = draft(
        "https://a.example/" + "x" * 9000, {"upstash-deduplication-id": "a"}, b"", now_seconds=0.0, topic="g"
    )
    assert len(to_group.deduplication_id or "") <= 1000


@pytest.mark.parametrize(
    ("fields", "redaction"),
    [
        ("body", Redaction(body=True)),
        ("header", Redaction(all_headers=True)),
        ("headers", Redaction(all_headers=True)),
        ("headers[A], Header[b-C]", Redaction(headers=frozenset({"a", "b-c"}))),
        ("body,header[A],header[b-C]", Redaction(body=True, headers=frozenset({"a", "b-c"}))),
        ("", Redaction()),
    ],
)
def test_redaction(fields: str, redaction: Redaction) -> None:
    assert read({"Upstash-Redact-Fields": fields}).options.redact == redaction


@pytest.mark.parametrize(
    "headers",
    [
        {"Upstash-Retries": "-1"},
        {"Upstash-Retries": "²"},
        {"Upstash-Retries": "9" * 5000},
        {"Upstash-Delay": "soon"},
        {"Upstash-Delay": "٣s"},
        {"Upstash-Retry-Delay": "٣"},
        {"Upstash-Not-Before": "x"},
        {"Upstash-Method": "BREW"},
        {"Upstash-Retry-Delay": "1 +"},
        {"Upstash-Deduplication-Id": "a:b"},
        {"Upstash-Deduplication-Id": "a b"},
        {"Upstash-Forward-X": "a\r\nb"},
        {"Upstash-Forward-X Y": "1"},
        {"Upstash-Forward-X": "caf\ud800"},
        {"Content-Type": "a\r\nX: y"},
        {"Content-Type": "a\0b"},
        {"Upstash-Label": "a\0b"},
        {"Upstash-Label": "caf\ud800"},
        {"Upstash-Label": "fine," + "x" * 257},
        {"Upstash-Deduplication-Id": "caf\ud800"},
        {"Upstash-Callback": "https://b.example/caf\ud800"},
        {"Upstash-Callback": "ftp://x"},
        {"Upstash-Redact-Fields": "url"},
        {"Upstash-Flow-Control-Key": "k"},
        {"Upstash-Flow-Control-Value": "rate=1"},
        {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1", "Tidings-Cooling": "warm"},
        {"Tidings-Final-Status": "4xx"},
        {"Tidings-On-Unknown": "maybe"},
        {"Tidings-Started-Callback": "ftp://x"},
        {"Tidings-Started-Callback": "b.example", "Tidings-Started-Data": "x" * 257},
        {"Tidings-Started-Callback": "b.example", "Tidings-Started-Data": "ä" * 129},
        {"Tidings-Addresses": "private"},
    ],
)
def test_faulty_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        read(headers)


def test_the_address_for_starts_of_attempts() -> None:
    message = read({"Tidings-Started-Callback": "b.example/starts", "Tidings-Started-Data": "x" * 256})
    assert message.options.started_callback == StartedCallback("https://b.example/starts", "x" * 256)
    assert read({"Tidings-Started-Callback": "b.example"}).options.started_callback == StartedCallback(
        "https://b.example"
    )
    assert read({"Tidings-Started-Data": "alone"}).options.started_callback is None
    assert message.headers == {}


def test_a_faulty_queue_name_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="queue name"):
        read({}, queue="a/b")


def test_bytes_that_are_not_utf_8_are_delivered_unchanged_and_read_as_latin_1() -> None:
    # As HTTP servers keep them: the byte E9, and the two bytes of é in UTF-8.
    message = read(
        {"Upstash-Forward-X": "Jos\udce9", "Upstash-Forward-Y": "José", "Upstash-Label": "caf\udce9",
         "Upstash-Callback": "https://b.example/caf\udce9", "Upstash-Callback-Forward-X": "\udcfc",
         "Content-Type": "text/\udce9", "Upstash-Content-Based-Deduplication": "true"},
        "upstash-forward-z=%E9&upstash-forward-w=%C3%A9",
    )  # fmt: skip
    assert message.headers == {"Content-Type": "text/\udce9", "X": "Jos\udce9", "Y": "José", "Z": "\udce9", "W": "é"}
    assert message.labels == ("café",)
    assert message.options.callback is not None
    assert (message.options.callback.url, message.options.callback.headers) == (
        "https://b.example/caf%E9",
        {"X": "\udcfc"},
    )
    assert message.deduplication_id is not None
    assert shown_headers(message.headers)["X"] == ["José"]
    everything = read({"Upstash-Header-Forward": "true", "X-City": "K\udcf6ln"})
    assert everything.headers == {"X-City": "K\udcf6ln"}


def test_sealed_options_are_opened_with_their_bytes() -> None:
    message = read(
        {"Upstash-Forward-X": "Jos\udce9", "Upstash-Callback": "b.example", "Upstash-Redact-Fields": "header[X]",
         "Tidings-Started-Callback": "b.example/starts", "Tidings-Started-Data": "token"}
    )  # fmt: skip
    encryption = Encryption(Fernet.generate_key().decode())
    opened = open_sealed(encryption, Sealer(encryption).seal(message))
    assert (
        opened.options.started_callback
        == message.options.started_callback
        == StartedCallback("https://b.example/starts", "token")
    )
    assert (opened.headers, opened.options.callback, opened.options.redact) == (
        message.headers,
        message.options.callback,
        message.options.redact,
    )


def test_headers_and_options_of_a_message_are_bounded_together() -> None:
    part = {f"Upstash-Forward-{n}": "x" * 15_000 for n in range(4)}
    assert len(read(part).headers) == 4
    with pytest.raises(InvalidRequestError, match="at most 65536 bytes"):
        read(part | {"Upstash-Callback": "b.example", "Upstash-Callback-Forward-A": "x" * 15_000})
