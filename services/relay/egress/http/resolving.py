"""Name resolution: which lookups run concurrently, their timeout, and how failures are cached. `dns.py` does the
lookup.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

# The addresses of a name, as text. Raises `OSError`.
Resolve = Callable[[str], Awaitable[Sequence[str]]]

Found = Sequence[str] | OSError

# A recursive resolver gives up after about 10 s itself (unbound, CoreDNS). Half of CONNECT_TIMEOUT_SECONDS is then left
# to connect.
LOOKUP_SECONDS = 15.0
# Long enough for a burst of messages to a dead name to cost one lookup, and far shorter than the first retry (12 s), so
# that no second attempt fails because of the first attempt's lookup.
FAILURE_SECONDS = 2.0
# The number of cached failures. The oldest is evicted first.
FAILURES_MAX = 1024


class Names:
    """Addresses of names. Concurrent calls to a name share one lookup.

    A lookup ends after LOOKUP_SECONDS, whether or not calls wait for it. A failure is cached for FAILURE_SECONDS, an
    address never: a name is resolved for each connection.
    """

    def __init__(self, ask: Resolve, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self._ask = ask
        self._clock = clock
        self._lookups: dict[str, asyncio.Task[Found]] = {}
        self._failures: OrderedDict[str, tuple[float, OSError]] = OrderedDict()

    async def __call__(self, name: str) -> Sequence[str]:
        """Resolve a name. An address resolves to itself. Raises `OSError`."""
        try:
            return (str(ipaddress.ip_address(name)),)
        except ValueError:
            pass
        if (failure := self._failure(name)) is not None:
            raise _copy(failure)
        # A cancelled call must not end the lookup that others share.
        found = await asyncio.shield(self._lookups.get(name) or self._begin(name))
        if isinstance(found, OSError):
            raise _copy(found)
        return found

    def _failure(self, name: str) -> OSError | None:
        until, failure = self._failures.get(name, (0.0, None))
        return failure if self._clock() < until else None

    def _begin(self, name: str) -> asyncio.Task[Found]:
        task = self._lookups[name] = asyncio.create_task(self._look_up(name))
        task.add_done_callback(lambda _: self._lookups.pop(name, None))
        return task

    async def _look_up(self, name: str) -> Found:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await self._ask(name)
        except TimeoutError:
            failure: OSError = socket.gaierror(socket.EAI_AGAIN, "the name servers did not answer in time")
        except socket.gaierror as error:
            failure = error
        except OSError as error:
            # A local fault, such as too many open files, says nothing about the name.
            return error
        self._failures[name] = (self._clock() + FAILURE_SECONDS, failure)
        self._failures.move_to_end(name)
        if len(self._failures) > FAILURES_MAX:
            self._failures.popitem(last=False)
        return failure


def _copy(failure: OSError) -> OSError:
    """Copy the error, as an error raised repeatedly grows by a traceback each time."""
    return type(failure)(*failure.args)
