"""The models of requests."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.api.models import NewSubmission, is_plainly_private


def webhook(url: str) -> str | None:
    return NewSubmission.model_validate({"target": "t", "input": 1, "webhook": url}).webhook


@pytest.mark.parametrize("url", ["https://hooks.example/a?b=c", "http://127.0.0.1:8000", "https://[::1]:1/x"])
def test_a_webhook_is_a_valid_address(url: str) -> None:
    assert webhook(url) == url


@pytest.mark.parametrize(
    "url",
    ["https://x:99999/", "https://x:0/", "https://x:y/", "https://x/\r\nX-Other: 1", "https://x/a b", "https://u:p@x",
     "ftp://x", "//x", "https://", "https://[::1", "x" * 3000],
)  # fmt: skip
def test_an_address_that_the_relay_could_not_call_is_refused_at_the_request(url: str) -> None:
    with pytest.raises(ValidationError) as raised:
        webhook(url)
    assert [fault["loc"] for fault in raised.value.errors()] == [("webhook",)]


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True), ("10.1.2.3:8083", True), ("169.254.169.254", True), ("[::1]:8000", True), ("[fd00::1]", True),
        ("localhost", True), ("LOCALHOST.:80", True), ("api.localhost", True), ("connect:8083", True),
        ("hooks.example", False), ("hooks.example.", False), ("1.1.1.1", False), ("[2606:4700::1111]", False),
    ],
)  # fmt: skip
def test_an_address_that_is_private_by_its_name_is_recognized(host: str, private: bool) -> None:
    assert is_plainly_private(f"http://{host}/hook") is private
