"""The routes of an attempt (TLS, the egress proxy, third parties, names that change their address) on real sockets,
without a database.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from qstash import Receiver

from services.relay.egress.http.connection import STALE_SECONDS
from services.relay.egress.http.resolving import Resolve
from services.relay.egress.http.tls import tls_context
from services.relay.engine.bodies import Bodies
from services.relay.engine.http_attempt import HttpAttempt
from services.relay.message import Claimed
from services.relay.options import Options
from services.relay.outcome.outcome import Answer
from services.relay.settings import RelaySettings
from services.relay.store.chunks import Chunks
from services.relay.store.database import Database
from tests.certificates import authority
from tests.destination import Reply, destination
from tests.unit.relay.test_guard import Answers

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = ("sig_first_key_0123456789abcdef0123456789", "sig_second_key_0123456789abcdef012345678")


def message(url: str, method: str = "POST", timeout_ms: int = 5_000) -> Claimed:
    return Claimed(
        id="msg_1", kind="message", protocol=2, url=url, method=method, headers={"My-Header": "mine"}, body=b"hello",
        body_size=5, retries_max=3, timeout_ms=timeout_ms, on_unknown="retry", caller_ip="", created_at=MOMENT,
        not_before=MOMENT, retried=0, started_at=MOMENT,
    )  # fmt: skip


def settings(**given: str) -> RelaySettings:
    needed = {
        "RELAY_DATABASE_URL": "postgresql://nowhere", "QSTASH_TOKEN": "t", "QSTASH_CURRENT_SIGNING_KEY": KEYS[0],
        "QSTASH_NEXT_SIGNING_KEY": KEYS[1], "RELAY_ENCRYPTION_KEYS": "k", "RELAY_ALLOW_PRIVATE": "127.0.0.0/8",
    }  # fmt: skip
    return RelaySettings.model_validate(needed | given)


def with_http(
    chosen: RelaySettings,
    work: Callable[[HttpAttempt], Awaitable[Any]],
    *,
    key: Callable[[], str] = lambda: KEYS[0],
    resolve: Resolve | None = None,
) -> Any:
    """Run `work` on a new event loop; return its result."""

    async def scenario() -> Any:
        # Never opened, as no body is large enough for the database.
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool("", open=False)
        bodies = Bodies(Chunks(Database(pool)), chosen.body_bytes_max)
        http = HttpAttempt(chosen, bodies, tls_context(chosen.ca_bundle), key, resolve=resolve)
        try:
            return await work(http)
        finally:
            http.close()

    return asyncio.run(scenario())


def delivered(url: str, chosen: RelaySettings, *, resolve: Resolve | None = None) -> Answer:
    answer: Answer = with_http(chosen, lambda http: http.make(message(url), 1), resolve=resolve)
    return answer


def test_a_servers_certificate_is_checked_against_the_bundle(tmp_path: Path) -> None:
    bundle, tls = authority(tmp_path)
    with destination(tls=tls) as server:
        refused = delivered(server.url, settings())
        assert refused.status == 0
        assert "certificate verify failed" in str(refused.error)
        assert server.received == []
        assert delivered(server.url, settings(RELAY_CA_BUNDLE=str(bundle))).status == 200
        assert [call.body for call in server.received] == [b"hello"]


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    bundle, tls = authority(tmp_path)
    with destination(tls=tls) as server:
        port = server.url.rpartition(":")[2]
        answer = delivered(
            f"https://other.example:{port}/", settings(RELAY_CA_BUNDLE=str(bundle)), resolve=Answers("127.0.0.1")
        )
    assert answer.status == 0
    assert "certificate verify failed" in str(answer.error)


class Proxy:
    """An HTTP proxy that records the first line of each request, and forwards all to 127.0.0.1:`port`."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0].decode()
        self.asked.append(line)
        there, here = await asyncio.open_connection("127.0.0.1", self._port)
        if line.startswith("CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            here.write(head)
        await asyncio.gather(_pipe(reader, here), _pipe(there, writer))


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while content := await source.read(65_536):
            target.write(content)
            await target.drain()
    target.close()


def through_proxy(upstream: str, url: str, *, public_only: bool = False, **given: str) -> tuple[Answer, list[str]]:
    proxy = Proxy(int(upstream.rpartition(":")[2]))

    async def scenario(_: HttpAttempt) -> Answer:
        listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        chosen = settings(RELAY_EGRESS_PROXY=address, **given)
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool("", open=False)
        bodies = Bodies(Chunks(Database(pool)), chosen.body_bytes_max)
        http = HttpAttempt(chosen, bodies, tls_context(chosen.ca_bundle), lambda: KEYS[0])
        try:
            return await http.make(replace(message(url), options=Options(public_only=public_only)), 1)
        finally:
            http.close()
            listening.close()

    answer: Answer = with_http(settings(), scenario)
    return answer, proxy.asked


def test_https_goes_through_the_proxys_tunnel_with_its_own_name(tmp_path: Path) -> None:
    bundle, tls = authority(tmp_path, "provider.example")
    with destination(tls=tls) as server:
        answer, asked = through_proxy(server.url, "https://provider.example/v1/x", RELAY_CA_BUNDLE=str(bundle))
        [call] = server.received
    assert (answer.status, answer.error) == (200, None)
    assert asked == ["CONNECT provider.example:443 HTTP/1.1"]
    assert (call.path, call.headers["Host"], call.body) == ("/v1/x", "provider.example", b"hello")


def test_http_is_requested_from_the_proxy() -> None:
    with destination() as server:
        answer, asked = through_proxy(server.url, "http://provider.example/v1/x?y=1")
    assert (answer.status, answer.error) == (200, None)
    assert asked == ["POST http://provider.example/v1/x?y=1 HTTP/1.1"]


def test_a_literal_private_address_is_refused_before_the_proxy_is_used() -> None:
    with destination() as server:
        answer, asked = through_proxy(server.url, "http://10.0.0.1/")
    assert "10.0.0.1 is not a public address" in str(answer.error)
    assert asked == []


@pytest.mark.parametrize(
    ("host", "third_party"),
    [("api.openai.com", True), ("eu.api.openai.com", True), ("exact.example", True), ("sub.exact.example", False),
     ("openai.com", False), ("notopenai.com", False)],
)  # fmt: skip
def test_third_parties_get_no_header_that_names_the_relay(host: str, third_party: bool) -> None:
    with destination() as server:
        port = server.url.rpartition(":")[2]
        chosen = settings(RELAY_THIRD_PARTIES=".openai.com,exact.example")
        assert delivered(f"http://{host}:{port}/", chosen, resolve=Answers("127.0.0.1")).status == 200
        [call] = server.received
    ours = [name for name in call.headers if name.lower().startswith("upstash-")]
    assert (ours == []) == third_party
    assert (call.headers["User-Agent"] == "Tidings-Relay") == third_party
    assert call.headers["My-Header"] == "mine"


def test_a_name_that_changes_to_a_private_address_is_not_called_again() -> None:
    # No connection is kept, so each attempt resolves the name again.
    with destination(lambda _: Reply(headers={"Connection": "close"})) as server:
        url = f"http://rebinding.example:{server.url.rpartition(':')[2]}/"

        async def twice(http: HttpAttempt) -> list[Answer]:
            return [await http.make(message(url), 1) for _ in range(2)]

        first, second = with_http(settings(), twice, resolve=Answers("127.0.0.1", "10.0.0.1"))
        assert [call.headers["Host"] for call in server.received] == [url[7:-1]]
    assert first.status == 200
    assert (second.status, "not public" in str(second.error)) == (0, True)


def only_public(url: str, chosen: RelaySettings, *, resolve: Resolve | None = None) -> Answer:
    """The result of a message with `Tidings-Addresses: public`."""
    asked = replace(message(url), options=Options(public_only=True))
    answer: Answer = with_http(chosen, lambda http: http.make(asked, 1), resolve=resolve)
    return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "inside.example", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize(
    "allowed",
    [
        {"RELAY_ALLOW_PRIVATE": "127.0.0.0/8"},
        {"RELAY_ALLOW_PRIVATE": "", "RELAY_ALLOW_HOSTS": "127.0.0.1,inside.example,::ffff:127.0.0.1,::ffff:7f00:1"},
    ],
    ids=["network", "host"],
)
def test_a_message_for_public_addresses_reaches_no_private_one_that_the_operator_allows(
    host: str, allowed: dict[str, str]
) -> None:
    with destination() as server:
        url, chosen = server.url.replace("127.0.0.1", host), settings(**allowed)
        refused = only_public(url, chosen, resolve=Answers("127.0.0.1"))
        assert server.received == []
        assert delivered(url, chosen, resolve=Answers("127.0.0.1")).status == 200
    assert (refused.status, refused.fate) == (0, "not sent")
    assert "Tidings-Addresses" in str(refused.error)
    assert "RELAY_ALLOW" not in str(refused.error)


def test_a_message_for_public_addresses_uses_no_connection_of_another_message() -> None:
    with destination() as server:
        url = f"http://inside.example:{server.url.rpartition(':')[2]}/"

        async def both(http: HttpAttempt) -> list[Answer]:
            asked = [replace(message(url), options=Options(public_only=only)) for only in (False, True, False)]
            return [await http.make(one, 1) for one in asked]

        # The third call uses the first one's connection, which was available to the second too.
        answers = with_http(settings(), both, resolve=Answers("127.0.0.1", "127.0.0.1"))
        assert len(server.received) == 2
    assert [answer.status for answer in answers] == [200, 0, 200]


def test_the_address_of_a_message_for_public_addresses_is_checked_at_each_attempt() -> None:
    places: list[Sequence[str]] = [["192.0.0.9", "127.0.0.1"], ["127.0.0.1"], ["10.0.0.1"]]

    async def moving(_: str) -> Sequence[str]:
        return places.pop(0)

    async def thrice(http: HttpAttempt) -> list[Answer]:
        asked = replace(message("http://moving.example:9/"), options=Options(public_only=True))
        return [await http.make(asked, 1) for _ in range(3)]

    answers = with_http(settings(), thrice, resolve=moving)
    assert places == []
    assert ["not public" in str(answer.error) for answer in answers] == [True, True, True]


def test_a_message_for_public_addresses_goes_to_a_public_name() -> None:
    with destination() as server:
        answer, asked = through_proxy(server.url, "http://provider.example/hook", public_only=True)
        refused, _ = through_proxy(server.url, "http://127.0.0.1/hook", public_only=True)
    assert (answer.status, asked) == (200, ["POST http://provider.example/hook HTTP/1.1"])
    assert "not a public address" in str(refused.error)


def test_a_message_for_public_addresses_is_not_mapped_to_another_address() -> None:
    with destination() as server:
        chosen = settings(RELAY_DESTINATION_MAP=f"https://mapped.example={server.url}")
        refused = only_public("https://mapped.example/x", chosen)
        assert delivered("https://mapped.example/x", chosen).status == 200
        assert len(server.received) == 1
    assert "RELAY_DESTINATION_MAP" in str(refused.error)


def test_a_host_that_is_allowed_for_one_port_is_called_at_that_port() -> None:
    with destination() as allowed, destination() as other:
        port = allowed.url.rpartition(":")[2]
        chosen = settings(RELAY_ALLOW_PRIVATE="", RELAY_ALLOW_HOSTS=f"127.0.0.1:{port},inside.example:{port}")
        for host in ("127.0.0.1", "inside.example"):
            url = allowed.url.replace("127.0.0.1", host)
            assert delivered(url, chosen, resolve=Answers("127.0.0.1")).status == 200
            url = other.url.replace("127.0.0.1", host)
            assert "RELAY_ALLOW_HOSTS" in str(delivered(url, chosen, resolve=Answers("127.0.0.1")).error)
        assert (len(allowed.received), other.received) == (2, [])


@pytest.mark.parametrize("hosts", ["web:", "web:x", "web:0", "web:65536", ":80", "[::1", "http://web"])
def test_an_invalid_host_is_refused_at_start(hosts: str) -> None:
    with pytest.raises(ValueError, match="RELAY_ALLOW_HOSTS"):
        settings(RELAY_ALLOW_HOSTS=hosts)


def test_without_a_free_file_descriptor_no_attempt_is_made() -> None:
    async def exhausted(_: str) -> Sequence[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    answer = delivered("http://well.example/", settings(), resolve=exhausted)
    assert (answer.status, answer.fate, answer.later_seconds) == (0, "not attempted", 1.0)
    assert answer.error == "this relay has too many open files"


def test_a_redirect_is_not_followed() -> None:
    with destination(lambda _: Reply(302, headers={"Location": "/elsewhere"})) as server:
        answer = delivered(server.url, settings())
        assert len(server.received) == 1
    assert (answer.status, answer.error) == (302, "a redirect, which is not followed")


def test_each_delivery_is_signed_with_the_current_key() -> None:
    keys = iter(KEYS)
    with destination() as server:

        async def twice(http: HttpAttempt) -> None:
            for _ in range(2):
                await http.make(replace(message(server.url), retried=1), int(datetime.now(UTC).timestamp()))

        with_http(settings(), twice, key=lambda: next(keys))
        first, second = server.received
    for key, call in zip(KEYS, (first, second), strict=True):
        Receiver(key, key).verify(signature=call.headers["Upstash-Signature"], body="hello", url=server.url)


@pytest.mark.parametrize(
    ("on_unknown", "retries_max", "calls", "fate"),
    [("retry", 3, 3, "answered"), ("fail", 3, 2, "unknown"), ("retry", 0, 2, "unknown")],
    ids=["may be repeated", "must not be", "last attempt"],
)
def test_a_repeatable_request_is_sent_again_at_once_after_a_stale_connection(
    on_unknown: str, retries_max: int, calls: int, fate: str
) -> None:
    # The server reads the second request and closes. On a kept connection that mostly means that it was idle for too
    # long.
    replies = iter([Reply(), Reply(0), Reply()])
    with destination(lambda _: next(replies)) as server:
        asked = replace(message(server.url), on_unknown=on_unknown, retries_max=retries_max)

        async def twice(http: HttpAttempt) -> list[Answer]:
            return [await http.make(asked, 1) for _ in range(2)]

        first, second = with_http(settings(), twice)
    assert (first.status, second.fate, len(server.received)) == (200, fate, calls)


def test_a_call_that_was_cut_after_a_wait_is_an_attempt_and_not_repeated() -> None:
    replies = iter([Reply(), Reply(0, delay_seconds=STALE_SECONDS + 0.2), Reply()])
    with destination(lambda _: next(replies)) as server:

        async def twice(http: HttpAttempt) -> list[Answer]:
            return [await http.make(message(server.url), 1) for _ in range(2)]

        first, second = with_http(settings(), twice)
    assert (first.status, second.fate, len(server.received)) == (200, "unknown", 2)


@pytest.mark.parametrize("own", [{}, {"Accept-Encoding": "gzip"}])
def test_an_answer_is_requested_without_compression_unless_the_sender_says_otherwise(own: dict[str, str]) -> None:
    # Without the header a server may compress (RFC 9110, section 12.5.3), and callbacks have no Content-Encoding.
    with destination() as server:
        asked = replace(message(server.url), headers=own)

        async def once(http: HttpAttempt) -> Answer:
            return await http.make(asked, 1)

        with_http(settings(), once)
        [call] = server.received
    assert call.headers["Accept-Encoding"] == own.get("Accept-Encoding", "identity")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        "\uff3b169.254.169.254x",
        "\uff3b10.0.0.5x",
        "\uff3b0x7f.1x",
        "\uff3b2130706433x",
        "\U0001ccf1\U0001ccf0.\U0001ccf0.\U0001ccf0.\U0001ccf5",
        "127.0.0.1..",
        "127.0.0.1...",
        "0x7f.1.",
        "192.0.0.192",
        "168.63.129.16",
        "[3fff::1]",
        "10.0.0.5",
    ],
)
def test_the_proxy_gets_no_request_for_a_private_address_in_any_notation(scheme: str, host: str) -> None:
    with destination() as server:
        answer, asked = through_proxy(server.url, f"{scheme}://{host}/latest/meta-data")
    assert (answer.status, answer.fate, asked) == (0, "not sent", [])
    assert "destination" in str(answer.error)


