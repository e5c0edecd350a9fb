"""The work in a batch of changes: what to send and what to cancel. Knows the relay and the api, not Kafka."""

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

# What one request to the relay may carry, so that neither side needs much memory for it.
BATCH_BYTES_MAX = 8 * 1024 * 1024
BATCH_MESSAGES_MAX = 100
# A process that stalls for the group's session timeout, 10 s after a heartbeat that is up to 3 s old, loses its partitions,
# and another one may have handled the end of what it is about to send.
FRESH_SECONDS = 5.0
UNSIGNED = "the api takes webhooks and the dispatcher has no TIDINGS_WEBHOOK_SECRET: the webhook is not sent"


@dataclass(frozen=True)
class Webhooks:
    """How clients' webhooks are sent: not at all without a `secret`, and, when `public_only`, to public addresses alone."""

    public_url: str
    secret: str | None = field(repr=False)
    public_only: bool = True


class Outbox:
    """Everything here may be repeated: the relay drops repeats by their deduplication id, the api by its keys."""

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
        """`now` is Unix seconds, `clock` monotonic ones."""
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
        """Give the relay the provider calls of these submissions; the ids that the api does not know.

        Raises `UnavailableError`; to be repeated whole then.
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
        """Take back what is still under way for ended submissions, and send their webhooks.

        A failed one too: the api may have judged an answer final which the relay would try again.
        """
        # A snapshot tells rows of long ago again, as after a lost slot: their calls are over and their webhooks were sent.
        changes = [change for change in changes if not change.snapshot]
        over = [str(change.submission_id) for change in changes if change.outcome != "succeeded"]
        for start in range(0, len(over), BATCH_MESSAGES_MAX):
            labels = over[start : start + BATCH_MESSAGES_MAX]
            self._cancel(labels)
        self._send_webhooks([change for change in changes if change.webhook])

    def remove_contents(self, removals: Sequence[ContentRemoval]) -> None:
        """Have the relay remove what it keeps of erased submissions. Raises `UnavailableError`."""
        # A snapshot tells rows of long ago again. One that was not told before is not settled: the reconciler removes it.
        told = [(removal.submission_id, removal.message_ids) for removal in removals if not removal.snapshot]
        for request in removal_requests(told):
            if (refusal := self._relay.remove_contents(request)) is not None:
                self._log.error("content_kept", labels=request.labels, reason=refusal.reason)

    def _cancel(self, labels: Sequence[str]) -> None:
        refusal = self._relay.cancel(labels)
        if refusal is None:
            self._metrics.cancelled.inc(len(labels))
        else:
            # The calls go on, and cost what they cost; their callbacks change nothing any more.
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
        """Without those told again whose call or callback the relay has. The api is asked after this, so a call that
        ended meanwhile has its result there.
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
        """Those of `ids`, told again and open, for which the relay has made a call: a second one would be paid twice.

        One whose call is a dead letter, and whose callback is lost, fails. Dead letters are asked for first: one that
        is sent again in between is live after that, or has its result when this is repeated.
        """
        if not ids:
            return set()
        letters = {id_: letter for id_ in ids if (letter := self._relay.letter(id_)) is not None}
        held = self._relay.held(ids)
        if held is None:
            return set()  # nor can it say which of its dead letters are callbacks
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
        """What ended since `asked_at`, if that is a while ago, is not sent; what ended while it was sent is taken back."""
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
    """`messages` in order, cut so that each part keeps to both limits; one too large for them goes alone."""
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
