"""The jars of debezium/jgo.lock.toml: found or downloaded. The SHA-256 of each is compared before it is run."""

from __future__ import annotations

import fcntl
import hashlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

LOCK = Path(__file__).resolve().parent.parent / "debezium" / "jgo.lock.toml"

# A download mostly waits, so several run at once; more than this would burden Maven Central.
_FETCHES_AT_ONCE = 8
_FETCH_SECONDS_MAX = 60


@dataclass(frozen=True)
class Jar:
    """One entry of the lock file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> Path:
        """The path of the jar in a Maven repository."""
        return Path(*self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar")


Fetch = Callable[[Jar, Path], None]


def read_lock(lock: Path = LOCK) -> tuple[Jar, ...]:
    entries = tomllib.loads(lock.read_text())["dependencies"]
    return tuple(Jar(each["groupId"], each["artifactId"], each["version"], each["sha256"]) for each in entries)


def repository_of(environment: Mapping[str, str]) -> Path:
    """Return the folder of the jars for all checkouts of this user: a cache, which may be deleted at any time."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidings" / "maven"


def class_path(jars: Iterable[Jar], repository: Path, *, fetch: Fetch | None = None) -> tuple[Path, ...]:
    """Return the paths of all `jars` in `repository`, in the order of the lock file; missing or damaged ones are
    downloaded there once.

    No network access takes place if all exist. Raises `StackError` naming the jar that differs from the lock file.
    """
    jars = tuple(jars)
    if any(not _is_intact(jar, repository) for jar in jars):
        with _only_file_in(repository), ThreadPoolExecutor(_FETCHES_AT_ONCE) as pool:
            list(pool.map(lambda jar: _provide(jar, repository, fetch or fetch_from_central), jars))
    return tuple(repository / jar.path for jar in jars)


def missing(jars: Iterable[Jar], repository: Path) -> int:
    """Return the number of jars to download, judged by the file names alone."""
    return sum(not (repository / jar.path).exists() for jar in jars)


@contextmanager
def _only_file_in(repository: Path) -> Iterator[None]:
    """Hold the lock of the repository.
    Two stacks that start at once do not write the same file: the second waits, and then finds all jars.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        lock = (repository / ".lock").open("w")
    except OSError as error:
        raise StackError(f"the jars cannot be stored in {repository}: {error.strerror}") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _provide(jar: Jar, repository: Path, fetch: Fetch) -> None:
    if _is_intact(jar, repository):
        return
    (repository / jar.path).unlink(missing_ok=True)
    fetch(jar, repository)
    if not _is_intact(jar, repository):
        (repository / jar.path).unlink(missing_ok=True)
        raise StackError(f"{jar.path.name} does not match debezium/jgo.lock.toml: its SHA-256 differs")


def _is_intact(jar: Jar, repository: Path) -> bool:
    try:
        with (repository / jar.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def fetch_from_central(jar: Jar, repository: Path) -> None:
    """Download `jar` from Maven Central into `repository`, with jgo."""
    import requests  # noqa: PLC0415  neither is needed if all jars exist
    from jgo.maven import MavenContext  # noqa: PLC0415

    context = MavenContext(repo_cache=repository, local_repos=[], timeout=_FETCH_SECONDS_MAX)
    try:
        context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    except OSError as error:
        if isinstance(error, requests.RequestException):
            raise StackError(f"Maven Central cannot be reached for {jar.path.name}: {_short(error)}") from None
        raise StackError(f"{jar.path.name} cannot be stored in {repository}: {error.strerror or error}") from None
    except RuntimeError as error:
        raise StackError(f"{jar.path.name} cannot be fetched: {_short(error)}") from None


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
