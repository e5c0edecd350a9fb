"""Held: the memory and processor time per call in flight, by their number: our relay with its bookkeeping, and a bare
`asyncio.gather`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from functools import partial

from benchmarks.relay import ours
from benchmarks.relay.bare_process import bare
from benchmarks.relay.contest import Contestant, Line, VoidError, ratio, table
from benchmarks.relay.ground import Ground, calls_max
from benchmarks.relay.processor import unique_kib
from tests.wait import until

SECONDS_MAX = 180.0
WARM = 100
TAIL = 10
FIGURES = ("kib_per_call", "cpu_ms_per_call", "cpu_postgres_ms_per_call")


def contestants(ground: Ground) -> list[Contestant]:
    found = []
    for count in counts(ground):
        found.append(Contestant(f"relay-{count}", partial(_ours, ground, count)))
        found.append(Contestant(f"bare-{count}", partial(_bare, ground, count)))
    return found


def counts(ground: Ground) -> list[int]:
    """The numbers of calls to hold, limited by the connections that one process may have on this machine."""
    return sorted({min(count, calls_max()) for count in ground.scale.held_calls})


def report(found: list[Line], ground: Ground) -> tuple[str, dict[str, object]]:
    asked = counts(ground)
    aims: dict[str, object] = {
        f"kib_to_bare_{count}": ratio(found, "kib_per_call", f"relay-{count}", f"bare-{count}") for count in asked
    }
    first = asked[0]
    for count in asked[1:]:
        aims[f"cpu_{count}_to_{first}"] = ratio(found, "cpu_ms_per_call", f"relay-{count}", f"relay-{first}")
    for count in asked:
        aims[f"cpu_to_bare_{count}"] = ratio(found, "cpu_ms_per_call", f"relay-{count}", f"bare-{count}")
    names = [f"{who}-{count}" for count in asked for who in ("relay", "bare")]
    return table(found, names, FIGURES), aims


def _ids(count: int) -> list[str]:
    prefix = f"h{secrets.token_hex(4)}"
    return [f"{prefix}-{number}" for number in range(count)]


def _urls(ground: Ground, ids: Sequence[str], delay: str) -> list[str]:
    return [f"{ground.upstream.origin(number)}/call?id={id_}&delay={delay}" for number, id_ in enumerate(ids)]


def _ours(ground: Ground, count: int) -> Line:
    # The default limit of 10,000 concurrent calls is below the largest run.
    with ours.relay(ground, RELAY_CONCURRENCY_MAX="30000") as relay:
        return asyncio.run(_ours_run(ground, relay, count))


async def _ours_run(ground: Ground, relay: ours.Ours, count: int) -> Line:
    body = '{"prompt": "' + "x" * 985 + '"}'
    async with ours.client(relay) as session:
        ground.upstream.reset()
        warm = await ours.publish(session, [ours.message(url, body) for url in _urls(ground, _ids(WARM), "0")])
        await ours.all_delivered(session, warm, 30)
        ground.upstream.reset()
        ids = _ids(count)
        idle = unique_kib(relay.pid)
        meter = ground.meter([relay.pid])
        named = await ours.publish(session, [ours.message(url, body) for url in _urls(ground, ids, "hold")])
        await asyncio.to_thread(_all_held, ground, count)
        await asyncio.sleep(ground.scale.held_seconds)
        peak = unique_kib(relay.pid)
        ground.upstream.release()
        # Only the messages that were answered last are requested, and rarely, as requests cost the relay processor
        # time.
        seen = ground.upstream.seen()
        tail = [named[number] for number in seen.arrived_last(ids, TAIL)]
        await ours.all_delivered(session, tail, SECONDS_MAX, every=0.5)
        used = meter.read()
        await ours.all_delivered(session, named, SECONDS_MAX)
    return _line(ground, ids, peak - idle, used)


def _bare(ground: Ground, count: int) -> Line:
    with bare() as loop:
        loop.order(_urls(ground, _ids(WARM), "0"), None)
        loop.answer()
        ground.upstream.reset()
        ids = _ids(count)
        idle = unique_kib(loop.process.pid)
        meter = ground.meter([loop.process.pid])
        loop.order(_urls(ground, ids, "hold"), None)
        _all_held(ground, count)
        time.sleep(ground.scale.held_seconds)
        peak = unique_kib(loop.process.pid)
        ground.upstream.release()
        loop.answer()
        used = meter.read()
    return _line(ground, ids, peak - idle, used)


def _line(ground: Ground, ids: Sequence[str], kib: float, used: dict[str, float]) -> Line:
    seen = ground.upstream.seen()
    if seen.lost(ids) or seen.doubled():
        raise VoidError(f"lost {seen.lost(ids)}, doubled {seen.doubled()}")
    return {
        "kib_per_call": round(kib / len(ids), 2),
        "cpu_ms_per_call": round(used["cpu_system_seconds"] / len(ids) * 1000, 3),
        "cpu_postgres_ms_per_call": round(used["cpu_postgres_seconds"] / len(ids) * 1000, 3),
    } | used


def _all_held(ground: Ground, count: int) -> None:
    until(lambda: ground.upstream.counts()["held"] >= count, SECONDS_MAX, every=0.1)
