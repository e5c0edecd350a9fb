"""docs/reference/events.md and topics.md agree with the contract and the connector."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

from services.dispatcher.message import webhook
from services.notifier.channels import ChannelUse
from services.notifier.held_events import held_record
from tests.infra.rights import Right, listed_rights
from tests.process import ROOT
from tests.unit.test_events import envelope
from tidings.contract.change import ResultChange, decode_result
from tidings.contract.completion import completion, completion_fields, event_type
from tidings.contract.topics import TOPICS, Topic, channel_topic
from tidings.kafka.dead_letters import dead_letter

EVENTS = (ROOT / "docs" / "reference" / "events.md").read_text()
PAGE = (ROOT / "docs" / "reference" / "topics.md").read_text()
PERIODS = {"7 days": 7 * 24 * 3600 * 1000, "1 hour": 3600 * 1000}
TYPES = {"string": str, "integer": int, "object": dict, "null": type(None)}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def change(**changed: object) -> ResultChange:
    found = decode_result(envelope("c", **changed))
    assert found is not None
    return found


def test_the_headers_of_an_event_are_those_of_the_page() -> None:
    names = [name for name, _ in completion(change(traceparent=TRACE), "http://x").headers]
    assert _first_cells(EVENTS, "header") == names
    without = {name for name, _ in completion(change(), "http://x").headers}
    absent = re.findall(r"^\| `([^`]+)` \| .*absent when", EVENTS, re.MULTILINE)
    assert absent == [name for name in names if name not in without]


def test_the_types_of_events_are_those_of_all_outcomes() -> None:
    sql = (ROOT / "migrations" / "0002_tables.sql").read_text()
    [outcomes] = re.findall(r"CHECK \(outcome IN \(([^)]+)\)\)", sql)
    assert _first_cells(EVENTS, "type") == [event_type(outcome) for outcome in re.findall(r"'(\w+)'", outcomes)]


@pytest.mark.parametrize(
    "made",
    [change(), change(body_size=None, status_code=None, output=None, reason="x", channel="a", metadata=None)],
)
def test_the_fields_of_an_event_are_those_of_the_page_with_their_types(made: ResultChange) -> None:
    fields = completion_fields(made, "http://x")
    flat = fields | {f"result.{name}": value for name, value in (fields["result"] or {}).items()}
    rows = re.findall(r"^\| `([a-z_.0-9]+)` \| ([a-z A-Z]+) \| .+ \|$", EVENTS, re.MULTILINE)
    named = [name for name, _ in rows]
    assert [name for name in named if "." not in name] == list(fields)
    assert {name for name in flat if "." in name} <= set(named)
    for name, types in rows:
        if name in flat and types != "any JSON":
            assert isinstance(flat[name], tuple(TYPES[each] for each in types.split(" or "))), name


def test_the_example_of_an_event_has_each_field_and_no_other() -> None:
    [example] = re.findall(r"^```json\n(.*?)^```", EVENTS, re.MULTILINE | re.DOTALL)
    fields = completion_fields(change(), "http://x")
    shown = json.loads(example)
    assert (list(shown), list(shown["result"])) == (list(fields), list(fields["result"]))


def test_the_body_of_a_webhook_has_the_fields_of_the_page() -> None:
    body = json.loads(webhook(change(), "http://x", SECRET, int(datetime.now(UTC).timestamp())).body)
    assert _first_cells(EVENTS, "field", after="## As a webhook") == list(body)
    assert body["data"] == completion_fields(change(), "http://x")


def test_the_table_of_topics_is_that_of_the_contract() -> None:
    example = channel_topic("x")
    assert example is not None
    channels = Topic("tidings.completions.<channel>", example.partitions, example.retention_ms)
    shown = {Topic(name, int(partitions), PERIODS[kept]) for name, partitions, kept, *_ in _topics()}
    assert shown == {*TOPICS, channels}


def test_each_writer_of_a_topic_has_the_right_to_write_and_no_other_process_has_it() -> None:
    for name, _, _, _, writers, _ in _topics():
        allowed = [process for process, rights in listed_rights().items() if _may(rights, "WRITE", name)]
        assert sorted(_words(writers)) == sorted(allowed), name


def test_each_reader_of_a_topic_has_the_right_to_read_and_each_process_with_that_right_alone_is_a_reader() -> None:
    for name, _, _, _, _, readers in _topics():
        assert set(_words(readers)) <= listed_rights().keys(), name
        for process, rights in listed_rights().items():
            if process in _words(readers):
                assert _may(rights, "READ", name), (name, process)
            else:
                assert Right("topic", name, "READ") not in rights, (name, process)


def test_the_headers_of_held_events_and_dead_letters_are_listed() -> None:
    event = completion(change(), "http://x")
    held = held_record(event, ChannelUse("team-a", "default"))
    added = [name for name, _ in held.headers if name not in dict(event.headers)]
    record = type("Record", (), {"topic": "t", "partition": 0, "offset": 1, "key": b"k", "value": b"v"})
    letter = [name for name, _ in dead_letter(record, "odd").headers]
    for topic, names in (("tidings.channel-events", added), ("tidings.dead-letters", letter)):
        [row] = re.findall(rf"^\| `{re.escape(topic)}` \| ([^|]*[a-z] [^|]*headers[^|]*) \|$", PAGE, re.MULTILINE)
        assert re.findall(r"`([a-z-]+)`", row.partition("headers")[2]) == names


def test_the_columns_of_the_changes_are_those_of_the_connector() -> None:
    connector = json.loads((ROOT / "debezium" / "connector.json").read_text())
    columns: dict[str, list[str]] = {}
    for part in re.split(r",(?=tidings)", connector["column.include.list"]):
        table, names = re.fullmatch(r"tidings\\\.(\w+)\\\.\(?([\w|]+)\)?", part).groups()  # type: ignore[union-attr]
        columns[table] = names.split("|")
    for table in ("submission", "result"):
        assert set(columns.pop(f"{table}_nudges")) == {"nudged_at", *columns[f"{table}s"]}
    shown = re.findall(r"^\| `tidings\.cdc\.(\w+)` \| ([^|]+) \|$", PAGE.partition("## Columns")[2], re.MULTILINE)
    assert {table: re.findall(r"`(\w+)`", names) for table, names in shown} == columns


def _topics() -> list[tuple[str, str, str, str, str, str]]:
    pattern = r"^\| `(tidings[^`]+)` \| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ?([^|]*?) ?\|$"
    return re.findall(pattern, PAGE, re.MULTILINE)


def _words(cell: str) -> list[str]:
    return re.findall(r"\w+", cell)


def _may(rights: frozenset[Right], operation: str, topic: str) -> bool:
    return any(
        right.resource == "topic" and right.operation == operation
        and (right.name == topic or (right.name.endswith("*") and topic.startswith(right.name[:-1])))
        for right in rights
    )  # fmt: skip


def _first_cells(text: str, head: str, *, after: str = "") -> list[str]:
    """The first cells of the first table after `after` whose first heading is `head`."""
    part = text.partition(after)[2] if after else text
    [table] = re.findall(rf"^\| {re.escape(head)} \|.*\n((?:\|.*\n)+)", part, re.MULTILINE)[:1]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
