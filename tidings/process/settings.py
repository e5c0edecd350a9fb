"""Reads the settings of a process from its environment: once, typed, with all faults reported together."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, SecretStr, UrlConstraints, ValidationError
from pydantic_core import Url
from pydantic_settings import BaseSettings, SettingsConfigDict

# The exit status for a configuration error: EX_CONFIG of sysexits.h.
EXIT_CONFIGURATION = 78

HttpUrl = Annotated[Url, UrlConstraints(allowed_schemes=["http", "https"])]


def _host_and_port(listen: str) -> str:
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8000")
    return listen


def _no_trailing_slash(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    return url.rstrip("/")


Listen = Annotated[str, AfterValidator(_host_and_port)]
BaseUrl = Annotated[str, AfterValidator(_no_trailing_slash)]


class Settings(BaseSettings):
    """The base of each process's settings. Frozen; every field names its variable by `validation_alias`; no prefix.

    An empty variable counts as not set, because compose files and shells cannot easily unset one.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)


S = TypeVar("S", bound=Settings)


class ConfigurationError(Exception):
    """The environment is invalid; the text lists every fault, one line each, and no value."""


def read(settings: type[S]) -> S:
    """Read `settings` from the environment.

    Raises `ConfigurationError` with one line per fault. Values are never repeated, because they may be secrets.
    """
    try:
        return settings()
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise ConfigurationError("settings are missing or not valid:\n" + "\n".join(sorted(lines))) from None


def read_or_exit(settings: type[S]) -> S:
    """Like `read`, for a `__main__`: print the faults to stderr and exit with 78."""
    try:
        return read(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None


def split_listen(listen: str) -> tuple[str, int]:
    """`"127.0.0.1:8000"` → `("127.0.0.1", 8000)`; the brackets of an IPv6 host are removed."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def environment() -> Mapping[str, str]:
    """Return the environment of the process, for `__main__` modules only."""
    return os.environ


__all__ = [
    "EXIT_CONFIGURATION",
    "BaseUrl",
    "ConfigurationError",
    "HttpUrl",
    "Listen",
    "SecretStr",
    "Settings",
    "environment",
    "read",
    "read_or_exit",
    "split_listen",
]