def test_an_answer_that_does_not_arrive_in_time_leaves_the_fate_unknown() -> None:
    with destination(lambda _: Reply(delay_seconds=30)) as server:

        async def impatient(http: HttpAttempt) -> Answer:
            return await http.make(message(server.url, timeout_ms=300), 1)

        answer: Answer = with_http(settings(), impatient)
    assert (answer.status, answer.error, answer.fate) == (0, "no answer within 0.3 s", "unknown")


@pytest.mark.parametrize(
    "url",
    ["nonsense", "http://", "http://a b/", "http://a\\b/", "http://example.com:99999/", "http://a:b@c/", "ftp://x.y/"],
)
def test_an_invalid_address_is_not_called(url: str) -> None:
    answer = delivered(url, settings())
    assert (answer.status, answer.fate) == (0, "not sent")
    assert "destination" in str(answer.error)


@pytest.mark.parametrize(
    ("path", "target"), [("", "/"), ("?a=b", "/?a=b"), ("/x#fragment", "/x"), ("/x//y?z=%2F", "/x//y?z=%2F")]
)
def test_a_path_is_sent_unchanged(path: str, target: str) -> None:
    with destination() as server:
        assert delivered(server.url + path, settings()).status == 200
        [call] = server.received
    assert call.path == target


def test_the_operators_map_changes_the_destination_and_keeps_the_host() -> None:
    with destination() as server:
        chosen = settings(
            RELAY_DESTINATION_MAP=f"https://My.example=http://127.0.0.1:{server.url.rpartition(':')[2]}/under"
        )
        assert delivered("https://My.example/x", chosen).status == 200
        [call] = server.received
    assert (call.path, call.headers["Host"]) == ("/under/x", "My.example")


