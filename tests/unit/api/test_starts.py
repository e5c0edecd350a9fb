"""Which reported starts of attempts are accepted, and the status of a submission that has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from services.api.presentation import StartedAttempt, derived_status, running_attempt
from services.api.problem import ProblemError
from services.api.starts import STARTS_BYTES_MAX, STARTS_MAX, authentic_starts, read_starts

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ID = "01920000-0000-7000-8000-000000000001"


def told(**changed: Any) -> dict[str, Any]:
    start = {"messageId": "m", "label": ID, "retried": 0, "startedAt": 1_700_000_000_000, "data": f"token of {ID}"}
    return start | changed


def rows(*starts: Any) -> list[tuple[str, int]]:
    found = authentic_starts(
        read_starts(orjson.dumps({"starts": starts})), lambda token, id_: token == f"token of {id_}"
    )
    return [(str(start.submission_id), start.number) for start in found]


def test_a_start_with_the_dispatchers_token_is_accepted() -> None:
    assert rows(told(), told(retried=4)) == [(ID, 1), (ID, 5)]


@pytest.mark.parametrize(
    "changed",
    [{"data": "token of another"}, {"data": ""}, {"label": None}, {"label": "no id"}, {"label": f"{{{ID}}}"}],
)
def test_a_start_without_the_token_is_left_out_and_the_others_are_accepted(changed: dict[str, Any]) -> None:
    assert rows(told(**changed), told(retried=1)) == [(ID, 2)]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"{}", b'{"starts": {}}', b'{"starts": [1]}',
        *(orjson.dumps({"starts": [told(**wrong)]}) for wrong in (
            {"retried": -1}, {"retried": 1_000_000}, {"startedAt": -1}, {"startedAt": 10**18}, {"startedAt": None},
        )),
        orjson.dumps({"starts": [told()] * (STARTS_MAX + 1)}),
    ],
)  # fmt: skip
def test_an_invalid_body_is_refused(raw: bytes) -> None:
    with pytest.raises(ProblemError) as refused:
        read_starts(raw)
    assert refused.value.status == 400


def test_the_largest_body_of_the_relay_is_accepted() -> None:
    # A label of 256 characters and data of 256 bytes, each of which becomes \\u0001.
    largest = told(messageId="msg_" + "0" * 32, label="\x01" * 256, data="\x01" * 256, retried=1000)
    assert STARTS_BYTES_MAX / 2 < len(orjson.dumps({"starts": [largest] * STARTS_MAX})) < STARTS_BYTES_MAX


def attempt(number: int, retry_in: float | None = None) -> dict[str, Any]:
    return {"number": number, "retry_at": None if retry_in is None else NOW + timedelta(seconds=retry_in)}


@pytest.mark.parametrize(
    ("outcome", "attempts", "begun", "status"),
    [
        (None, [], None, "queued"),
        (None, [], 1, "running"),
        (None, [attempt(1, 60)], None, "retrying"),
        # Its start was reported late, or twice.
        (None, [attempt(1, 60)], 1, "retrying"),
        (None, [attempt(1, 60)], 2, "running"),
        # The report of the second start was lost.
        (None, [attempt(1, 60), attempt(2, 60)], 1, "retrying"),
        (None, [attempt(1, -60)], 1, "running"),
        (None, [attempt(1)], None, "running"),
        ("cancelled", [], 1, "cancelled"),
        ("succeeded", [attempt(1)], 2, "succeeded"),
    ],
)
def test_the_status_with_and_without_an_attempt_in_progress(
    outcome: str | None, attempts: list[dict[str, Any]], begun: int | None, status: str
) -> None:
    start = None if begun is None else StartedAttempt(begun, NOW)
    assert derived_status(outcome, attempts, start, NOW) == status
    running = running_attempt(outcome, attempts, start)
    assert running == (start if status == "running" and (begun or 0) > len(attempts) else None)
