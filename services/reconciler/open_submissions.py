"""Looks at open submissions: one that no relay holds is dispatched again, and a callback among the dead letters is sent
again. The relay commits an attempt's end and its callback together, so a submission without a live message and without a
result is one that nobody works on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from structlog.stdlib import BoundLogger

from services.reconciler.acted import Acted
from services.reconciler.metrics import ReconcilerMetrics
from services.reconciler.relay import LABELS_MAX, Relay, UnsupportedError
from services.reconciler.store import NO_ID, Store

NAME = "open_submissions"
# Submissions of one look, most of which have ended: some milliseconds of an index.
SWEEP_MAX = 5_000
# A pass begins at the low-water mark. A submission below it that became visible late, as one whose commit waited for a
# standby for longer than the grace, is found by a far look: by the same index, so many at a time, some 50 ms each.
FAR_SECONDS = 31 * 86_400
FAR_EVERY_SECONDS = 3_600.0
FAR_MAX = 20_000


class OpenSubmissions:
    """A pass goes over all submissions from the low-water mark to those younger than the grace, some at a time. After
    some passes a far look goes over those below the mark, and puts the mark before the first that is open.
    """

    def __init__(
        self,
        store: Store,
        relay: Relay,
        acted: Acted,
        metrics: ReconcilerMetrics,
        log: BoundLogger,
        *,
        clock: Callable[[], float],
        grace_seconds: float,
    ) -> None:
        """`clock` is monotonic seconds."""
        self._store = store
        self._relay = relay
        self._acted = acted
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._after: UUID | None = None
        self._far_after: UUID | None = None
        self._far_at = clock()
        self._first_open: UUID | None = None
        self._open = 0
        self._unsupported = False

    def run_once(self) -> int:
        """Look at the next submissions; how many. 0 at the end of a pass."""
        if self._after is None:
            self._after = self._store.low_water(NAME)
        if self._far_after is not None:
            self._look_far(self._far_after, self._after)
            return 1
        found = self._store.sweep(self._after, self._grace_seconds, SWEEP_MAX)
        open_ids = [id_ for id_, is_open in found if is_open]
        for start in range(0, len(open_ids), LABELS_MAX):
            self._look(open_ids[start : start + LABELS_MAX])
        if open_ids and self._first_open is None:
            self._first_open = open_ids[0]
        self._open += len(open_ids)
        if len(found) < SWEEP_MAX:
            self._end_pass(found[-1][0] if found else self._after)
            if self._clock() < self._far_at:
                return 0
            self._far_after = self._store.floor(FAR_SECONDS)
            return 1
        self._after = found[-1][0]
        return len(found)

    def _look(self, ids: Sequence[UUID]) -> None:
        ids = self._acted.due(ids)
        if not ids or self._unsupported:
            return
        try:
            holding = self._relay.holding([str(id_) for id_ in ids])
        except UnsupportedError:
            self._unsupported = True
            self._log.warning("look_unsupported", look=NAME, detail="the relay cannot say which submissions it holds")
            return
        orphans = [id_ for id_ in ids if str(id_) not in holding.live]
        dead = [id_ for id_ in orphans if str(id_) in holding.letters]
        if dead:
            self._drive(dead, [letter for id_ in dead for letter in holding.letters[str(id_)]])
        if lost := [id_ for id_ in orphans if str(id_) not in holding.letters]:
            nudged = self._store.nudge_submissions(lost)
            self._acted.add(nudged)
            self._metrics.dispatched_again.inc(len(nudged))
            for id_ in nudged:
                self._log.warning("dispatched_again", submission_id=str(id_))

    def _drive(self, ids: Sequence[UUID], letters: Sequence[str]) -> None:
        for start in range(0, len(letters), 100):
            self._relay.retry_letters(letters[start : start + 100])
        self._acted.add(ids)
        self._metrics.letters_driven.inc(len(letters))
        for id_ in ids:
            self._log.warning("callback_driven", submission_id=str(id_))

    def _look_far(self, after: UUID, mark: UUID) -> None:
        """The next below the mark. At the end the mark is where the next pass begins."""
        last, first_open = self._store.first_open(after, mark, FAR_MAX)
        if first_open is not None:
            self._log.warning("became_visible_late", submission_id=str(first_open))
            self._after = UUID(int=first_open.int - 1)
            self._store.set_low_water(NAME, self._after)
        self._far_after = last if first_open is None else None
        if self._far_after is None:
            self._far_at = self._clock() + FAR_EVERY_SECONDS

    def _end_pass(self, last: UUID) -> None:
        """The next pass begins before the first that is open, as nothing before it can become open again."""
        self._metrics.open.set(self._open)
        mark = last if self._first_open is None else UUID(int=max(0, self._first_open.int - 1))
        if mark != NO_ID:
            self._store.set_low_water(NAME, mark)
        self._after, self._first_open, self._open = mark, None, 0
