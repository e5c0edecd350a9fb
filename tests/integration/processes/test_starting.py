"""A fault that prevents a process's start is reported in one sentence, and the process ends."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from stack.ports import free_ports
from tests.integration.processes.conftest import LISTENS, Make, nobody


@pytest.mark.parametrize("module", LISTENS)
def test_a_port_in_use_is_reported_in_one_sentence_and_ends_the_process(make: Make, module: str) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = make(module, nobody(), port)
        process.ready_url = None
        assert process.start().wait(60) not in {0, -9}
    said = [line for line in process.log.read_text().splitlines() if not line.startswith("{")]
    assert said == [f"{LISTENS[module]}: cannot listen on 127.0.0.1:{port}: Address already in use"], said


@pytest.mark.parametrize("secret", ["whsec_not base64!", "whsec_", "whsec_abc"])
def test_a_webhook_secret_with_invalid_base64_is_refused_at_the_start(make: Make, secret: str) -> None:
    process = make("services.dispatcher", nobody(), free_ports(1)[0], TIDINGS_WEBHOOK_SECRET=secret)
    process.ready_url = None
    assert process.start().wait(60) == 78
    text = process.log.read_text()
    assert "TIDINGS_WEBHOOK_SECRET" in text
    assert secret.removeprefix("whsec_") not in text or secret == "whsec_"
