"""The messages to the relay, as pure functions: a provider call for a submission, a webhook for its completion."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidings.contract.callback_token import callback_token
from tidings.contract.change import ResultChange
from tidings.contract.completion import completion_fields, event_type, timestamp
from tidings.contract.relay_labels import webhook_label
from tidings.contract.targets import Disabled, Resolved

# A paid answer is kept until the api accepts it: the retries after 1, 2, 4 … 300 s cover 83 hours of outage, a long
# weekend, independent of the target's own retries. After that it is a dead letter, which the reconciler retries. A
# longer pause would add hours to the covered outage, and as much to the wait after an outage.
CALLBACK_RETRIES = 1000
CALLBACK_RETRY_DELAY = "min(300000, 1000 * pow(2, min(retried, 9)))"


@dataclass(frozen=True)
class Message:
    """One item of `POST /v2/batch`; `submission_id` names its submission."""

    submission_id: str
    destination: str
    headers: Mapping[str, str]
    body: str

    def item(self) -> dict[str, Any]:
        return {"destination": self.destination, "headers": dict(self.headers), "body": self.body}

    @property
    def size_bytes(self) -> int:
        return len(self.body.encode()) + 2_000  # the headers and the JSON around the body


def starts_address(callback_url: str) -> str:
    """Return the address for reports of starts: one address for all, so that one request reports many."""
    return f"{callback_url}/callbacks/relay/starts"


def callback_address(callback_url: str, submission_id: str) -> str:
    """Return the address of a submission's callbacks; the signature covers it completely."""
    return f"{callback_url}/callbacks/relay?submission={submission_id}"


@dataclass(frozen=True)
class Callbacks:
    """The address of the api for callbacks. `retries`: a plan of the hosted service may allow fewer."""

    url: str
    internal_token: str
    retries: int = CALLBACK_RETRIES

    def headers(self, submission_id: str) -> dict[str, str]:
        """Return the options that make the relay report the attempts of a call to the api: both callbacks, and the
        address for starts, which the hosted service ignores.
        """
        token = callback_token(self.internal_token, submission_id)
        options = {
            "": callback_address(self.url, submission_id),
            "-Retries": str(self.retries),
            "-Retry-Delay": CALLBACK_RETRY_DELAY,
            "-Forward-Authorization": f"Bearer {token}",
        }
        names = ("Upstash-Callback", "Upstash-Failure-Callback")
        headers = {f"{name}{option}": value for name in names for option, value in options.items()}
        return headers | {"Tidings-Started-Callback": starts_address(self.url), "Tidings-Started-Data": token}


@dataclass(frozen=True)
class Call:
    """The request to a target for one submission. `nudged_at`: the call is sent again because no relay holds it."""

    submission_id: str
    content_type: str
    body: str
    nudged_at: str | None = None

    @property
    def deduplication_id(self) -> str:
        """Return an id that is unique per nudge: the relay would not publish a message with the first id again."""
        if self.nudged_at is None:
            return self.submission_id
        # The vendor's ids contain no colon; the time does.
        return f"{self.submission_id}-{''.join(filter(str.isdigit, self.nudged_at))}"