@pytest.mark.parametrize(
    "written", ["https://my.example:443", "https://my.example:", "https://MY.example.", "HTTPS://my.example"]
)
def test_the_map_compares_origins_and_not_texts(written: str) -> None:
    with destination() as server:
        chosen = settings(RELAY_DESTINATION_MAP=f"https://my.example={server.url}")
        assert delivered(f"{written}/x", chosen, resolve=Answers("127.0.0.1")).status == 200
        [call] = server.received
    assert call.path == "/x"
    assert call.headers["Host"].lower() in {"my.example", "my.example."}


@pytest.mark.parametrize(
    "url",
    [
        "https://my.example:444/",
        "http://my.example/",
        "https://a.my.example/",
        "https://my.example..",
        "https://u@my.example/",
    ],
)
def test_the_map_changes_no_other_origin(url: str) -> None:
    with destination() as server:
        chosen = settings(RELAY_DESTINATION_MAP=f"https://My.example:443={server.url}")
        assert delivered(url, chosen, resolve=Answers("10.0.0.1")).fate == "not sent"
        assert server.received == []


@pytest.mark.parametrize(
    "path",
    [
        "/../x",
        "/..",
        "/a/../../x",
        "/%2e%2E/x",
        "/.%2e?y",
        "/..%2fx",
        "/a%5c..%5c..",
        "/a\\..\\..",
        "/..;a=b/x",
        "/..#f",
    ],
)
def test_a_path_does_not_leave_the_prefix_of_its_mapped_origin(path: str) -> None:
    with destination() as server:
        chosen = settings(RELAY_DESTINATION_MAP=f"https://my.example={server.url}/under")
        answer = delivered(f"https://my.example{path}", chosen)
        assert (answer.fate, server.received) == ("not sent", [])
    assert "dot segment" in str(answer.error)


