"""The home of a stack: its folder, its ports, its secrets and its addresses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stack.environment import write_private
from stack.errors import StackError
from stack.postgres import account, reachable

ROOT = Path(__file__).resolve().parent.parent

PORTS = {
    "api": 8000,
    "dispatcher": 8001,
    "notifier": 8002,
    "watcher": 8003,
    "internal": 8004,
    "reconciler": 8005,
    "relay": 8080,
    "provider": 8090,
    "postgres": 15432,
    "kafka": 19092,
    "controller": 19093,
    "connect": 18083,
}
_SECRETS = (
    "postgres", "api", "cdc", "stream", "relay", "reconciler", "api_key", "internal_token", "relay_token",
    "current_signing_key", "next_signing_key", "encryption_key", "webhook_secret", "connect",
)  # fmt: skip
_MADE = ("connect", "env", "kafka", "log", "postgres", "secrets.json", "stack.pid", "start.lock", "steps.jsonl")
# Root's checkout is often in a folder that no other user may enter, such as /root.
ELSEWHERE = Path("/var/lib/tidings-native")


@dataclass(frozen=True)
class Home:
    """One stack: `directory` contains all of its state."""

    directory: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def steps(self) -> Path:
        return self.directory / "steps.jsonl"

    @property
    def start_lock(self) -> Path:
        return self.directory / "start.lock"

    @property
    def pid_file(self) -> Path:
        return self.directory / "stack.pid"

    @property
    def postgres(self) -> Path:
        """The path of Postgres' data, existing or not: in the home, unless the home belongs to root and is closed to
        the user that Postgres then runs as. Existing data are never moved, even if the permissions of the folders
        above change.
        """
        inside = self.directory / "postgres"
        outside = ELSEWHERE / hashlib.sha256(str(self.directory).encode()).hexdigest()[:16]
        for path in (inside, outside):
            if path.exists():
                return path
        return inside if account() is None or reachable(self.directory) else outside

    @property
    def is_there(self) -> bool:
        """False after a reset, which deletes the secrets."""
        return (self.directory / "secrets.json").exists()

    @property
    def env_file(self) -> Path:
        return self.directory / "env"

    def delete(self) -> bool:
        """Delete the files of a stack, and the folder too unless it contains other files; return whether the folder is
        deleted.

        Other files are kept: a user may set `TIDINGS_HOME` to an existing folder of their own.
        """
        for path in [self.postgres, *(self.directory / name for name in _MADE)]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        try:
            self.directory.rmdir()
        except OSError:
            return False
        return True

    def url(self, process: str) -> str:
        return f"http://127.0.0.1:{self.ports[process]}"

    def database_url(self, role: str, secret: str) -> str:
        return f"postgresql://{role}:{self.secrets[secret]}@127.0.0.1:{self.ports['postgres']}/tidings"

    def public_environment(self) -> dict[str, str]:
        """Return the content of `.tidings/env`, for users, tests and scripts."""
        return {
            "TIDINGS_API_URL": self.url("api"),
            "TIDINGS_API_KEY": self.secrets["api_key"],
            "TIDINGS_DATABASE_URL": self.database_url("postgres", "postgres"),
            "TIDINGS_KAFKA": f"127.0.0.1:{self.ports['kafka']}",
            "TIDINGS_CONNECT_URL": self.url("connect"),
            "TIDINGS_CONNECT_PASSWORD": self.secrets["connect"],
            "QSTASH_URL": self.url("relay"),
            "QSTASH_TOKEN": self.secrets["relay_token"],
            "QSTASH_CURRENT_SIGNING_KEY": self.secrets["current_signing_key"],
            "QSTASH_NEXT_SIGNING_KEY": self.secrets["next_signing_key"],
            "TIDINGS_PROVIDER_URL": self.url("provider"),
        }

    def write_env_file(self) -> None:
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in self.public_environment().items()]
        write_private(self.env_file, "".join(lines))


def open_home(environment: Mapping[str, str]) -> Home:
    """Open the home that `TIDINGS_HOME` and `TIDINGS_PORT_*` describe; create it, with new secrets, if it does not
    exist.

    Raises `StackError` for an invalid port.
    """
    ports = {name: _port(f"TIDINGS_PORT_{name.upper()}", port, environment) for name, port in PORTS.items()}
    directory = Path(environment.get("TIDINGS_HOME", ROOT / ".tidings")).resolve()
    (directory / "log").mkdir(parents=True, exist_ok=True)
    (directory / "log").chmod(0o700)
    # If the stack runs as root, Postgres runs as another user and must pass through to its own folder.
    directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return Home(directory, ports, _secrets(directory / "secrets.json"))


def _port(variable: str, default: int, environment: Mapping[str, str]) -> int:
    text = environment.get(variable, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise StackError(f"{variable} must be a port, a number from 1 to 65535")
    return int(text)


def _secrets(path: Path) -> dict[str, str]:
    """Return the secrets in the file, and new ones for names that the file lacks, for example because an earlier
    version wrote it.
    """
    made = {name: secrets.token_urlsafe(32) for name in _SECRETS}
    made["encryption_key"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    made["webhook_secret"] = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    kept = dict(json.loads(path.read_text())) if path.exists() else {}
    if kept.keys() < made.keys():
        kept = made | kept
        write_private(path, json.dumps(kept))
    return kept
