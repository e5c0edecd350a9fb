"""The callbacks of the relay: the route verifies, classifies and stores them."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Flask, Response, request
from prometheus_client import Counter
from psycopg import OperationalError

from services.api.authentication import access
from services.api.callback import decide, read_callback
from services.api.dependencies import Dependencies
from services.api.problem import Fault, ProblemError
from services.api.relay_signature import RelaySignature
from services.api.routes.reply import body_of, json_reply
from tidings.contract.ids import parse_submission_id
from tidings.contract.signature import InvalidSignatureError, check_body


def add_callbacks(app: Flask, dependencies: Dependencies) -> None:
    callbacks = Counter("tidings_callbacks", "Callbacks of the relay", ["outcome"], registry=dependencies.registry)
    unknown = Counter(
        "tidings_attempts_unknown",
        "Attempts without an answer that the provider may have executed",
        registry=dependencies.registry,
    )
    signature = RelaySignature(dependencies.settings)

    @app.post("/callbacks/relay")
    @app.post("/image-callback", endpoint="image_callback")
    @access("signature")
    def callback() -> Response:
        token = request.headers.get("Upstash-Signature", "")
        try:
            claims = signature.claims(token, request.path, request.query_string.decode("latin-1"))
            # The signature proves that the relay sent the request, but any client of the relay can make it send one.
            dependencies.authentication.callback(request.args.get("submission", ""))
            raw = body_of(request, dependencies.settings.callback_bytes_max)
            check_body(claims, raw)
        except InvalidSignatureError as error:
            callbacks.labels("forged").inc()
            raise ProblemError(401, str(error), Fault("Upstash-Signature", str(error))) from None
        try:
            outcome = stored(raw)
        except OperationalError:
            # Without Retry-After: it would override the message's own delays and use up its retries in minutes.
            raise ProblemError(503, "the database does not respond") from None
        callbacks.labels(outcome).inc()
        return json_reply({"status": outcome})

    def stored(raw: bytes) -> str:
        """Store the callback and return what it reports."""
        report, answer = read_callback(raw)
        id_ = parse_submission_id(request.args.get("submission", ""))
        found = None if id_ is None else dependencies.store.target_of(id_)
        if id_ is None or found is None:
            # The signature is valid, so the sender is our relay, but the submission does not exist. Rows are never
            # deleted one by one, so a repeat cannot find it either.
            callbacks.labels("unknown").inc()
            raise ProblemError(400, "there is no such submission", Fault("submission", "is not known"))
        attempt, result = decide(report, answer, dependencies.targets.get(found[0]), datetime.now(UTC))
        ended = dependencies.store.record(id_, found[1], attempt, result)
        if report.fate == "unknown":
            unknown.inc()
        return result.outcome if result is not None and ended else "attempt" if result is None else "repeat"
