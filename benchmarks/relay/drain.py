"""Drain: calls a second out of a queue filled beforehand, the upstream answering at once; a call counts when its end is saved."""

from __future__ import annotations

import asyncio
import math
import secrets
import time

from benchmarks.relay import ours
from benchmarks.relay.bare_process import bare
from benchmarks.relay.contest import Contestant, Line, VoidError, ratio, table
from benchmarks.relay.ground import Ground
from benchmarks.relay.peer import PGQUEUER, PROCRASTINATE, Peer, upstream_has, working
from tests.wait import until

SECONDS_MAX = 300.0
# The bare loop's best on two cores lies between 50 and 200 at a time; more connections only cost.
BARE_CONCURRENCY = 100
# As many calls at a time as the peers' documents use for such work; a thousand made procrastinate slower.
PEER_CONCURRENCY = 100
# The relay must be full before its messages are due: so many a second are published at least.
FILL_PER_SECOND_MIN = 600
FILL_SPARE_SECONDS = 3
# These arrived last, so they are asked for first: when they are saved, the rest nearly always is.
TAIL = 50
UNSAVED = "pgqueuer-unsaved"
FIGURES = ("calls_per_second", "cpu_system_seconds", "cpu_postgres_seconds")
NAMES = ("relay", "pgqueuer", UNSAVED, "procrastinate", "bare-aiohttp")


def contestants(ground: Ground) -> list[Contestant]:
    return [
        Contestant("relay", lambda: _ours(ground)),
        Contestant("pgqueuer", lambda: _theirs(ground, PGQUEUER)),
        Contestant(UNSAVED, lambda: _theirs(ground, PGQUEUER, keep=False)),
        Contestant("procrastinate", lambda: _theirs(ground, PROCRASTINATE)),
        Contestant("bare-aiohttp", lambda: _bare(ground)),
    ]


def report(found: list[Line], _ground: Ground) -> tuple[str, dict[str, object]]:
    aims = {f"to_{name}": ratio(found, "calls_per_second", "relay", name) for name in NAMES[1:]}
    return table(found, NAMES, FIGURES), dict(aims)


def _ids(ground: Ground) -> tuple[str, list[str]]:
    prefix = f"d{secrets.token_hex(4)}"
    return prefix, [f"{prefix}-{number}" for number in range(ground.scale.drain_calls)]


def _ours(ground: Ground) -> Line:
    _, ids = _ids(ground)
    with ours.relay(ground.postgres, ground.directory) as relay:
        return asyncio.run(_ours_run(ground, relay, ids))


async def _ours_run(ground: Ground, relay: ours.Ours, ids: list[str]) -> Line:
    body = '{"prompt": "' + "x" * 985 + '"}'
    ground.upstream.reset()
    due = math.ceil(time.time() + FILL_SPARE_SECONDS + len(ids) / FILL_PER_SECOND_MIN)
    async with ours.client(relay) as session:
        named = await ours.publish(
            session,
            [
                ours.message(f"{ground.upstream.origin(n)}/call?id={id_}&delay=0", body, Upstash_Not_Before=str(due))
                for n, id_ in enumerate(ids)
            ],
        )
        if time.time() > due - 0.5:
            raise VoidError("publishing took longer than planned: some messages were due before all were queued")
        await asyncio.sleep(due - 0.3 - time.time())
        meter = ground.meter([relay.pid])
        await asyncio.to_thread(upstream_has, ground, len(ids), SECONDS_MAX)
        seen = ground.upstream.seen()
        by_arrival = sorted(range(len(ids)), key=lambda n: seen.calls[ids[n]][0], reverse=True)
        tail = [named[number] for number in by_arrival[:TAIL]]
        await ours.all_delivered(session, tail, 60)
        ended = time.time()
        used = meter.read()
        said = await ours.states(session, named)
        if late := [id_ for id_, state in said.items() if state != "delivered"]:
            await ours.all_delivered(session, late, 60)
            ended = time.time()
    seen = ground.upstream.seen()
    _check(seen.lost(ids), seen.doubled())
    if seen.first() < due:
        raise VoidError(f"the first call was {due - seen.first():.3f} s early")
    return {
        "calls_per_second": round(len(ids) / (ended - due), 1),
        "seconds": round(ended - due, 3),
        "seconds_from_first_call": round(ended - seen.first(), 3),
        "late_seen": len(late),
    } | used


def _theirs(ground: Ground, peer: Peer, *, keep: bool = True) -> Line:
    prefix, ids = _ids(ground)
    with working(peer, ground, concurrency=PEER_CONCURRENCY, keep=keep) as worker:
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
