"""`POST /callbacks/relay`, from a request to its reply. It knows neither Flask nor a server.

`asgi.py` calls `record_async` for each such request. Small callbacks that arrive together are stored by one statement.
A large or encoded one is stored alone in a thread, by `record`, which also serves the Flask view: it may take a second,
and no other callback waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter
from psycopg import OperationalError

from services.api.authentication import Authentication
from services.api.callback import Callback, decide, read_callback
from services.api.committer import Committer
from services.api.problem import Fault, ProblemError
from services.api.relay_signature import RelaySignature
from services.api.reply import Reply, json_reply
from services.api.store import Recorded, Store
from services.api.submit import INLINE_BYTES_MAX, InThread
from tidings.contract.ids import SubmissionId, parse_submission_id
from tidings.contract.signature import Claims, InvalidSignatureError, check_body
from tidings.contract.targets import Target

UNKNOWN = "unknown"


class CallbackHead(NamedTuple):
    """The parts of a request's head that have a meaning. `submission` is the parameter of the query."""

    path: str
    query: str
    submission: str
    signature: str
    authorization: str


@dataclass(frozen=True)
class Report:
    """A callback that was read. `answer` is the provider's response in it."""

    submission_id: SubmissionId
    callback: Callback
    answer: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.answer)

    @property
    def is_encoded(self) -> bool:
        """Whether the answer has a content coding. Decoded it may be a thousand times as large."""
        return self.callback.first("content-encoding") is not None


class Recorder:
    """Decides what reports mean, and stores it."""

    def __init__(self, store: Store, targets: Mapping[str, Target]) -> None:
        self._store = store
        self._targets = targets

    def record(self, reports: Sequence[Report]) -> list[str]:
        """Store `reports` together. Return for each the outcome, `attempt` if it is none, `repeat` if the submission
        had ended before, or `UNKNOWN` if there is no such submission.
        """
        known = self._store.targets_of({report.submission_id for report in reports})
        now = datetime.now(UTC)
        recorded = [
            Recorded(report.submission_id, *decide(report.callback, report.answer, self._targets.get(target), now))
            for report in reports
            if (target := known.get(report.submission_id)) is not None
        ]
        ended = self._store.record(recorded)
        following = iter(recorded)
        return [_outcome(next(following), ended) if report.submission_id in known else UNKNOWN for report in reports]


class Recording:
    """Answers callbacks. Its functions raise `ProblemError`."""

    def __init__(
        self,
        signature: RelaySignature,
        authentication: Authentication,
        recorder: Recorder,
        committer: Committer[Report, str],
        registry: CollectorRegistry,
    ) -> None:
        self._signature = signature
        self._authentication = authentication
        self._recorder = recorder
        self._committer = committer
        self._callbacks = Counter("tidings_callbacks", "Callbacks of the relay", ["outcome"], registry=registry)
        self._unknown = Counter(
            "tidings_attempts_unknown",
            "Attempts without an answer that the provider may have executed",
            registry=registry,
        )

    def authenticate(self, head: CallbackHead) -> Claims:
        """Return the claims of the signature, from the head alone. Raises `ProblemError` 401."""
        try:
            claims = self._signature.claims(head.signature, head.path, head.query)
        except InvalidSignatureError as error:
            raise self._forged(error) from None
        # The signature proves that the relay sent the request, but any client of the relay can make it send one.
        self._authentication.check_callback(head.authorization, head.submission)
        return claims

    def record(self, claims: Claims, submission: str, body: bytes) -> Reply:
        return self._record_alone(self._read(claims, submission, body))

    async def record_async(self, claims: Claims, submission: str, body: bytes, in_thread: InThread) -> Reply:
        """`record` for the event loop: small bodies are read in it, and the commit is awaited without a thread."""
        large = len(body) > INLINE_BYTES_MAX
        report: Report = (
            await in_thread(self._read, claims, submission, body) if large else self._read(claims, submission, body)
        )
        if large or report.is_encoded:
            reply: Reply = await in_thread(self._record_alone, report)
            return reply
        try:
            outcome = await self._committer.store_async(report)
        except OperationalError as error:
            raise _away() from error
        return self._reply(report, outcome)

    def _read(self, claims: Claims, submission: str, body: bytes) -> Report:
        try:
            check_body(claims, body)
        except InvalidSignatureError as error:
            raise self._forged(error) from None
        callback, answer = read_callback(body)
        id_ = parse_submission_id(submission)
        if id_ is None:
            raise self._no_submission()
        return Report(id_, callback, answer)

    def _record_alone(self, report: Report) -> Reply:
        try:
            [outcome] = self._recorder.record([report])
        except OperationalError as error:
            raise _away() from error
        return self._reply(report, outcome)

    def _reply(self, report: Report, outcome: str) -> Reply:
        if outcome == UNKNOWN:
            raise self._no_submission()
        self._callbacks.labels(outcome).inc()
        if report.callback.fate == "unknown":
            self._unknown.inc()
        return json_reply({"status": outcome})

    def _no_submission(self) -> ProblemError:
        # The signature is valid, so the sender is our relay, but the submission does not exist. Rows are never deleted
        # one by one, so a repeat cannot find it either.
        self._callbacks.labels(UNKNOWN).inc()
        return ProblemError(400, "there is no such submission", Fault("submission", "is not known"))

    def _forged(self, error: InvalidSignatureError) -> ProblemError:
        self._callbacks.labels("forged").inc()
        return ProblemError(401, str(error), Fault("Upstash-Signature", str(error)))


def _outcome(recorded: Recorded, ended: set[SubmissionId]) -> str:
    """Only the first of several reports in `ended` ended the submission, so it is taken out."""
    if recorded.result is None:
        return "attempt"
    if recorded.submission_id not in ended:
        return "repeat"
    ended.remove(recorded.submission_id)
    return recorded.result.outcome


def _away() -> ProblemError:
    # Without Retry-After: it would override the message's own delays and use up its retries in minutes.
    return ProblemError(503, "the database does not respond")
