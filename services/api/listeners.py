"""The two ports of the api: the routes of each, the owners of its bodies, and its number of threads."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from urllib.parse import parse_qs

from services.api.asgi import BodyRule, Caller, Listener
from services.api.authentication import Authentication
from services.api.head import Head
from services.api.problem import Fault, ProblemError
from services.api.recording import CallbackHead, Recording
from services.api.relay_signature import CALLBACKS, STARTS, RelaySignature
from services.api.reply import Reply
from services.api.routes.dispatches import REQUEST_BYTES_MAX
from services.api.settings import ApiSettings
from services.api.starts import STARTS_BYTES_MAX
from services.api.submit import PATH, InThread, Submit, read_request
from tidings.contract.signature import InvalidSignatureError

# Owners of bodies whose names no tenant can have.
_RELAY, _DISPATCHER = "#relay", "#dispatcher"
# The dispatcher is one thread; a callback of the relay occupies a thread for a few milliseconds.
INTERNAL_THREADS = 12
_INTERNAL_ALONE = ("/internal/", "/metrics")
_INTERNAL = (*_INTERNAL_ALONE, *CALLBACKS, STARTS, "/healthz", "/readyz")


def public(settings: ApiSettings, submit: Submit, recording: Recording) -> Listener:
    """The port for clients. It also takes callbacks, because a hosted relay reaches no other port."""

    def endpoint(caller: Caller, head: Head, body: bytes, in_thread: InThread) -> Awaitable[Reply]:
        return submit.submit_async(read_request(caller.owner, head.headers, body), in_thread)

    bodies = {
        PATH: BodyRule(settings.input_bytes_max, _by_api_key, endpoint),
        "/v1/submissions/batch": BodyRule(settings.batch_bytes_max, _by_api_key),
        "/generate-image": BodyRule(settings.input_bytes_max, _by_api_key),
        **_callbacks(settings, recording),
    }
    return Listener(lambda path: not path.startswith(_INTERNAL_ALONE), bodies, settings.threads)


def internal(settings: ApiSettings, authentication: Authentication, recording: Recording) -> Listener:
    """The port for the dispatcher, the relay and metrics: clients cannot block it."""

    def by_token(head: Head) -> Caller:
        authentication.check_internal(head.headers.get("authorization", ""))
        return Caller(_DISPATCHER)

    bodies = {"/internal/dispatches": BodyRule(REQUEST_BYTES_MAX, by_token), **_callbacks(settings, recording)}
    return Listener(lambda path: path.startswith(_INTERNAL), bodies, INTERNAL_THREADS)


def _by_api_key(_head: Head) -> None:
    return None


def _callbacks(settings: ApiSettings, recording: Recording) -> Mapping[str, BodyRule]:
    signature = RelaySignature(settings)

    def by_signature(head: Head) -> Caller:
        try:
            claims = signature.claims(head.headers.get("upstash-signature", ""), head.path, head.query)
        except InvalidSignatureError as error:
            raise ProblemError(401, str(error), Fault("Upstash-Signature", str(error))) from None
        return Caller(_RELAY, claims)

    def by_signature_and_token(head: Head) -> Caller:
        return Caller(_RELAY, recording.authenticate(_callback_head(head)))

    def endpoint(caller: Caller, head: Head, body: bytes, in_thread: InThread) -> Awaitable[Reply]:
        assert caller.claims is not None
        return recording.record_async(caller.claims, _submission(head), body, in_thread)

    rule = BodyRule(settings.callback_bytes_max, by_signature_and_token, endpoint)
    return dict.fromkeys(CALLBACKS, rule) | {STARTS: BodyRule(STARTS_BYTES_MAX, by_signature)}


def _callback_head(head: Head) -> CallbackHead:
    return CallbackHead(
        path=head.path,
        query=head.query,
        submission=_submission(head),
        signature=head.headers.get("upstash-signature", ""),
        authorization=head.headers.get("authorization", ""),
    )


def _submission(head: Head) -> str:
    return parse_qs(head.query).get("submission", [""])[0]
