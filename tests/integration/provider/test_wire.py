"""The stand-in's HTTP interface: OpenAI's formats, each requested fault, and the count of calls."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from stack.ports import free_ports
from tests.process import Process, started

IMAGES, CHAT = "/v1/images/generations", "/v1/chat/completions"


class Client:
    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = "Bearer x"

    def post(self, path: str, content: Any) -> requests.Response:
        return self._session.post(self.url + path, json=content, timeout=10)

    def get(self, path: str) -> requests.Response:
        return self._session.get(self.url + path, timeout=10)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {"PROVIDER_LISTEN": f"127.0.0.1:{port}", "PROVIDER_LATENCY_SECONDS": "0"}
    log = tmp_path_factory.mktemp("provider") / "provider.log"
    with started(Process("examples.provider", environment, log, ready_url=f"{url}/healthz")):
        yield Client(url)


def test_pictures_are_real_and_differ_by_url_and_inline(provider: Client) -> None:
    data = provider.post(IMAGES, {"prompt": "a", "n": 2}).json()["data"]
    inline = provider.post(IMAGES, {"prompt": "a", "n": 2, "response_format": "b64_json"}).json()["data"]
    pictures = [requests.get(item["url"], timeout=10).content for item in data]
    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in pictures)
    assert len(set(pictures)) == 2
    assert [base64.b64decode(item["b64_json"]) for item in inline] == pictures


def test_a_chat_answers_in_openais_form(provider: Client) -> None:
    answer = provider.post(CHAT, {"model": "m", "messages": [{"role": "user", "content": "hello"}]}).json()
    assert answer["object"] == "chat.completion"
    assert "hello" in answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [("429", 429, "Retry-After"), ("429-reset", 429, "x-ratelimit-reset-requests"), ("500", 500, "Content-Type"),
     ("503", 503, "Content-Type"), ("400", 400, "Content-Type"), ("200-error", 200, "Content-Type")],
)  # fmt: skip
def test_a_fault_happens_as_often_as_requested(provider: Client, fault: str, status: int, header: str) -> None:
    content = {"prompt": "a", "x_provider": {"faults": [fault], "call_id": fault}}
    first, second = (provider.post(IMAGES, content) for _ in range(2))
    assert (first.status_code, second.status_code) == (status, 200)
    assert header in first.headers
    assert "error" in first.json()
    assert "data" in second.json()
    counted = provider.get(f"/calls/{fault}").json()
    assert (counted["received"], counted["answered"]) == (2, 2)


def test_a_cut_connection_is_counted_as_cut(provider: Client) -> None:
    with pytest.raises(requests.ConnectionError):
        provider.post(IMAGES, {"prompt": "a", "x_provider": {"faults": ["cut"], "call_id": "cut"}})
    counted = provider.get("/calls/cut").json()
    assert (counted["received"], counted["answered"], counted["cut"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("path", "content"),
    [(IMAGES, {}), (IMAGES, []), (IMAGES, {"prompt": 1}), (IMAGES, {"prompt": "a", "n": "two"}),
     (IMAGES, {"prompt": "a", "n": [1]}), (IMAGES, {"prompt": "a", "x_provider": 3}), (CHAT, {"messages": []}),
     (CHAT, {"messages": ["hello"]})],
)  # fmt: skip
def test_a_request_that_openai_would_refuse_is_400_with_an_error(provider: Client, path: str, content: Any) -> None:
    answer = provider.post(path, content)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
