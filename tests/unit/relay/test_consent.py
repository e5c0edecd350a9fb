"""Which bulk requests mean all messages, and which lack their filter by mistake."""

from __future__ import annotations

import pytest

from services.relay.api.consent import BulkWithoutFilter, bulk_filters, list_filters
from services.relay.protocol.filters import Filters, Route
from services.relay.protocol.invalid import InvalidRequestError

PYTHON = {"User-Agent": "python-httpx/0.28.1"}
CURL = {"User-Agent": "curl/8.7.1"}


def chosen(
    query: str = "", body: bytes = b"", headers: dict[str, str] | None = None, rule: BulkWithoutFilter = "clients"
) -> Filters | None:
    return bulk_filters(Route.MESSAGES_BULK, query, body, headers or CURL, rule)


def test_a_filter_needs_no_consent() -> None:
    assert chosen("label=a,b&label=c") == Filters(label=("a", "b", "c"))
    assert chosen(body=b'{"messageIds":["msg_1","msg_2"]}') == Filters(message_ids=("msg_1", "msg_2"))


@pytest.mark.parametrize("rule", ["clients", "off"])
def test_without_a_filter_it_is_refused(rule: BulkWithoutFilter) -> None:
    with pytest.raises(InvalidRequestError, match="all=true"):
        chosen(rule=rule)


@pytest.mark.parametrize("rule", ["on", "clients", "off"])
def test_all_means_all(rule: BulkWithoutFilter) -> None:
    assert chosen("all=true", rule=rule) == Filters(all=True)
    assert chosen(body=b'{"all":true}', rule=rule) == Filters(all=True)


def test_the_count_that_the_javascript_client_sends_for_all_is_consent() -> None:
    assert chosen("count=100", headers={"User-Agent": "node"}) == Filters(count=100)


@pytest.mark.parametrize("agent", ["python-httpx/0.28.1", "node", "Bun/1.2.0"])
def test_the_bare_request_of_a_vendors_client_is_consent_unless_switched_off(agent: str) -> None:
    assert chosen(headers={"User-Agent": agent}) == Filters()
    with pytest.raises(InvalidRequestError):
        chosen(headers={"User-Agent": agent}, rule="off")


def test_the_bare_request_of_any_client_is_consent_where_the_operator_says_so() -> None:
    assert chosen(rule="on") == Filters()


@pytest.mark.parametrize("query", ["label=", "messageIds=", "label=&count=100"])
def test_an_empty_filter_is_a_mistake_of_any_client(query: str) -> None:
    with pytest.raises(InvalidRequestError, match="is empty"):
        chosen(query, headers=PYTHON, rule="on")


def test_an_empty_list_of_ids_selects_nothing() -> None:
    assert chosen(body=b'{"messageIds":[]}', headers=PYTHON, rule="on") is None


def test_ids_are_bounded() -> None:
    ids = ",".join(f"msg_{n}" for n in range(501))
    with pytest.raises(InvalidRequestError, match="more than 500 ids"):
        chosen(f"messageIds={ids}")


@pytest.mark.parametrize("query", ["label=a%00b", "url=http://a/\udcff"])
def test_a_value_that_the_database_cannot_hold_is_refused(query: str) -> None:
    with pytest.raises(InvalidRequestError):
        chosen(query)


def test_a_cursor_in_milliseconds_is_the_latest_time() -> None:
    assert list_filters(Route.EVENTS, "cursor=1700000000000&count=7").to_ms == 1_700_000_000_000
    filters = list_filters(Route.EVENTS, "cursor=1700000000000&toDate=5&label=a%26b")
    assert (filters.to_ms, filters.cursor, filters.label) == (5, None, ("a&b",))
