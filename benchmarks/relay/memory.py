"""Memory: the most that a relay takes while much more than its budget waits in its queue for a slow receiver."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter

import aiohttp

from benchmarks.relay import ours
from benchmarks.relay.contest import Contestant, Line, VoidError, spread, table
from benchmarks.relay.ground import Ground
from benchmarks.relay.processor import peak_mib
from benchmarks.relay.standin import StandIn

MIB = 1024 * 1024
# The relay's default.
BUDGET_MIB = 512
ANSWER_BYTES = 1_000_000
BODY_BYTES = 5 * MIB
# Four bodies a request: `/v2/batch` takes 50 MB.
BODIES = ours.Sending(batch=4, senders=4)
ANSWERS_AT_ONCE = 500
# The receiver answers none for minutes; after the default of 300 s a callback would be repeated.
TIMEOUT = {"Upstash_Callback_Timeout": "1h"}
# So long at most for one more to arrive.
STALL_SECONDS = 120.0
# How long the full queue is watched while the receiver does not answer.
HELD_SECONDS = 10.0
FIGURES = ("peak_mib", "queued_mib", "doubled", "seconds")


def contestants(ground: Ground) -> list[Contestant]:
    return [
        Contestant("callbacks", lambda: _run(ground, callbacks=True)),
        Contestant("bodies", lambda: _run(ground, callbacks=False)),
    ]


def report(found: list[Line], ground: Ground) -> tuple[str, dict[str, object]]:
    names = [contestant.name for contestant in contestants(ground)]
    peaks = {name: spread(found, name, "peak_mib") for name in names}
    aims = {f"{name}_to_budget": peak and round(peak.highest / BUDGET_MIB, 3) for name, peak in peaks.items()}
    return table(found, names, FIGURES), dict(aims)


def _run(ground: Ground, *, callbacks: bool) -> Line:
    ground.upstream.reset()
    began = time.monotonic()
    with ours.relay(ground) as relay:
        line = asyncio.run(_callbacks(ground, relay) if callbacks else _bodies(ground, relay))
        return {"peak_mib": round(peak_mib(relay.pid), 1), "seconds": round(time.monotonic() - began, 1)} | line


async def _callbacks(ground: Ground, relay: ours.Ours) -> Line:
    """Calls that are answered with 1 MB at once, and a receiver of callbacks that answers none until all are queued.

    The calls are made in parts: 10,000 answers that wait on one machine, at the sender and at the receiver, exceed the
    kernel's memory for TCP (`tcp_mem`), which then drops packets.
    """
    ids = _ids(ground.scale.memory_callbacks)
    async with ours.client(relay) as session:
        for start in range(0, len(ids), ANSWERS_AT_ONCE):
            part = ids[start : start + ANSWERS_AT_ONCE]
            messages = [_call(ground, number, id_) for number, id_ in enumerate(part)]
            await ours.all_delivered(session, await ours.publish(session, messages), STALL_SECONDS, every=0.5)
        doubled = await _released(session, ground, "callbacks", ids)
        return {"queued_mib": len(ids) * ANSWER_BYTES // MIB, "doubled": doubled, "errors": await _errors(session)}


def _call(ground: Ground, number: int, id_: str) -> dict[str, object]:
    origin = ground.upstream.origin(number)
    receiver = f"{origin}/callback?id={id_}&bytes={ANSWER_BYTES}&delay=hold"
    return ours.message(
        f"{origin}/call?id={id_}&delay=0&bytes={ANSWER_BYTES}", "{}", Upstash_Callback=receiver, **TIMEOUT
    )


async def _bodies(ground: Ground, relay: ours.Ours) -> Line:
    """Bodies of 5 MB by `/v2/batch`, and a receiver that answers none until all are queued."""
    ids = _ids(ground.scale.memory_bodies)
    body = "x" * BODY_BYTES
    async with ours.client(relay) as session:
        for start in range(0, len(ids), BODIES.batch * BODIES.senders):
            part = ids[start : start + BODIES.batch * BODIES.senders]
            urls = [f"{ground.upstream.origin(n)}/call?id={id_}&delay=hold" for n, id_ in enumerate(part)]
            await ours.publish(session, [ours.message(url, body) for url in urls], BODIES)
        doubled = await _released(session, ground, "calls", ids)
        return {"queued_mib": len(ids) * BODY_BYTES // MIB, "doubled": doubled, "errors": await _errors(session)}


async def _released(session: aiohttp.ClientSession, ground: Ground, kind: str, ids: list[str]) -> int:
    """Have the receiver answer, and wait for the rest. How many calls and callbacks came twice."""
    await asyncio.sleep(HELD_SECONDS)
    ground.upstream.release()
    await _arrived(session, ground.upstream, kind, len(ids))
    seen = ground.upstream.seen()
    missing = len(ids) - len(seen.callbacks if kind == "callbacks" else seen.calls)
    if missing or seen.wrong:
        raise VoidError(f"missing {missing}, wrong {len(seen.wrong)}")
    return seen.doubled()


async def _errors(session: aiohttp.ClientSession) -> dict[str, int]:
    """Why attempts failed, and how often."""
    found: Counter[str] = Counter()
    for state in ("RETRY", "ERROR", "FAILED"):
        async with session.get("/v2/logs", params={"state": state, "count": "1000"}) as response:
            found.update(str(log.get("error")) for log in (await response.json())["logs"])
    return dict(found)


async def _arrived(session: aiohttp.ClientSession, upstream: StandIn, kind: str, count: int) -> None:
    """Wait until `count` calls or callbacks have arrived. Raises `VoidError` once none more arrives for long."""
    most, since = -1, time.monotonic()
    while most < count:
        now = (await asyncio.to_thread(upstream.counts))[kind]
        if now > most:
            most, since = now, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            errors = await _errors(session)
            raise VoidError(f"{most} of {count} {kind} after {STALL_SECONDS:g} s without another; {errors}")
        await asyncio.sleep(0.25)


def _ids(count: int) -> list[str]:
    prefix = f"m{secrets.token_hex(4)}"
    return [f"{prefix}-{number}" for number in range(count)]
