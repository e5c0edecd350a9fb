"""The api's two ports: what each serves, whose bodies it reads, and by how many threads."""

from __future__ import annotations

from collections.abc import Mapping

from services.api.authentication import Authentication
from services.api.front import BodyRule, Guard, Listener
from services.api.head import Head
from services.api.problem import Fault, ProblemError
from services.api.relay_signature import CALLBACKS, STARTS, RelaySignature
from services.api.routes.dispatches import ASKED_BYTES_MAX
from services.api.settings import ApiSettings
from services.api.starts import STARTS_BYTES_MAX
from tidings.contract.signature import InvalidSignatureError

# Owners of bodies that no tenant's name can be.
_RELAY, _DISPATCHER = "#relay", "#dispatcher"
# The dispatcher is one thread; the relay's callbacks take a thread for a few milliseconds each.
INTERNAL_THREADS = 12
_INTERNAL_ALONE = ("/internal/", "/metrics")
_INTERNAL = (*_INTERNAL_ALONE, *CALLBACKS, STARTS, "/healthz", "/readyz")


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


def _by_api_key(_head: Head) -> None:
    return None


def _callbacks(settings: ApiSettings) -> Mapping[str, BodyRule]:
    signature = RelaySignature(settings)

    def by_signature(head: Head) -> str:
        try:
            signature.claims(head.headers.get("upstash-signature", ""), head.path, head.query)
        except InvalidSignatureError as error:
            raise ProblemError(401, str(error), Fault("Upstash-Signature", str(error))) from None
        return _RELAY

    guard: Guard = by_signature
    sizes = dict.fromkeys(CALLBACKS, settings.callback_bytes_max) | {STARTS: STARTS_BYTES_MAX}
    return {path: BodyRule(size, guard) for path, size in sizes.items()}