@pytest.mark.parametrize("path", ["/a..b", "/...", "/x?y=/../", "/x#/../", "/a/./b", "/%2e"])
def test_a_path_under_its_prefix_is_sent_unchanged(path: str) -> None:
    with destination() as server:
        chosen = settings(RELAY_DESTINATION_MAP=f"https://my.example={server.url}/under")
        assert delivered(f"https://my.example{path}", chosen).status == 200
        [call] = server.received
    assert call.path == "/under" + path.partition("#")[0]


@pytest.mark.parametrize(
    "pairs",
    [
        "https://a.b/c=http://127.0.0.1",
        "https://a.b=http://127.0.0.1/?x",
        "ftp://a.b=http://127.0.0.1",
        "https://a.b=http://c d",
    ],
)
def test_an_invalid_map_is_refused_at_start(pairs: str) -> None:
    with pytest.raises(ValueError, match="RELAY_DESTINATION_MAP"):
        settings(RELAY_DESTINATION_MAP=pairs)


def test_a_proxy_that_refuses_the_tunnel_is_named_in_the_error() -> None:
    async def scenario(_: HttpAttempt) -> Answer:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            right = b"Proxy-Authorization: Basic dTpwOnc=" in head
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % (403 if right else 407))
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
        address = f"http://u:p%3Aw@127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        chosen = settings(RELAY_EGRESS_PROXY=address)
        pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool("", open=False)
        http = HttpAttempt(chosen, Bodies(Chunks(Database(pool)), 1024), tls_context(None), lambda: KEYS[0])
        answer = await http.make(message("https://provider.example/"), 1)
        http.close()
        listening.close()
        return answer

    answer: Answer = with_http(settings(), scenario)
    assert (answer.status, answer.error, answer.fate) == (0, "the proxy answered 403", "not sent")
