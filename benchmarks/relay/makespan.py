"""Makespan: the time of 1,000 calls of 5 s with one worker process, from the first publish to the last answer that is
saved, and with our relay also called back. Calls are published singly or in batches of 100.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import partial

from benchmarks.relay import ours
from benchmarks.relay.contest import Contestant, Line, VoidError, ratio, ratio_to_best, spread, table
from benchmarks.relay.ground import Ground
from benchmarks.relay.ours import Sending
from benchmarks.relay.peer import PEERS, Peer, settle, working
from tests.wait import until

SECONDS_MAX = 120.0
FIGURES = ("makespan_seconds", "enqueued_seconds", "cpu_system_seconds", "cpu_postgres_seconds", "cpu_sender_seconds")


def contestants(ground: Ground, sending: Sending) -> list[Contestant]:
    return [
        Contestant("relay", partial(_ours, ground, sending)),
        *(Contestant(peer.name, partial(_theirs, ground, peer, sending)) for peer in PEERS),
    ]


def report(found: list[Line], ground: Ground) -> tuple[str, dict[str, object]]:
    """The table, and the two ratios for which there is an aim."""
    mine = spread(found, "relay", "makespan_seconds")
    names = [peer.name for peer in PEERS]
    aims = {
        "to_floor": None if mine is None else round(mine.median / ground.scale.makespan_seconds, 3),
        "to_best_peer": ratio_to_best(found, "makespan_seconds", "relay", names),
        **{f"to_{name}": ratio(found, "makespan_seconds", "relay", name) for name in names},
    }
    return table(found, ["relay", *names], FIGURES), dict(aims)


def _ids(ground: Ground) -> tuple[str, list[str]]:
    prefix = f"m{secrets.token_hex(4)}"
    return prefix, [f"{prefix}-{number}" for number in range(ground.scale.makespan_calls)]


def _ours(ground: Ground, sending: Sending) -> Line:
    prefix, ids = _ids(ground)
    with ours.relay(ground) as relay:
        return asyncio.run(_ours_run(ground, relay, prefix, ids, sending))


async def _ours_run(ground: Ground, relay: ours.Ours, prefix: str, ids: list[str], sending: Sending) -> Line:
    body = '{"prompt": "' + "x" * 985 + '"}'

    def message(number: int, id_: str, delay: str) -> dict[str, object]:
        origin = ground.upstream.origin(number)
        url = f"{origin}/call?id={id_}&delay={delay}"
        return ours.message(url, body, Upstash_Callback=f"{origin}/callback?id={id_}")

    async with ours.client(relay) as session:
        ground.upstream.reset()
        await ours.publish(session, [message(0, f"{prefix}-warm", "0")])
        await asyncio.to_thread(until, lambda: ground.upstream.counts()["callbacks"] == 1, 30)
        ground.upstream.reset()
        messages = [message(number, id_, f"{ground.scale.makespan_seconds:g}") for number, id_ in enumerate(ids)]
        meter = ground.meter([relay.pid])
        began = time.time()
        named = await ours.publish(session, messages, sending)
        published = time.time()
        await asyncio.to_thread(
            until, lambda: ground.upstream.counts()["callbacks"] >= len(ids), SECONDS_MAX, every=0.05
        )
        used = meter.read()
        await ours.all_delivered(session, named, 30)
    seen = ground.upstream.seen()
    callbacks = [len(seen.callbacks.get(id_, [])) for id_ in ids]
    if seen.lost(ids) or seen.doubled() or seen.wrong or set(callbacks) != {1}:
        raise VoidError(
            f"lost {seen.lost(ids)}, doubled {seen.doubled()}, wrong answers {len(seen.wrong)}, "
            f"callbacks {min(callbacks)} to {max(callbacks)}"
        )
    ended = max(times[0] for times in seen.callbacks.values())
    return {
        "makespan_seconds": round(ended - began, 3),
        "enqueued_seconds": round(published - began, 3),
        "last_call_began_seconds": round(max(times[0] for times in seen.calls.values()) - began, 3),
        "doubled": 0,
    } | used


def _theirs(ground: Ground, peer: Peer, sending: Sending) -> Line:
    prefix, ids = _ids(ground)
    with working(peer, ground, concurrency=max(200, ground.scale.makespan_calls)) as worker:
        worker.start()
        settle(worker, f"w{prefix}")
        ground.upstream.reset()
        meter = ground.meter(worker.system, [worker.sender.pid])
        began, enqueued = worker.enqueue(ids, f"{ground.scale.makespan_seconds:g}", sending)
        ended = worker.wait(ids, prefix, SECONDS_MAX)
        used = meter.read()
        seen = ground.upstream.seen()
    if seen.lost(ids) or seen.doubled():
        raise VoidError(f"lost {seen.lost(ids)}, doubled {seen.doubled()}")
    return {
        "makespan_seconds": round(ended - began, 3),
        "enqueued_seconds": round(enqueued - began, 3),
        "last_call_began_seconds": round(max(times[0] for times in seen.calls.values()) - began, 3),
        "doubled": 0,
    } | used
