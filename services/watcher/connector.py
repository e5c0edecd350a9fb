"""The connector in Connect's REST interface: its configuration from the file, its registration, state and restart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import requests

TIMEOUT_SECONDS = 15
REST_USER = "tidings"


class ConnectUnavailableError(Exception):
    """Connect does not respond, or is rebalancing; the request must be retried."""


class RegistrationRefusedError(Exception):
    """Connect rejects the configuration; the text gives the reason."""


@dataclass(frozen=True)
class ConnectorState:
    """`connector` and `tasks` are RUNNING, PAUSED, FAILED, UNASSIGNED …; `trace` is the stack trace of a failure."""

    connector: str
    tasks: tuple[str, ...]
    trace: str

    @property
    def running(self) -> bool:
        return self.connector == "RUNNING" and bool(self.tasks) and set(self.tasks) == {"RUNNING"}

    @property
    def failed(self) -> bool:
        return "FAILED" in (self.connector, *self.tasks)


def configuration(file: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Return the connector's settings with `${NAME}` filled in; only Connect fills in `${env:…}`, the password."""
    return dict(json.loads(Template(file.read_text(encoding="utf-8")).safe_substitute(values)))


def cause(trace: str) -> str:
    """Return the line of a Java stack trace that gives the reason: its innermost cause, or else its first line."""
    lines = trace.splitlines()
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or lines or [""])[-1 if causes else 0][:300]


class Connector:
    def __init__(self, connect_url: str, name: str, password: str | None = None) -> None:
        """`password` is the password of the user `tidings` of Connect's REST interface, if it requires one."""
        self._url = f"{connect_url}/connectors/{name}"
        self._session = requests.Session()
        if password is not None:
            self._session.auth = (REST_USER, password)

    def register(self, wanted: Mapping[str, str]) -> bool:
        """Register the connector with the wanted configuration; return true if something changed."""
        current = self._call("GET", "/config", absent_is_none=True)
        if current is not None and {k: v for k, v in current.items() if k != "name"} == dict(wanted):
            return False
        self._call("PUT", "/config", wanted)
        return True

    def state(self) -> ConnectorState | None:
        """Return the state, or None if the connector is not registered."""
        status = self._call("GET", "/status", absent_is_none=True)
        if status is None:
            return None
        parts = [status["connector"], *status["tasks"]]
        trace = next((part["trace"] for part in parts if part.get("trace")), "")
        tasks = tuple(task["state"] for task in status["tasks"])
        return ConnectorState(status["connector"]["state"], tasks, cause(trace))

    def restart_failed(self) -> None:
        self._call("POST", "/restart?includeTasks=true&onlyFailed=true")

    def _call(self, method: str, path: str, content: object = None, *, absent_is_none: bool = False) -> Any:
        try:
            answer = self._session.request(method, self._url + path, json=content, timeout=TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise ConnectUnavailableError(type(error).__name__) from None
        if answer.status_code == 404 and absent_is_none:
            return None
        if answer.status_code == 400:
            raise RegistrationRefusedError(answer.json().get("message", "")[:1000])
        if answer.status_code >= 300:
            raise ConnectUnavailableError(f"Connect answered {answer.status_code}")
        return answer.json() if answer.content else None
