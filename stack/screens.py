"""The output for a person: the steps of a start, the table of processes, the progress of a submission."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from kafka import KafkaConsumer
from kafka.structs import TopicPartition
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from stack.errors import StackError
from stack.home import ROOT, Home
from stack.lock import deleted, held, holder
from stack.ports import listens
from stack.servers import answers

START_SECONDS_MAX = 600.0
STOP_SECONDS_MAX = 60.0
COMPLETION_SECONDS_MAX = 120.0


def running_pid(home: Home) -> int | None:
    """Return the process id of the supervisor if it is alive."""
    return holder(home.pid_file)


def up(home: Home, console: Console) -> None:
    """Start the stack in the background unless it runs; return when all is healthy.

    Raises `StackError`; no part of the stack runs then.
    """
    with exclusively(home):
        if running_pid(home) is not None:
            console.print("already running")
            return
        _start(home, console)


@contextmanager
def exclusively(home: Home, *, seconds: float = START_SECONDS_MAX) -> Iterator[None]:
    """Prevent others from starting or deleting the stack. Raises `StackError` if another process does so for longer
    than `seconds`, and if the home was deleted while this process waited.
    """
    with held(home.start_lock, seconds=seconds):
        if not home.is_there:
            raise deleted(home.directory)
        yield


def _start(home: Home, console: Console) -> None:
    home.steps.unlink(missing_ok=True)
    with (home.log / "supervisor.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack", "run"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        follow(home, console, process)
    except StackError as error:
        try:
            down(home)  # a partial stack is useless, and would block the next start
        except StackError as left:
            raise StackError(f"{error}\n{left}") from None
        raise


def follow(home: Home, console: Console, process: subprocess.Popen[bytes]) -> None:
    """Display the steps until the stack is ready. Raises `StackError` with the reason if a step fails."""
    deadline = time.monotonic() + START_SECONDS_MAX
    seen = 0
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")
        while time.monotonic() < deadline:
            lines = home.steps.read_text().splitlines() if home.steps.exists() else []
            for text in lines[seen:]:
                line = json.loads(text)
                if line["state"] == "begun":
                    progress.update(task, description=line["step"])
                elif line["state"] == "done":
                    console.print(f"  [green]✓[/] {line['step']:<44} {line['seconds']:>6.1f} s", highlight=False)
                elif line["state"] == "failed":
                    raise StackError(line["reason"])
                else:
                    return
            seen = len(lines)
            if process.poll() is not None and seen == len(lines):
                tail = (home.log / "supervisor.log").read_text().splitlines()[-5:]
                raise StackError("the stack ended while starting:\n" + "\n".join(tail))
            time.sleep(0.05)
    raise StackError(f"not ready after {START_SECONDS_MAX:.0f} s")


def down(home: Home) -> bool:
    """Stop the stack and wait until it is gone; return false if none ran."""
    pid = running_pid(home)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while running_pid(home) is not None:
        if time.monotonic() > deadline:
            raise StackError(f"process {pid} does not stop; see {home.log}/supervisor.log")
        time.sleep(0.05)
    return True


def reset(home: Home, *, seconds: float = STOP_SECONDS_MAX) -> bool:
    """Stop the stack and delete its files; return false if its folder contains other files, which are kept. Raises
    `StackError`.
    """
    down(home)  # a start in progress ends with it
    with exclusively(home, seconds=seconds):
        down(home)
        return home.delete()


def status(home: Home, console: Console) -> int:
    """Print the table; return 0 if all is healthy."""
    table = Table("process", "address", "state")
    probes = dict.fromkeys(("api", "relay", "dispatcher", "notifier", "watcher", "reconciler"), "/readyz")
    probes |= {"provider": "/healthz", "connect": "/connectors"}
    logins = {"connect": home.secrets["connect"]}
    states = [(name, home.url(name), answers(home.url(name) + path, logins.get(name))) for name, path in probes.items()]
    # These servers do not speak HTTP: from outside only a listening port is visible.
    states += [(name, f"127.0.0.1:{home.ports[name]}", listens(home.ports[name])) for name in ("postgres", "kafka")]
    for name, address, healthy in states:
        table.add_row(name, address, "[green]ready[/]" if healthy else "[red]not ready[/]")
    console.print(table)
    return 0 if all(healthy for _, _, healthy in states) else 1


def demonstrate(home: Home, console: Console, prompt: str) -> None:
    """Submit a prompt, follow it, and print its event from the Kafka topic. Raises `StackError`."""
    consumer = _consumer_at_end(home)
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {home.secrets['api_key']}"
    content = {"target": "demo-images", "input": {"prompt": prompt, "size": "512x512"}}
    answer = session.post(f"{home.url('api')}/v1/submissions", json=content, timeout=30)
    if answer.status_code != 202:
        raise StackError(f"the api answered {answer.status_code}: {answer.text[:300]}")
    submission = answer.json()
    console.print(f"\nsubmitted [bold]{prompt}[/] → 202, id {submission['id']}\n", highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    deadline = time.monotonic() + COMPLETION_SECONDS_MAX
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("the provider is working; no thread waits for it")
        while time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    if record.key == submission["id"].encode():
                        progress.stop()
                        _show(home, console, record)
                        consumer.close()
                        return
            shown = session.get(f"{home.url('api')}{submission['links']['self']}", timeout=30).json()
            progress.update(task, description=f"{shown['status']}; no thread waits for it")
    raise StackError(f"no completion within {COMPLETION_SECONDS_MAX:.0f} s; see {home.log}/processes.log")


def _consumer_at_end(home: Home) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=f"127.0.0.1:{home.ports['kafka']}",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    topic = "tidings.completions"
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
    if not partitions:
        raise StackError("the topic tidings.completions does not exist")
    consumer.assign(partitions)
    consumer.seek_to_end()
    for partition in partitions:
        consumer.position(partition)
    return consumer


def _show(home: Home, console: Console, record: object) -> None:
    headers = {name: value.decode() for name, value in record.headers}  # type: ignore[attr-defined]
    event = json.loads(record.value)  # type: ignore[attr-defined]
    console.print(f"[green]tidings[/] on tidings.completions: [bold]{headers['ce_type']}[/]", highlight=False)
    console.print_json(json.dumps(event))
    images = (event.get("output") or {}).get("data") or []
    if images:
        console.print(f"\nthe picture: {images[0].get('url')}", highlight=False, soft_wrap=True)
    console.print(
        f"\napi {home.url('api')}   relay {home.url('relay')}   Kafka 127.0.0.1:{home.ports['kafka']}"
        f"\nkeys and addresses for your shell: . {home.env_file}",
        highlight=False,
        soft_wrap=True,
    )
