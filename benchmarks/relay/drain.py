"""Drain: the calls per second from a queue that is full at the start. The upstream answers at once, and a call counts
when its end is saved.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from typing import Any

from benchmarks.relay import ours
from benchmarks.relay.bare_process import bare
from benchmarks.relay.contest import Contestant, Line, VoidError, ratio, table
from benchmarks.relay.ground import Ground
from benchmarks.relay.peer import PGQUEUER, PROCRASTINATE, Peer, upstream_has, working
from tests.wait import until

SECONDS_MAX = 300.0
# The bare loop was fastest with 20 to 50 concurrent calls on two cores.
BARE_CONCURRENCY = 50
# The fastest of 10 to 1,000 for each peer: procrastinate fetches one job per query, pgqueuer a batch.
PEER_CONCURRENCY = {"pgqueuer": 1_000, "procrastinate": 100}
# procrastinate gets a fifth of the calls, as a round would otherwise take minutes. The figure is a rate, and a shorter
# queue does not lower it.
PEER_SHARE = {"pgqueuer": 1.0, "procrastinate": 0.2}
# The queue must be full before its messages are due: at least this many are published per second.
FILL_PER_SECOND_MIN = 600
FILL_SPARE_SECONDS = 3
# The messages that arrived last are requested first: when they are saved, nearly always all are.
TAIL = 50
FIGURES = ("calls_per_second", "cpu_system_seconds", "cpu_postgres_seconds")


def contestants(ground: Ground) -> list[Contestant]:
    """`unsaved` makes the call, marks the job done and discards the answer, as the relay does for a message without a
    callback. `relay-callback` delivers each answer to a receiver, which is a second call.
    """
    return [
        Contestant("relay", lambda: _ours(ground, callback=False)),
        Contestant("relay-callback", lambda: _ours(ground, callback=True)),
        Contestant("pgqueuer", lambda: _theirs(ground, PGQUEUER, keep=True)),
        Contestant("pgqueuer-unsaved", lambda: _theirs(ground, PGQUEUER, keep=False)),
        Contestant("procrastinate", lambda: _theirs(ground, PROCRASTINATE, keep=True)),
        Contestant("procrastinate-unsaved", lambda: _theirs(ground, PROCRASTINATE, keep=False)),
        Contestant("bare-aiohttp", lambda: _bare(ground)),
    ]


def report(found: list[Line], ground: Ground) -> tuple[str, dict[str, object]]:
    names = [contestant.name for contestant in contestants(ground)]
    others = [name for name in names if not name.startswith("relay")]
    aims = {f"to_{name}": ratio(found, "calls_per_second", "relay", name) for name in others}
    aims |= {f"callback_to_{name}": ratio(found, "calls_per_second", "relay-callback", name) for name in others}
    return table(found, names, FIGURES), dict(aims)


def _ids(ground: Ground, share: float = 1.0) -> tuple[str, list[str]]:
    prefix = f"d{secrets.token_hex(4)}"
    return prefix, [f"{prefix}-{number}" for number in range(int(ground.scale.drain_calls * share))]


def _ours(ground: Ground, *, callback: bool) -> Line:
    _, ids = _ids(ground)
    with ours.relay(ground) as relay:
        return asyncio.run(_ours_run(ground, relay, ids, callback=callback))


async def _ours_run(ground: Ground, relay: ours.Ours, ids: list[str], *, callback: bool) -> Line:
    ground.upstream.reset()
    due = math.ceil(time.time() + FILL_SPARE_SECONDS + len(ids) / FILL_PER_SECOND_MIN)
    async with ours.client(relay) as session:
        named = await ours.publish(session, _messages(ground, ids, due, callback=callback))
        if time.time() > due - 0.5:
            raise VoidError("publishing took longer than planned: some messages were due before all were queued")
        await asyncio.sleep(due - 0.3 - time.time())
        meter = ground.meter([relay.pid])
        reached = "callbacks" if callback else "calls"
        await asyncio.to_thread(upstream_has, ground, len(ids), SECONDS_MAX, reached)
        seen = ground.upstream.seen()
        tail = [named[number] for number in seen.arrived_last(ids, TAIL)]
        await ours.all_delivered(session, tail, 60)
        ended = max(times[0] for times in seen.callbacks.values()) if callback else time.time()
        used = meter.read()
        said = await ours.states(session, named)
        if late := [id_ for id_, state in said.items() if state != "delivered"]:
            await ours.all_delivered(session, late, 60)
            ended = time.time()
    seen = ground.upstream.seen()
    _check(seen.lost(ids), seen.doubled())
    if seen.first() < due or seen.wrong:
        raise VoidError(
            f"the first call was {seen.first() - due:.3f} s after its time, {len(seen.wrong)} wrong answers"
        )
    return {
        "calls_per_second": round(len(ids) / (ended - due), 1),
        "seconds": round(ended - due, 3),
        "seconds_from_first_call": round(ended - seen.first(), 3),
        "late_seen": len(late),
    } | used


def _messages(ground: Ground, ids: list[str], due: int, *, callback: bool) -> list[dict[str, Any]]:
    body = '{"prompt": "' + "x" * 985 + '"}'
    found = []
    for number, id_ in enumerate(ids):
        origin = ground.upstream.origin(number)
        headers = {"Upstash_Not_Before": str(due)}
        if callback:
            headers["Upstash_Callback"] = f"{origin}/callback?id={id_}"
        found.append(ours.message(f"{origin}/call?id={id_}&delay=0", body, **headers))
    return found


def _theirs(ground: Ground, peer: Peer, *, keep: bool) -> Line:
    prefix, ids = _ids(ground, PEER_SHARE[peer.name])
    with working(peer, ground, concurrency=PEER_CONCURRENCY[peer.name], keep=keep) as worker:
        ground.upstream.reset()
        worker.enqueue(ids, "0")
        worker.start()
        until(lambda: ground.upstream.counts()["calls"] > 0, 60, every=0.02)
        meter = ground.meter(worker.system, [worker.sender.pid])
        if keep:
            ended = worker.wait(ids, prefix, SECONDS_MAX)
        else:
            until(lambda: worker.left() == 0, SECONDS_MAX)
            ended = time.time()
        used = meter.read()
        seen = ground.upstream.seen()
    _check(seen.lost(ids), seen.doubled())
    return {
        "calls_per_second": round(len(ids) / (ended - seen.first()), 1),
        "seconds": round(ended - seen.first(), 3),
    } | used


def _bare(ground: Ground) -> Line:
    _, ids = _ids(ground)
    with bare() as loop:
        ground.upstream.reset()
        meter = ground.meter([loop.process.pid])
        loop.order(
            [f"{ground.upstream.origin(number)}/call?id={id_}&delay=0" for number, id_ in enumerate(ids)],
            BARE_CONCURRENCY,
        )
        answer = loop.answer()
        used = meter.read()
    seen = ground.upstream.seen()
    _check(seen.lost(ids), seen.doubled())
    seconds = answer["ended"] - answer["began"]
    return {"calls_per_second": round(len(ids) / seconds, 1), "seconds": round(seconds, 3)} | used


def _check(lost: int, doubled: int) -> None:
    if lost or doubled:
        raise VoidError(f"lost {lost}, doubled {doubled}")
