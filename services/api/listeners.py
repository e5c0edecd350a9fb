"""The api's two ports: what each serves, whose bodies it reads, and by how many threads."""

from __future__ import annotations

from collections.abc import Mapping

from services.api.authentication import Authentication
from services.api.front import BodyRule, Guard, Listener
from services.api.head import Head
from services.api.problem import Fault, ProblemError
from services.api.routes.dispatches import ASKED_BYTES_MAX
from services.api.settings import ApiSettings
from tidings.signature import InvalidSignatureError, verify_token

CALLBACKS = ("/callbacks/relay", "/image-callback")
# Owners of bodies that no tenant's name can be.
_RELAY, _DISPATCHER = "#relay", "#dispatcher"
# The dispatcher is one thread; the relay's callbacks take a thread for a few milliseconds each.
INTERNAL_THREADS = 12
_INTERNAL_ALONE = ("/internal/", "/metrics")
_INTERNAL = (*_INTERNAL_ALONE, *CALLBACKS, "/healthz", "/readyz")


def public(settings: ApiSettings) -> Listener:
    """For clients. Callbacks are taken here as well, as a hosted relay reaches no other port."""
    bodies = {
        "/v1/submissions": BodyRule(settings.input_bytes_max, _by_api_key),
        "/v1/submissions/batch": BodyRule(settings.batch_bytes_max, _by_api_key),
        "/generate-image": BodyRule(settings.input_bytes_max, _by_api_key),
        **_callbacks(settings),
    }
    return Listener(lambda path: not path.startswith(_INTERNAL_ALONE), bodies, settings.threads)


def internal(settings: ApiSettings, authentication: Authentication) -> Listener:
    """For the dispatcher, the relay and whoever reads figures: no client can be in their way here."""

    def by_token(head: Head) -> str:
        authentication.check_internal(head.headers.get("authorization", ""))
        return _DISPATCHER

    bodies = {"/internal/dispatches": BodyRule(ASKED_BYTES_MAX, by_token), **_callbacks(settings)}
    return Listener(lambda path: path.startswith(_INTERNAL), bodies, INTERNAL_THREADS)


def callback_bases(settings: ApiSettings) -> list[str]:
    """The addresses that a callback may be signed for, without their path."""
    return list(dict.fromkeys([settings.callback_url or settings.public_url, settings.public_url]))


def _by_api_key(_head: Head) -> None:
    return None


def _callbacks(settings: ApiSettings) -> Mapping[str, BodyRule]:
    keys = [settings.current_signing_key.get_secret_value(), settings.next_signing_key.get_secret_value()]
    bases = callback_bases(settings)

    def by_signature(head: Head) -> str:
        path = head.path + (f"?{head.query}" if head.query else "")
        try:
            verify_token(head.headers.get("upstash-signature", ""), keys=keys, urls=[base + path for base in bases])
        except InvalidSignatureError as error:
            raise ProblemError(401, str(error), Fault("Upstash-Signature", str(error))) from None
        return _RELAY

    guard: Guard = by_signature
    return {path: BodyRule(settings.callback_bytes_max, guard) for path in CALLBACKS}
