"""The limit on a token's publishes, at the routes that publish."""

from __future__ import annotations

import math

from services.relay.api.call import Call
from services.relay.api.deps import Deps
from services.relay.api.reply import RefusedError


def check_rate(deps: Deps, call: Call, publishes: int) -> None:
    """Raises `RefusedError` when the token may not publish this many now. The header names are
    those the clients read.
    """
    if call.token is None or not publishes:
        return
    wait_seconds = deps.authenticator.wait_seconds(call.token, publishes)
    if wait_seconds <= 0:
        return
    limit = str(call.token.publishes_per_second)
    raise RefusedError(
        429,
        f"rate limit of the token: {limit} messages a second",
        {
            "Retry-After": str(math.ceil(wait_seconds)),
            "Burst-RateLimit-Limit": limit,
            "Burst-RateLimit-Remaining": "0",
            "Burst-RateLimit-Reset": str(math.ceil(deps.now().timestamp() + wait_seconds)),
        },
    )
