"""Looks at open submissions. A submission that no relay holds is dispatched again, and a callback among the dead
letters is delivered again. The relay commits the end of an attempt together with its callback; a submission without
a live message and without a result is therefore in progress nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.recent_actions import RecentActions
from services.reconciler.relay_client import LABELS_MAX, RelayClient, UnsupportedError
from services.reconciler.store import NO_ID, Store
from tidings.process.telemetry import Telemetry

NAME = "open_submissions"
# The number of submissions in one look, most of which have ended: some milliseconds of an index.
SWEEP_MAX = 5_000
# The number of open submissions that are remembered, some 10 MB. Without them, one old open submission would make each
# pass read everything after it. Submissions beyond this number are read again.
OPEN_MAX = 100_000
# A pass reads only rows that no pass has read before. A submission before that position that became visible late, for
# example because its commit waited for a standby for longer than the grace, is found by a far look. It uses the same
# index and reads this many rows at a time, some 50 ms each.
FAR_SECONDS = 31 * 86_400
FAR_EVERY_SECONDS = 3_600.0
FAR_MAX = 20_000


@dataclass(frozen=True)
class Limits:
    """`grace_seconds`: the age from which a submission is examined; `repeat_seconds`: the pause before an action is
    repeated; `open_max`: the number of open submissions that are remembered.
    """

    grace_seconds: float
    repeat_seconds: float
    open_max: int = OPEN_MAX


class OpenSubmissions:
    """A pass examines, in bounded steps, the known open submissions and those after the last one read, except those
    younger than the grace. At an interval, a far look examines the earlier ones. The low-water mark lies before the
    first open submission: a new process reads from there once.
    """

    def __init__(
        self,
        store: Store,
        relay: RelayClient,
        telemetry: Telemetry[ReconcilerMetrics],
        *,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        """`clock` returns monotonic seconds."""
        self._store = store
        self._relay = relay
        self._recent = RecentActions(limits.repeat_seconds, clock)
        self._metrics = telemetry.metrics
        self._log = telemetry.log
        self._clock = clock
        self._limits = limits
        self._after: UUID | None = None
        self._far_after: UUID | None = None
        self._far_at = clock()
        self._known: set[UUID] = set()
        # The known submissions that this pass has not yet examined, in order.
        self._again: list[UUID] = []
        # The first of the open submissions beyond the maximum, and their number. All that follow it are read again.
        self._forgotten: UUID | None = None
        self._forgotten_count = 0
        self._unsupported = False

    def run_once(self) -> int:
        """Look at the next submissions; return their number, or 0 at the end of a pass."""
        if self._after is None:
            self._after = self._store.low_water(NAME)
        if self._far_after is not None:
            self._look_far(self._far_after, self._after)
            return 1
        if self._again:
            return self._look_again()
        found = self._store.sweep(self._after, self._limits.grace_seconds, SWEEP_MAX)
        open_ids = [id_ for id_, is_open in found if is_open]
        self._check_all(open_ids)
        self._remember(open_ids)
        self._after = found[-1][0] if found else self._after
        if len(found) == SWEEP_MAX:
            return len(found)
        self._end_pass(self._after)
        if self._clock() < self._far_at:
            return 0
        self._far_after = self._store.floor(FAR_SECONDS)
        return 1

    def _look_again(self) -> int:
        ids = self._again[:SWEEP_MAX]
        still = self._store.still_open(ids)
        self._check_all(still)
        self._known -= set(ids) - set(still)
        self._again = self._again[SWEEP_MAX:]
        return len(ids)

    def _remember(self, ids: Sequence[UUID]) -> None:
        for id_ in ids:
            if id_ in self._known or len(self._known) < self._limits.open_max:
                self._known.add(id_)
            else:
                self._forgotten = min(id_, self._forgotten or id_)
                self._forgotten_count += 1

    def _check_all(self, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), LABELS_MAX):
            self._look(ids[start : start + LABELS_MAX])

    def _look(self, ids: Sequence[UUID]) -> None:
        ids = self._recent.due(ids)
        if not ids or self._unsupported:
            return
        try:
            holding = self._relay.holding([str(id_) for id_ in ids])
        except UnsupportedError:
            self._unsupported = True
            self._log.warning(
                "look_unsupported", look=NAME, detail="the relay cannot report which submissions it holds"
            )
            return
        orphans = [id_ for id_ in ids if str(id_) not in holding.live]
        dead = [id_ for id_ in orphans if str(id_) in holding.dead_letters]
        if dead:
            self._retry_callbacks(dead, [dlq_id for id_ in dead for dlq_id in holding.dead_letters[str(id_)]])
        if lost := [id_ for id_ in orphans if str(id_) not in holding.dead_letters]:
            nudged = self._store.nudge_submissions(lost)
            self._recent.add(nudged)
            self._metrics.dispatched_again.inc(len(nudged))
            for id_ in nudged:
                self._log.warning("dispatched_again", submission_id=str(id_))

    def _retry_callbacks(self, ids: Sequence[UUID], dead_letters: Sequence[str]) -> None:
        for start in range(0, len(dead_letters), 100):
            self._relay.retry_dead_letters(dead_letters[start : start + 100])
        self._recent.add(ids)
        self._metrics.callbacks_retried.inc(len(dead_letters))
        for id_ in ids:
            self._log.warning("callback_driven", submission_id=str(id_))

    def _look_far(self, after: UUID, upto: UUID) -> None:
        """Look at the next submissions that were read before. The next pass examines open ones that are not known."""
        self._far_after, open_ids = self._store.open_between(after, upto, FAR_MAX)
        if late := [id_ for id_ in open_ids if id_ not in self._known]:
            self._log.warning("became_visible_late", submission_id=str(late[0]), submissions=len(late))
            self._remember(late)
        if self._far_after is None:
            self._far_at = self._clock() + FAR_EVERY_SECONDS
            self._begin_pass(upto)

    def _end_pass(self, last: UUID) -> None:
        """Store the low-water mark. Submissions never become open again, so it is before the first open one."""
        self._metrics.open.set(len(self._known) + self._forgotten_count)
        open_ids = self._known if self._forgotten is None else {*self._known, self._forgotten}
        mark = UUID(int=max(0, min(open_ids).int - 1)) if open_ids else last
        if mark != NO_ID:
            self._store.set_low_water(NAME, mark)
        self._begin_pass(last)

    def _begin_pass(self, last: UUID) -> None:
        self._after = last if self._forgotten is None else UUID(int=max(0, self._forgotten.int - 1))
        self._forgotten, self._forgotten_count = None, 0
        self._again = sorted(self._known)