def provider_call(resolved: Resolved, call: Call, callbacks: Callbacks) -> Message:
    """Build the call of a target for one submission. Headers: docs/ARCHITECTURE.md, "Callbacks"."""
    target = resolved.target
    headers = {
        "Content-Type": call.content_type,
        "Upstash-Method": target.method,
        "Upstash-Deduplication-Id": call.deduplication_id,
        "Upstash-Label": call.submission_id,
        "Upstash-Retries": str(target.retries),
        "Upstash-Timeout": f"{target.timeout_seconds}s",
        "Tidings-On-Unknown": target.on_unknown,
        "Tidings-Final-Status": ",".join(map(str, target.final_status)),
        "Tidings-Final-Error": ",".join(target.final_errors),
    }
    if target.retry_delay is not None:
        headers["Upstash-Retry-Delay"] = target.retry_delay
    if target.error_field is not None:
        headers["Tidings-Error-Field"] = target.error_field
    if target.flow_control is not None:
        headers["Upstash-Flow-Control-Key"] = target.flow_control.key
        limits = {"parallelism": target.flow_control.parallelism, "rate": target.flow_control.rate}
        value = [f"{name}={limit}" for name, limit in limits.items() if limit is not None]
        if target.flow_control.rate is not None:
            value.append(f"period={target.flow_control.period_seconds}s")
        headers["Upstash-Flow-Control-Value"] = ", ".join(value)
    headers |= callbacks.headers(call.submission_id)
    headers |= {f"Upstash-Forward-{name}": value for name, value in resolved.headers.items()}
    kept = {name: value for name, value in headers.items() if value}
    return Message(call.submission_id, resolved.url, kept, call.body)


def webhook(change: ResultChange, public_url: str, secret: str, now: int, *, public_only: bool = True) -> Message:
    """Build the webhook of a completion, signed as Standard Webhooks 1.0.0 specifies; `secret` is `whsec_<base64>`.

    The timestamp is the time of publishing: the relay repeats the message unchanged. `public_only`: the client chose
    the address, so the relay must not call the private addresses that it may call for Tidings itself.
    """
    assert change.webhook is not None
    content = {
        "type": event_type(change.outcome),
        "timestamp": timestamp(change.completed_at),
        "data": completion_fields(change, public_url),
    }
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    webhook_id = str(change.event_id)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.new(key, f"{webhook_id}.{now}.{body}".encode(), hashlib.sha256).digest()
    headers = {
        "Content-Type": "application/json",
        "Upstash-Method": "POST",
        "Upstash-Retries": "5",
        "Upstash-Timeout": "30s",
        "Upstash-Deduplication-Id": f"webhook-{webhook_id}",
        "Upstash-Label": f"{webhook_label(change.submission_id)},webhook",
        "Upstash-Forward-webhook-id": webhook_id,
        "Upstash-Forward-webhook-timestamp": str(now),
        "Upstash-Forward-webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        "Tidings-Final-Status": "410",
    }
    if public_only:
        headers["Tidings-Addresses"] = "public"
    return Message(str(change.submission_id), change.webhook, headers, body)


@dataclass(frozen=True)
class Webhooks:
    """The settings for webhooks: none without a `secret`; only to public addresses with `public_only`."""

    public_url: str
    secret: str | None = field(repr=False)
    public_only: bool = True


@dataclass(frozen=True)
class Unsendable:
    """There is no message, because the target cannot be called."""

    reason: str


@dataclass(frozen=True)
class MessageBuilder:
    """Builds messages from the targets and the settings."""

    targets: Mapping[str, Resolved | Disabled]
    callbacks: Callbacks
    webhooks: Webhooks

    def provider_call(self, target_name: str, call: Call) -> Message | Unsendable:
        target = self.targets.get(target_name)
        if isinstance(target, Resolved):
            return provider_call(target, call, self.callbacks)
        unknown = f"target {target_name} is not known to the dispatcher"
        return Unsendable(unknown if target is None else target.reason)

    def webhook(self, change: ResultChange, now: int) -> Message | None:
        """Return None without a secret, because a webhook must be signed."""
        own = self.webhooks
        if own.secret is None:
            return None
        return webhook(change, own.public_url, own.secret, now, public_only=own.public_only)


def refusal(message_url: str, reason: str, now_ms: int) -> bytes:
    """Build the body of a failure callback, in the relay's format, for a message that the relay never accepted."""
    content = {
        "status": 0,
        "header": {},
        "body": "",
        "retried": 0,
        "maxRetries": 0,
        "sourceMessageId": "not-sent",
        "dlqId": "not-sent",
        "url": message_url,
        "method": "POST",
        "createdAt": now_ms,
        "willRetry": False,
        "error": reason,
    }
    return json.dumps(content, separators=(",", ":")).encode()
