"""What other programs and users of this machine can read of a running stack: environments, files, and Connect's REST."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import requests

from tests.acceptance.stacks import PROVIDER_KEY, Stack
from tests.wait import until

KAFKA = {"PATH", "HOME", "LANG", "TIDINGS_JAVA_LOG_LEVEL"}
# The variables that each server that is not ours may have. Postgres' programs add PG* and LC_* for the postmaster, and
# a shell adds PWD.
SERVERS = {
    "kafka.Kafka": KAFKA,
    "org.apache.kafka.connect.cli.ConnectDistributed": KAFKA | {"TIDINGS_CDC_DATABASE_PASSWORD"},
    "postgres": {"PATH", "LANG", "TZ", "PWD"},
}
VALIDATE = "connector-plugins/io.debezium.connector.postgresql.PostgresConnector/config/validate"


def test_only_the_dispatcher_and_the_supervisor_have_a_providers_key(stack: Stack) -> None:
    holders = {_name(p) for p, environment in _environments(stack) if PROVIDER_KEY in environment.values()}
    # The supervisor passes it to the dispatcher. All of the supervisor's processes have `stack run` in their command
    # line.
    assert holders == {"services.dispatcher", "stack"}


def test_servers_get_only_the_variables_that_they_need(stack: Stack) -> None:
    seen = set()
    for process, environment in _environments(stack):
        name = _name(process)
        if name in SERVERS:
            seen.add(name)
            given = {key for key in environment if not key.startswith(("PG", "LC_"))}
            assert given <= SERVERS[name], name
    assert seen == set(SERVERS)


def test_nothing_that_a_stack_writes_is_readable_by_other_users(stack: Stack) -> None:
    id_ = stack.submit("a private prompt")
    stack.completions({id_})
    home = stack.home.directory
    paths = [path for path in home.rglob("*") if not path.is_symlink()]
    # Postgres' user passes through the home to its own folder, so the home can be entered and not listed.
    assert home.stat().st_mode & 0o077 in {0o011, 0}
    assert [str(path) for path in paths if _mode(path) & 0o077] == []
    kinds = ["kafka/data/*/*.log", "log/processes.log", "connect/connect.log", "postgres/postgres.log", "secrets.json"]
    assert [kind for kind in kinds if not list(home.glob(kind))] == []


def test_secrets_are_readable_by_their_owner_alone_and_in_no_log(stack: Stack) -> None:
    home = stack.home
    for path in (home.env_file, home.directory / "secrets.json"):
        assert path.stat().st_mode & 0o077 == 0
    assert stack.command("status").returncode == 0
    logs = list(Path(home.directory).rglob("*.log"))
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert [name for name, value in home.secrets.items() if value in text] == [], path


def test_connects_rest_shows_no_password_without_authentication(stack: Stack) -> None:
    connect = stack.home.url("connect")
    asked = {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "${env:TIDINGS_CDC_DATABASE_PASSWORD}",
    }
    for login in (None, ("tidings", "wrong"), ("tidings", "")):
        answers = [
            requests.put(f"{connect}/{VALIDATE}", json=asked, auth=login, timeout=30),
            requests.get(f"{connect}/connectors", auth=login, timeout=30),
            requests.post(f"{connect}/connectors/tidings/restart", auth=login, timeout=30),
        ]
        assert [answer.status_code for answer in answers] == [401] * 3
        assert [answer for answer in answers if stack.home.secrets["cdc"] in answer.text] == []
    # With the password, Connect repeats the invalid value in its answer, which is why its REST needs one.
    login = ("tidings", stack.home.public_environment()["TIDINGS_CONNECT_PASSWORD"])
    assert requests.get(f"{connect}/connectors", auth=login, timeout=30).json() == ["tidings"]
    answer = requests.put(f"{connect}/{VALIDATE}", json=asked, auth=login, timeout=30)
    assert stack.home.secrets["cdc"] in answer.text


def _environments(stack: Stack) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """All running processes of the stack."""
    supervisor = psutil.Process(int(stack.home.pid_file.read_text()))
    pid = (stack.home.directory / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0]
    postmaster = psutil.Process(int(pid))
    until(lambda: len(supervisor.children(recursive=True)) > 10)
    for root in (supervisor, postmaster):
        for process in [root, *root.children(recursive=True)]:
            try:
                yield process, process.environ()
            except psutil.NoSuchProcess:
                continue


def _name(process: psutil.Process) -> str:
    """The Python module or Java class of a process, without its supervisor, or the name of its program."""
    words: list[str] = process.cmdline()
    if "stack.respawn" in words:
        return words[words.index("-m", 3) + 1]
    known = [word for word in words if word in SERVERS or word.startswith(("services.", "examples."))]
    return known[0] if known else "stack" if "stack" in words else Path(words[0].split(":")[0]).name


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError:  # Kafka and Postgres delete files during the walk
        return 0
