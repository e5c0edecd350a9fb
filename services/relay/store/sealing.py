"""The encrypted parts of a message: its headers, which contain keys, and its `Options`."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from cryptography.fernet import InvalidToken

from services.relay.message import Body, Claimed, Draft, Stored
from services.relay.options import OPTION_NAMES, Options, restored_options, stored_options
from services.relay.store.database import Row
from services.relay.store.encryption import Encryption, as_json

UNCOUNTED_BYTES_MAX = 8 * 1024
# Columns of relay.messages that a Draft has under the same name.
_COLUMNS = ("url", "method", "kind", "protocol", "retries_max", "timeout_ms", "on_unknown", "caller_ip", "queue", "topic",
            "endpoint", "schedule_id")  # fmt: skip

_CLAIMED_COLUMNS = (*_COLUMNS, "id", "body", "body_key", "body_size", "body_sha256", "flow_key", "parent_id", "created_at", "not_before",
                    "retried", "started_at")  # fmt: skip

_claimed_columns = itemgetter(*_CLAIMED_COLUMNS)


class UnreadableError(Exception):
    """No current key decrypts the sealed data: a key was dropped too early. The text names no secret."""


class Opened(NamedTuple):
    """The opened content. `newer`: it has an option that this version does not know."""

    headers: dict[str, str]
    options: Options
    newer: bool = False


def open_sealed(encryption: Encryption, sealed: bytes) -> Opened:
    """Raises `UnreadableError`."""
    try:
        content = encryption.open(sealed)
    except InvalidToken:
        raise UnreadableError("the message cannot be decrypted: its key is not in RELAY_ENCRYPTION_KEYS") from None
    headers = content.pop("headers")
    newer = not content.keys() <= OPTION_NAMES
    if newer:
        content = {name: value for name, value in content.items() if name in OPTION_NAMES}
    return Opened(headers, restored_options(content), newer)


def draft_of(encryption: Encryption, row: Row) -> Draft:
    """The message of a row as it was accepted, to be published again. Raises `UnreadableError`."""
    opened = open_sealed(encryption, row["sealed"])
    if opened.newer:
        raise UnreadableError("the message has an option that this version of the relay does not know")
    columns = {name: row[name] for name in _COLUMNS}
    return Draft(
        **columns, headers=opened.headers, options=opened.options, body=body_of(row), labels=tuple(row["labels"]),
    )  # fmt: skip


def body_of(row: Row) -> Body:
    """The body of a message, dead letter or schedule."""
    key = row["body_key"]
    return row["body"] if key is None else Stored(key, row["body_size"], row["body_sha256"] or b"")


def claimed_of(encryption: Encryption, rows: Sequence[Row]) -> list[Claimed]:
    """The messages of claimed rows. `fault` says why a message cannot be sent, if it cannot.

    Data sealed together is decrypted once and shared: see `Sealer`.
    """
    opened: dict[bytes, dict[str, Any]] = {}
    claimed = []
    for row in rows:
        sealed = row["sealed"]
        if sealed not in opened:
            opened[sealed] = _opened(encryption, sealed)
        columns = zip(_CLAIMED_COLUMNS, _claimed_columns(row), strict=True)
        labels, put_offs = tuple(row["labels"]), row.get("put_offs") or 0
        claimed.append(Claimed.of(columns, opened[sealed], labels=labels, put_offs=put_offs))
    return claimed


def _opened(encryption: Encryption, sealed: bytes) -> dict[str, Any]:
    """The fields of `Claimed` from the sealed data of one message. If it cannot be read, the other messages of the
    claim are not affected.
    """
    try:
        opened = open_sealed(encryption, sealed)
    except UnreadableError as error:
        return {"headers": {}, "fault": str(error)}
    except Exception as error:  # noqa: BLE001  the content may be anything
        return {"headers": {}, "fault": f"the message cannot be read: {type(error).__name__}"}
    if opened.newer:
        return {"headers": {}, "newer": True}
    # Memory is reserved for it in addition to the 12 KiB of each call.
    sealed_bytes = len(sealed) if len(sealed) > UNCOUNTED_BYTES_MAX else 0
    return {"headers": opened.headers, "options": opened.options, "sealed_bytes": sealed_bytes}


class Sealer:
    """Encrypts the drafts of one transaction. Drafts with the same headers and options share one sealed text.

    Encryption is the most expensive step of accepting a message, and the messages of a batch usually have the same
    options. The sharing reveals only that two messages of a batch have the same headers.
    """

    def __init__(self, encryption: Encryption) -> None:
        self._encryption = encryption
        self._sealed: dict[bytes, bytes] = {}

    def seal(self, draft: Draft) -> bytes:
        # orjson serialises dataclasses by itself, but not sets.
        content = as_json({"headers": draft.headers} | stored_options(draft.options), sorted)
        if content not in self._sealed:
            self._sealed[content] = self._encryption.seal_bytes(content)
        return self._sealed[content]
