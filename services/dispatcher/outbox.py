"""Executes a batch of changes: it sends messages and cancels calls. It uses the relay and the api, not Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from structlog.stdlib import BoundLogger

from services.dispatcher.message import Call, Callbacks, Message, provider_call, webhook
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.relay import Accepted, Refused, Relay
from services.dispatcher.submissions import Submission, Submissions
from tidings.contract.change import ContentRemoval, ResultChange, SubmissionChange
from tidings.contract.removals import removal_requests
from tidings.contract.targets import Disabled, Resolved

# The size limit of one request to the relay, so that neither side needs much memory for it.
BATCH_BYTES_MAX = 8 * 1024 * 1024
BATCH_MESSAGES_MAX = 100
# A process that stalls for the session timeout of the group, 10 s after a heartbeat that is up to 3 s old, loses its
# partitions. Another member may then have handled the result of a submission that this process is about to send.
FRESH_SECONDS = 5.0
UNSIGNED = "the api takes webhooks and the dispatcher has no TIDINGS_WEBHOOK_SECRET: the webhook is not sent"


@dataclass(frozen=True)
class Webhooks:
    """The settings for webhooks: none without a `secret`; only to public addresses with `public_only`."""

    public_url: str
    secret: str | None = field(repr=False)
    public_only: bool = True


class Outbox:
    """Every operation may be repeated: the relay drops repeats by their deduplication id, the api by its keys."""

    def __init__(
        self,
        relay: Relay,
        submissions: Submissions,
        targets: Mapping[str, Resolved | Disabled],
        *,
        callbacks: Callbacks,
        webhooks: Webhooks,
        now: Callable[[], float],
        clock: Callable[[], float],
        metrics: DispatcherMetrics,
        log: BoundLogger,
    ) -> None:
        """`now` returns Unix seconds, `clock` monotonic seconds."""
        self._relay = relay
        self._submissions = submissions
        self._targets = targets
        self._callbacks = callbacks
        self._webhooks = webhooks
        self._now = now
        self._clock = clock
        self._metrics = metrics
        self._log = log

    def send(self, changes: Sequence[SubmissionChange]) -> set[str]:
        """Publish the provider calls of these submissions; return the ids that the api does not know.

        Raises `UnavailableError`; the caller then repeats the whole batch.
        """
        changes = self._not_held(changes)
        told = {str(change.id): change for change in changes}
        wanted = list(told)
        unknown: set[str] = set()
        while wanted:
            asked, rest = wanted[:BATCH_MESSAGES_MAX], wanted[BATCH_MESSAGES_MAX:]
            asked_at = self._clock()
            found, left_out = self._submissions.fetch(asked)
            if len(left_out) >= len(asked):
                raise RuntimeError("the api left out every submission it was asked for")
            self._publish_calls(self._messages(found, told), asked_at)
            unknown |= set(asked) - {submission.id for submission in found} - set(left_out)
            wanted = [*left_out, *rest]
        return unknown

    def end(self, changes: Sequence[ResultChange]) -> None:
        """Cancel the remaining calls of ended submissions, and send their webhooks.

        Calls of failed submissions are cancelled too: the relay may retry an answer that is final for the api.
        """
        # A snapshot, as after a lost slot, repeats old rows: their calls have ended and their webhooks were sent.
        changes = [change for change in changes if not change.snapshot]
        over = [str(change.submission_id) for change in changes if change.outcome != "succeeded"]
        for start in range(0, len(over), BATCH_MESSAGES_MAX):
            labels = over[start : start + BATCH_MESSAGES_MAX]
            self._cancel(labels)
        self._send_webhooks([change for change in changes if change.webhook])

    def remove_contents(self, removals: Sequence[ContentRemoval]) -> None:
        """Make the relay remove the content that it keeps of erased submissions. Raises `UnavailableError`."""
        # A snapshot repeats old rows. A removal that never reached the relay is not settled: the reconciler repeats it.
        told = [(removal.submission_id, removal.message_ids) for removal in removals if not removal.snapshot]
        for request in removal_requests(told):
            if (refusal := self._relay.remove_contents(request)) is not None:
                self._log.error("content_kept", labels=request.labels, reason=refusal.reason)

    def _cancel(self, labels: Sequence[str]) -> None:
        refusal = self._relay.cancel(labels)
        if refusal is None:
            self._metrics.cancelled.inc(len(labels))
        else:
            # The calls continue at their full cost; their callbacks change nothing.
            self._metrics.cancels_refused.inc(len(labels))
            self._log.error("cancel_refused", reason=refusal.reason, submissions=len(labels))

    def _send_webhooks(self, changes: Sequence[ResultChange]) -> None:
        own = self._webhooks
        if own.secret is None:
            for change in changes:
                self._metrics.refused.inc()
                self._log.error("webhook_unsigned", submission_id=str(change.submission_id), detail=UNSIGNED)
            return
        now = int(self._now())
        hooks = [webhook(change, own.public_url, own.secret, now, public_only=own.public_only) for change in changes]
        for batch in batches(hooks):
            self._publish(batch, "webhook")

    def _not_held(self, changes: Sequence[SubmissionChange]) -> list[SubmissionChange]:
        """Return the changes except the repeated ones whose call or callback the relay holds.
        The api is asked afterwards, so the result of a call that ended meanwhile is found there.
        """
        again = [str(change.id) for change in changes if change.told_again]
        held: set[str] = set()
        for start in range(0, len(again), BATCH_MESSAGES_MAX):
            held |= self._relay.held(again[start : start + BATCH_MESSAGES_MAX]) or set()
        self._metrics.skipped.inc(len(held))
        return [change for change in changes if str(change.id) not in held or not change.told_again]

    def _messages(self, found: Sequence[Submission], told: Mapping[str, SubmissionChange]) -> list[Message]:
        over = self._over([one.id for one in found if told[one.id].told_again and not one.ended])
        made = [self._message(one, told[one.id].nudged_at) for one in found if one.id not in over]
        return [message for message in made if message is not None]

    def _over(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids`, repeated and open, for which the relay has made a call: a second call would be paid
        twice.

        If the call is a dead letter and its callback is lost, the submission fails. Dead letters are read first: one
        that is retried in between is live afterwards, or has its result when this is repeated.
        """
        if not ids:
            return set()
        letters = {id_: letter for id_ in ids if (letter := self._relay.letter(id_)) is not None}
        held = self._relay.held(ids)
        if held is None:
            return set()  # such a relay cannot list the dead letters that are callbacks either
        self._metrics.skipped.inc(len(held))
        for id_ in letters.keys() - held:
            reason = f"the relay gave the call up and its callback is lost; its dead letter is {letters[id_]}"
            self._refuse(id_, "", reason)
        return held | letters.keys()

    def _message(self, submission: Submission, nudged_at: str | None) -> Message | None:
        if submission.ended:
            self._metrics.skipped.inc()
            return None
        target = self._targets.get(submission.target)
        if isinstance(target, Resolved):
            call = Call(submission.id, submission.content_type, submission.body, nudged_at)
            return provider_call(target, call, self._callbacks)
        reason = target.reason if target is not None else f"target {submission.target} is not known to the dispatcher"
        self._refuse(submission.id, "", reason)
        return None

    def _publish_calls(self, messages: Sequence[Message], asked_at: float) -> None:
        """Publish the calls. If the data of `asked_at` is old, submissions that have ended since are skipped; the calls
        of those that end during publishing are cancelled.
        """
        for batch in batches(messages):
            calls = batch
            if self._clock() - asked_at > FRESH_SECONDS:
                asked_at = self._clock()
                ended = self._ended(calls)
                self._metrics.skipped.inc(len(ended))
                calls = [call for call in calls if call.submission_id not in ended]
            if calls:
                self._publish(calls, "provider_call")
            if self._clock() - asked_at > FRESH_SECONDS and (ended := self._ended(calls)):
                self._cancel(sorted(ended))

    def _ended(self, calls: Sequence[Message]) -> set[str]:
        wanted, ended = [call.submission_id for call in calls], set[str]()
        while wanted:
            found, left_out = self._submissions.fetch(wanted)
            ended |= {submission.id for submission in found if submission.ended}
            if len(left_out) >= len(wanted):
                raise RuntimeError("the api left out every submission it was asked for")
            wanted = left_out
        return ended

    def _publish(self, batch: Sequence[Message], kind: str) -> None:
        for message, verdict in zip(batch, self._relay.publish(batch), strict=True):
            match verdict:
                case Accepted():
                    self._metrics.dispatched.labels(kind).inc()
                case Refused(reason) if kind == "provider_call":
                    self._refuse(message.submission_id, message.destination, f"the relay refused the call: {reason}")
                case Refused(reason):
                    self._metrics.refused.inc()
                    self._log.error("webhook_refused", submission_id=message.submission_id, reason=reason)

    def _refuse(self, submission_id: str, url: str, reason: str) -> None:
        self._log.warning("refused", submission_id=submission_id, reason=reason)
        self._submissions.refuse(submission_id, url, reason)
        self._metrics.refused.inc()


def batches(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Split `messages`, in order, into parts within both limits; a message that exceeds them is a part alone."""
    batch: list[Message] = []
    size = 0
    for message in messages:
        if batch and (len(batch) == BATCH_MESSAGES_MAX or size + message.size_bytes > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message.size_bytes
    if batch:
        yield batch
