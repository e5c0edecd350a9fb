"""The random content of the load: one submission, and the expectations of the ledger about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from tests.chaos.evidence import Sent
from tests.chaos.harm import DELETED_CHANNEL

CHANNELS = ("blue", DELETED_CHANNEL)
# A probe measures the system, so its call takes almost no time.
PROBE_SECONDS = 0.05
# Fewer failures than the target's retries, so the call succeeds.
PASSING = (["500"], ["503", "500"], ["429"], ["html"], ["200-error"], ["429-reset", ""])
# The connection is cut after more than a second. Within the first second the relay repeats the request of a kept
# connection.
CUT_SECONDS = 1.3
# The shortest time until a submission expires, and the duration of a call that is longer than any such time.
EXPIRES_SECONDS, LONG_SECONDS = (1, 3), 12.0


@dataclass(frozen=True)
class Choice:
    """`content` is the body of the submission. `sent` is what is known of it before it is sent."""

    content: dict[str, Any]
    sent: Sent


def choose(chance: Random, key: str, webhook: str, now: float) -> Choice:
    """Of ten submissions, six go to a plain target, two to a limited one, and two to one whose calls are not repeated."""
    target = chance.choices(("chaos-images", "chaos-limited", "chaos-paid"), (6, 2, 2))[0]
    asked: dict[str, Any] = {"call_id": key, "latency_seconds": round(chance.uniform(0.05, 2.5), 2), "faults": []}
    content: dict[str, Any] = {"target": target, "metadata": {"key": key}}
    may_fail = expires = False
    kind = chance.random()
    if target != "chaos-limited":
        if kind < 0.2:
            asked["faults"] = chance.choice(PASSING)
        elif kind < 0.25:
            asked["faults"], may_fail = [chance.choice(("400", "quota"))], True
        elif kind < 0.32:
            asked |= {"faults": ["cut"], "latency_seconds": CUT_SECONDS}
        elif kind < 0.38:
            content["expires_in"], expires = chance.randint(*EXPIRES_SECONDS), True
            asked["latency_seconds"] = LONG_SECONDS
    channel = chance.choice(CHANNELS) if chance.random() < 0.3 else None
    if channel is not None:
        content["channel"] = channel
    told = chance.random() < 0.2
    if told:
        content["webhook"] = webhook
    content["input"] = {"prompt": key, "size": "256x256", "x_provider": asked}
    sent = Sent(
        key, target, now, once=chance.random() < 0.15, faults=may_fail, expires=expires, channel=channel, webhook=told
    )
    return Choice(content, sent)


def probe(number: int, now: float) -> Choice:
    """The simplest submission, sent at the end of the fault `number`."""
    key = f"probe-{number}"
    asked = {"call_id": key, "latency_seconds": PROBE_SECONDS, "faults": []}
    target = "chaos-images"
    content = {
        "target": target,
        "metadata": {"key": key},
        "input": {"prompt": key, "size": "256x256", "x_provider": asked},
    }
    return Choice(content, Sent(key, target, now, probe=number))
