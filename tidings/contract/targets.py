"""Targets: the endpoints that clients may call, by name, from targets.toml, and the classification of their answers.
No I/O except reading the file.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tidings.process.settings import ConfigurationError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

# A reason appears in events and logs; a provider's message may be a page long.
REASON_CHARACTERS_MAX = 500


# A month, like a partition: a submission must have ended long before its partition is dropped.
EXPIRES_IN_SECONDS_MAX = 30 * 86_400

# The relay's language of retry delays: numbers, names, signs. Only the relay checks the meaning.
_DELAY = re.compile(r"[0-9a-z+\-*/(),. ]{1,500}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_URL = re.compile(r"(https?://[^\s/?#]|\$\{)\S*")


def _url(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ValueError("must be an http or https URL with a host, without white space")
    return url


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid header name")
        if not value.isprintable():
            raise ValueError(f"{name}: the value contains a control character")
    return headers


def _delay(expression: str) -> str:
    if not _DELAY.fullmatch(expression) or expression.count("(") != expression.count(")"):
        raise ValueError("must be an expression in milliseconds, such as 'pow(2, retried) * 1000'")
    return expression


_ExpiresIn = Annotated[int | None, Field(ge=1, le=EXPIRES_IN_SECONDS_MAX)]
_NoComma = Annotated[str, StringConstraints(pattern=r"^[^,\s]+$")]


class FlowControl(BaseModel):
    """The limits of one key at the relay: concurrent calls, and calls per period."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
    parallelism: int | None = Field(None, ge=1)
    rate: int | None = Field(None, ge=1)
    period_seconds: int = Field(1, ge=1, le=604_800)


class Target(BaseModel):
    """One target. `retry_delay` is the relay's expression in milliseconds; without it the relay's default backoff
    applies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    url: Annotated[str, AfterValidator(_url)]
    method: Literal["POST", "GET", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = {}
    retries: int = Field(3, ge=0, le=100)
    retry_delay: Annotated[str, AfterValidator(_delay)] | None = None
    timeout_seconds: int = Field(300, ge=1, le=43_200)
    flow_control: FlowControl | None = None
    # A call whose connection was lost, or whose relay died, may have been executed and charged: `retry` repeats it,
    # `fail` ends the submission with that reason.
    on_unknown: Literal["retry", "fail"] = "retry"
    # The default for a submission without `expires_in`, and the maximum it may request; without a maximum, up to 30
    # days.
    expires_in_seconds: _ExpiresIn = None
    expires_in_seconds_max: _ExpiresIn = None
    # Any 2xx is a success; with `error_field`, except answers whose JSON has that field with a value other than null.
    error_field: Annotated[str, Field(min_length=1)] | None = "error"
    final_status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = (400, 401, 403, 404, 422)
    final_errors: tuple[_NoComma, ...] = ("insufficient_quota", "credit_balance_exhausted")


def load_targets(path: Path) -> Mapping[str, Target]:
    """Read and validate the whole file. Raises `ConfigurationError` with one line a fault: target, field, reason."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    targets: dict[str, Target] = {}
    faults: list[str] = []
    for name, table in document.items():
        if not _NAME.fullmatch(name):
            faults.append(f"  {name}: a name is lower-case letters, digits and dashes")
            continue
        try:
            targets[name] = Target.model_validate({**table, "name": name} if isinstance(table, dict) else table)
        except ValidationError as error:
            faults += [f"  {name}.{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()]
    if not document:
        faults.append("  there is no target")
    if faults:
        raise ConfigurationError(f"{path} is not valid:\n" + "\n".join(faults))
    return targets


@dataclass(frozen=True)
class Resolved:
    """A target with its variables filled in, ready for the dispatcher."""

    target: Target
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Disabled:
    """A target that cannot be called in this environment, and the reason."""

    target: Target
    reason: str


def variables(target: Target) -> frozenset[str]:
    """Return the names of the `${NAME}` variables in a target's URL and headers."""
    return frozenset(name for text in (target.url, *target.headers.values()) for name in _VARIABLE.findall(text))


def resolve(target: Target, environ: Mapping[str, str]) -> Resolved | Disabled:
    """Fill in `${NAME}`; `Disabled` names the variables that are not set, never a value."""
    missing = sorted(name for name in variables(target) if not environ.get(name))
    if missing:
        return Disabled(target, f"target {target.name} is disabled: {', '.join(missing)} not set")

    def fill(text: str) -> str:
        return _VARIABLE.sub(lambda match: environ[match[1]], text)

    return Resolved(target, fill(target.url), {name: fill(value) for name, value in target.headers.items()})


@dataclass(frozen=True)
class Succeeded:
    """The answer is a success."""


@dataclass(frozen=True)
class Failed:
    """The answer is a failure. `final`: a retry is useless."""

    reason: str
    final: bool


def classify(target: Target, status_code: int, body: bytes) -> Succeeded | Failed:
    """Classify one answer; `status_code` 0 means that there was none (timeout, connection lost)."""
    if status_code == 0:
        return Failed("the provider gave no answer", final=False)
    error = _error_in(body, target.error_field or "error")
    accepted = 200 <= status_code <= 299
    # Some providers send the field in every answer; an empty field is not an error.
    if accepted and (not error or target.error_field is None):
        return Succeeded()
    codes = {str(error.get(key)) for key in ("code", "type")} if isinstance(error, dict) else set()
    final = status_code in target.final_status or bool(codes & set(target.final_errors))
    message = error.get("message") if isinstance(error, dict) else error
    reason = f"the provider answered {status_code}" + (f": {message}" if message else "")
    return Failed(reason[:REASON_CHARACTERS_MAX].replace("\x00", ""), final=final)


def _error_in(body: bytes, field: str) -> Any:
    """Return the top-level `field` of a JSON object, or None. Other values have no field and are not parsed."""
    if body.lstrip()[:1] != b"{":
        return None
    try:
        return json.loads(body).get(field)
    except (ValueError, RecursionError):
        return None
