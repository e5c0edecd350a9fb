"""The added latency: the time from sending a publish to the first byte at the destination, one message at a time on an
idle system.
"""

from __future__ import annotations

import http.client
import random
import secrets
import statistics
import time

from benchmarks.figures import percentile
from benchmarks.relay import ours
from benchmarks.relay.contest import Contestant, Line, VoidError, spread, table
from benchmarks.relay.ground import Ground
from tests.wait import until

WARM = 20
# Long enough that the relay is idle at each publish, and uneven, so that they do not coincide with a timer of the
# relay.
PAUSE_SECONDS = (0.03, 0.12)
FIGURES = ("p50_ms", "p99_ms", "answered_p50_ms", "cpu_system_seconds", "cpu_postgres_seconds")


def contestants(ground: Ground) -> list[Contestant]:
    return [Contestant("relay", lambda: _ours(ground)), Contestant("direct", lambda: _direct(ground))]


def report(found: list[Line], _ground: Ground) -> tuple[str, dict[str, object]]:
    return table(found, ["relay", "direct"], FIGURES), {"p50_ms": spread(found, "relay", "p50_ms")}


def _ours(ground: Ground) -> Line:
    with ours.relay(ground) as relay:
        ground.upstream.reset()
        _publish(ground, relay.port, WARM)
        until(lambda: ground.upstream.counts()["calls"] == WARM, 30)
        ground.upstream.reset()
        meter = ground.meter([relay.pid])
        sent, answered = _publish(ground, relay.port, ground.scale.latency_calls)
        until(lambda: ground.upstream.counts()["calls"] == len(sent), 30)
        used = meter.read()
    return _line(ground, sent, answered) | used


def _direct(ground: Ground) -> Line:
    """The same call without the relay: the time of the sender, the loopback and the upstream."""
    ground.upstream.reset()
    headers = {"Content-Type": "application/json"}
    sent, answered = _send(ground.upstream.port, ground.scale.latency_calls, headers, "/call?id={id}&delay=0")
    return _line(ground, sent, answered)


def _publish(ground: Ground, port: int, count: int) -> tuple[dict[str, float], list[float]]:
    headers = {"Authorization": f"Bearer {ours.TOKEN}", "Content-Type": "application/json"}
    target = f"/v2/publish/{ground.upstream.origin()}/call?id={{id}}&delay=0"
    return _send(port, count, headers, target)


def _send(port: int, count: int, headers: dict[str, str], target: str) -> tuple[dict[str, float], list[float]]:
    """The time at which each request was sent, in epoch seconds by id, and the seconds until each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = '{"prompt": "' + "x" * 985 + '"}'
    sent: dict[str, float] = {}
    answered = []
    for number in range(count):
        id_ = f"l{secrets.token_hex(4)}-{number}"
        time.sleep(random.uniform(*PAUSE_SECONDS))
        sent[id_] = time.time()
        connection.request("POST", target.format(id=id_), body, headers)
        response = connection.getresponse()
        response.read()
        answered.append(time.time() - sent[id_])
        assert response.status == 200, response.status
    connection.close()
    return sent, answered


def _line(ground: Ground, sent: dict[str, float], answered: list[float]) -> Line:
    seen = ground.upstream.seen()
    if seen.lost(sent) or seen.doubled():
        raise VoidError(f"lost {seen.lost(sent)}, doubled {seen.doubled()}")
    delays = [(seen.calls[id_][0] - at) * 1000 for id_, at in sent.items()]
    return {
        "p50_ms": round(statistics.median(delays), 2),
        "p99_ms": round(percentile(delays, 0.99), 2),
        "highest_ms": round(max(delays), 2),
        "answered_p50_ms": round(statistics.median(answered) * 1000, 2),
    }
