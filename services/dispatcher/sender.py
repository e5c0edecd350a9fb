"""Executes a batch of changes: it sends messages and cancels calls. It uses the relay and the api, not Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from services.dispatcher.api_client import ApiClient, Submission
from services.dispatcher.message import Call, Message, MessageBuilder, Unsendable
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.relay_client import Accepted, Refused, RelayClient
from services.dispatcher.timing import Timing
from tidings.contract.change import ContentRemoval, ResultChange, SubmissionChange
from tidings.contract.removals import removal_requests
from tidings.process.telemetry import Telemetry

# The size limit of one request to the relay, so that neither side needs much memory for it.
BATCH_BYTES_MAX = 8 * 1024 * 1024
BATCH_MESSAGES_MAX = 100
# A process that stalls for the session timeout of the group, 10 s after a heartbeat that is up to 3 s old, loses its
# partitions. Another member may then have handled the result of a submission that this process is about to send.
FRESH_SECONDS = 5.0
UNSIGNED = "the webhook is not sent: the api accepts webhooks, but the dispatcher has no TIDINGS_WEBHOOK_SECRET"


class Sender:
    """Every operation may be repeated: the relay drops repeats by their deduplication id, the api by its keys."""

    def __init__(
        self,
        relay: RelayClient,
        api: ApiClient,
        builder: MessageBuilder,
        *,
        timing: Timing,
        telemetry: Telemetry[DispatcherMetrics],
    ) -> None:
        self._relay = relay
        self._api = api
        self._builder = builder
        self._now = timing.now
        self._clock = timing.clock
        self._metrics = telemetry.metrics
        self._log = telemetry.log

    def send(self, changes: Sequence[SubmissionChange]) -> set[str]:
        """Publish the provider calls of these submissions; return the ids that the api does not know.

        Raises `UnavailableError`; the caller then repeats the whole batch.
        """
        changes = self._not_held(changes)
        by_id = {str(change.id): change for change in changes}
        wanted = list(by_id)
        unknown: set[str] = set()
        while wanted:
            ids, rest = wanted[:BATCH_MESSAGES_MAX], wanted[BATCH_MESSAGES_MAX:]
            fetched_at = self._clock()
            submissions, left_out = self._api.fetch(ids)
            if len(left_out) >= len(ids):
                raise RuntimeError("the api returned none of the requested submissions")
            self._publish_calls(self._messages(submissions, by_id), fetched_at)
            unknown |= set(ids) - {submission.id for submission in submissions} - set(left_out)
            wanted = [*left_out, *rest]
        return unknown

    def end(self, changes: Sequence[ResultChange]) -> None:
        """Cancel the remaining calls of ended submissions, and send their webhooks.

        Calls of failed submissions are cancelled too: the relay may retry an answer that is final for the api.
        """
        # A snapshot, as after a lost slot, repeats old rows: their calls have ended and their webhooks were sent.
        changes = [change for change in changes if not change.snapshot]
        labels = [str(change.submission_id) for change in changes if change.outcome != "succeeded"]
        for start in range(0, len(labels), BATCH_MESSAGES_MAX):
            self._cancel(labels[start : start + BATCH_MESSAGES_MAX])
        self._send_webhooks([change for change in changes if change.webhook])

    def remove_contents(self, removals: Sequence[ContentRemoval]) -> None:
        """Make the relay remove the content that it keeps of erased submissions. Raises `UnavailableError`."""
        # A snapshot repeats old rows. A removal that never reached the relay is not settled: the reconciler repeats it.
        contents = [(removal.submission_id, removal.message_ids) for removal in removals if not removal.snapshot]
        for request in removal_requests(contents):
            if (refusal := self._relay.remove_contents(request)) is not None:
                self._log.error("content_not_removed", labels=request.labels, reason=refusal.reason)

    def _cancel(self, labels: Sequence[str]) -> None:
        refusal = self._relay.cancel(labels)
        if refusal is None:
            self._metrics.cancelled.inc(len(labels))
        else:
            # The calls continue at their full cost; their callbacks change nothing.
            self._metrics.cancels_refused.inc(len(labels))
            self._log.error("cancel_refused", reason=refusal.reason, submissions=len(labels))

    def _send_webhooks(self, changes: Sequence[ResultChange]) -> None:
        now = int(self._now())
        webhooks: list[Message] = []
        for change in changes:
            if (webhook := self._builder.webhook(change, now)) is not None:
                webhooks.append(webhook)
            else:
                self._metrics.refused.inc()
                self._log.error("webhook_unsigned", submission_id=str(change.submission_id), detail=UNSIGNED)
        for batch in batches(webhooks):
            self._publish(batch, "webhook")

    def _not_held(self, changes: Sequence[SubmissionChange]) -> list[SubmissionChange]:
        """Return the changes except the repeated ones whose call or callback the relay holds.
        The api is asked afterwards, so the result of a call that ended meanwhile is found there.
        """
        repeated = [str(change.id) for change in changes if change.repeated]
        held: set[str] = set()
        for start in range(0, len(repeated), BATCH_MESSAGES_MAX):
            held |= self._relay.held(repeated[start : start + BATCH_MESSAGES_MAX]) or set()
        self._metrics.skipped.inc(len(held))
        return [change for change in changes if str(change.id) not in held or not change.repeated]

    def _messages(self, submissions: Sequence[Submission], changes: Mapping[str, SubmissionChange]) -> list[Message]:
        called = self._called([one.id for one in submissions if changes[one.id].repeated and not one.ended])
        messages = [self._message(one, changes[one.id].nudged_at) for one in submissions if one.id not in called]
        return [message for message in messages if message is not None]

    def _called(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids`, repeated and open, for which the relay has made a call: a second call would be paid
        twice.

        If the call is a dead letter and its callback is lost, the submission fails. Dead letters are read first: one
        that is retried in between is live afterwards, or has its result when this is repeated.
        """
        if not ids:
            return set()
        dead_letters = {id_: dlq_id for id_ in ids if (dlq_id := self._relay.dead_letter(id_)) is not None}
        held = self._relay.held(ids)
        if held is None:
            return set()  # such a relay cannot list the dead letters that are callbacks either
        self._metrics.skipped.inc(len(held))
        for id_ in dead_letters.keys() - held:
            reason = f"the call failed and its callback is lost; the dead letter of the relay is {dead_letters[id_]}"
            self._refuse(id_, "", reason)
        return held | dead_letters.keys()

    def _message(self, submission: Submission, nudged_at: str | None) -> Message | None:
        if submission.ended:
            self._metrics.skipped.inc()
            return None
        call = Call(submission.id, submission.content_type, submission.body, nudged_at)
        message = self._builder.provider_call(submission.target, call)
        if isinstance(message, Unsendable):
            self._refuse(submission.id, "", message.reason)
            return None
        return message

    def _publish_calls(self, messages: Sequence[Message], fetched_at: float) -> None:
        """Publish the calls. If the data of `fetched_at` is old, submissions that have ended since are skipped; the
        calls of those that end during publishing are cancelled.
        """
        for batch in batches(messages):
            calls = batch
            if self._clock() - fetched_at > FRESH_SECONDS:
                fetched_at = self._clock()
                ended = self._ended(calls)
                self._metrics.skipped.inc(len(ended))
                calls = [call for call in calls if call.submission_id not in ended]
            if calls:
                self._publish(calls, "provider_call")
            if self._clock() - fetched_at > FRESH_SECONDS and (ended := self._ended(calls)):
                self._cancel(sorted(ended))

    def _ended(self, calls: Sequence[Message]) -> set[str]:
        wanted, ended = [call.submission_id for call in calls], set[str]()
        while wanted:
            submissions, left_out = self._api.fetch(wanted)
            ended |= {submission.id for submission in submissions if submission.ended}
            if len(left_out) >= len(wanted):
                raise RuntimeError("the api returned none of the requested submissions")
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
        self._api.refuse(submission_id, url, reason)
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
