"""Runs the commands and programs of the documents in a checkout, as a reader of them does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from stack.jars import class_path, read_lock, repository_of
from stack.ports import free_ports
from stack.screens import running_pid
from tests.acceptance.checkouts import Checkout
from tests.commands import blocks_of, run_by
from tests.wait import patient, until

CONSUME = "docs/how-to/consume-completions.md"


def test_the_readme(checkout: Checkout) -> None:
    submit, consume = run_by("README.md", "test_the_readme")
    terminal = checkout.terminal()
    accepted = json.loads(terminal.run(submit))
    assert accepted["status"] == "queued"
    with terminal.running(consume) as printed:
        until(lambda: re.search(rf"^succeeded {accepted['id']} ", printed.read_text(), re.MULTILINE), 60)


def test_the_articles_curl(checkout: Checkout) -> None:
    [curl] = run_by("README.md", "test_the_articles_curl")
    home = checkout.stack.home
    terminal = checkout.terminal(**{"https://api.openai.com": home.url("provider"), "myapp.com": "receiver.invalid"})
    answer = json.loads(terminal.run(f". .tidings/env\n{curl}"))
    url = f"{home.url('relay')}/v2/logs?messageIds={answer['messageId']}"
    headers = {"Authorization": f"Bearer {home.secrets['relay_token']}"}

    def delivered() -> bool:
        logs = requests.get(url, headers=headers, timeout=10).json()["logs"]
        return "DELIVERED" in {log["state"] for log in logs}

    until(delivered, 30)


def test_submitting_to_a_target(checkout: Checkout) -> None:
    [submit] = run_by("docs/how-to/add-a-target.md", "test_submitting_to_a_target")
    # The stand-in reads the prompt from another field than the provider on the page.
    replaced = {"replicate-flux": "demo-images", '{"input": {"prompt"': '{"prompt"', "}}}'": "}}'"}
    accepted = json.loads(checkout.terminal(**replaced).run(submit))
    assert checkout.stack.ended(accepted["id"])["status"] == "succeeded"


def test_a_submission_with_a_webhook(checkout: Checkout) -> None:
    [submit] = run_by("docs/how-to/receive-webhooks.md", "test_a_submission_with_a_webhook")
    accepted = json.loads(checkout.terminal(**{"example.com": "receiver.invalid"}).run(submit))
    assert accepted["status"] == "queued"


def test_a_backup(checkout: Checkout) -> None:
    [dump] = run_by("docs/how-to/back-up.md", "test_a_backup")
    terminal = checkout.terminal()
    terminal.run(dump)
    listed = terminal.run("pg_restore --list tidings.dump")
    assert "TABLE tidings submissions" in listed
    assert "TABLE relay messages" in listed


def test_a_stuck_submission(checkout: Checkout) -> None:
    set_id, ask_api, ask_relay = run_by("docs/how-to/stuck-submission.md", "test_a_stuck_submission")
    id_ = checkout.stack.submit(latency_seconds=0.1, faults=["500"])
    until(lambda: checkout.stack.shown(id_)["attempts"], 60)
    terminal = checkout.terminal(**{"0199…": id_})
    terminal.run(set_id)
    assert json.loads(terminal.run(ask_api))["id"] == id_
    logs_command = ask_relay.splitlines()[0]
    message_id = json.loads(terminal.run(logs_command))["logs"][0]["messageId"]
    terminal.replaced["msg_…"] = message_id
    logs, letters, message = _documents(terminal.run(ask_relay))
    assert id_ in json.dumps(logs)
    assert letters["messages"] == []
    assert message["messageId"] == message_id


def test_the_programs_that_consume_completions(checkout: Checkout) -> None:
    id_ = checkout.stack.submit()
    [python] = blocks_of(CONSUME, "python")
    [java] = blocks_of(CONSUME, "java")
    terminal = checkout.terminal()
    terminal.run(". .tidings/env")
    (checkout.directory / "completions.py").write_text(python.text)
    with terminal.running(".venv/bin/python completions.py") as printed:
        until(lambda: f"dev.tidings.submission.succeeded {id_}" in printed.read_text(), 60)
    if shutil.which("javac") is None:
        pytest.skip("there is no javac: the program in Java was neither compiled nor run")
    (checkout.directory / "Completions.java").write_text(java.text)
    jars = ":".join(map(str, class_path(read_lock(), repository_of(os.environ))))
    terminal.run(f"javac -cp {jars} Completions.java")
    # The previous program has committed the offsets of its group.
    other = checkout.stack.submit()
    with terminal.running(f"java -Xmx64m -cp .:{jars} Completions") as printed:
        until(lambda: other in printed.read_text(), 60)
        assert id_ not in printed.read_text()


def test_the_program_in_node_is_executed(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    [block] = blocks_of(CONSUME, "javascript")
    for name, text, valid in (("whole", block.text, True), ("broken", block.text.replace("{", "", 1), False)):
        file = tmp_path / f"{name}.mjs"
        file.write_text(text)
        done = subprocess.run([node, "--check", file], capture_output=True, timeout=patient(20), check=False)
        assert (done.returncode == 0) is valid, done.stderr.decode()


def test_expired_changes(checkout: Checkout) -> None:
    stop, drop, resume = run_by("docs/how-to/expired-changes.md", "test_expired_changes")
    stack = checkout.stack
    id_ = stack.submit()
    [first] = stack.completions({id_})[id_]
    terminal = checkout.terminal()
    terminal.run(stop)
    ask = stop.splitlines()[-1]
    until(lambda: json.loads(terminal.run(ask))["connector"]["state"] == "STOPPED", 30)
    until(lambda: stack.count("SELECT count(*) FROM pg_replication_slots WHERE active") == 0, 30)
    terminal.run(drop)
    terminal.run(resume)
    events = until(lambda: found if len(found := stack.completions({id_})[id_]) > 1 else None, 90) or []
    assert {event["headers"]["ce_id"] for event in events} == {first["headers"]["ce_id"]}


def test_the_tutorial(checkout: Checkout) -> None:
    up, submit, look, consume, provide, restart, shout, fail, down = run_by("docs/tutorial.md", "test_the_tutorial")
    orders, provider = blocks_of("docs/tutorial.md", "python")
    [table] = blocks_of("docs/tutorial.md", "toml")
    [port] = map(str, free_ports(1))
    first, second, third = (checkout.terminal(**{"9000": port}) for _ in range(3))
    for name, block in (("orders.py", orders), ("shout.py", provider)):
        (checkout.directory / name).write_text(block.text.replace("9000", port))
    first.run(up, seconds=90)
    accepted = json.loads(first.run(submit))
    assert (accepted["status"], accepted["target"]) == ("queued", "demo-images")
    until(lambda: '"succeeded"' in first.run(look), 30)
    with second.running(consume) as printed:
        until(lambda: re.search(r"^order 7: succeeded, .*/images/", printed.read_text(), re.MULTILINE), 60)
    with (checkout.directory / "targets.toml").open("a") as targets:
        targets.write("\n" + table.text.replace("9000", port))
    with third.running(provide):
        until(lambda: _listens(port), 20)
        first.run(restart, seconds=120)
        assert json.loads(first.run(shout))["status"] == "queued"
        with second.running(consume) as printed:
            until(lambda: "order 8: succeeded, {'text': 'GOOD NEWS'}\n" in printed.read_text(), 60)
            # Its group has committed the first event.
            assert "order 7" not in printed.read_text()
    with second.running(consume) as printed:
        first.run(fail)
        asked = fail.splitlines()[-1]
        until(lambda: '"retrying"' in first.run(asked), 60)
        with third.running(provide):
            until(lambda: "order 9: succeeded, {'text': 'STILL HERE'}\n" in printed.read_text(), 60)
    first.run(down)
    assert running_pid(checkout.stack.home) is None


def _documents(text: str) -> list[Any]:
    """The JSON documents in `text`, which follow each other directly."""
    found: list[Any] = []
    while text.strip():
        content, end = json.JSONDecoder().raw_decode(text.lstrip())
        found.append(content)
        text = text.lstrip()[end:]
    return found


def _listens(port: str) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=2).status_code == 501  # the server has no GET
    except requests.RequestException:
        return False
