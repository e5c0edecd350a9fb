"""The starts of attempts, as the relay reports them: the request is signed, each start is verified, all are stored
together.
"""

from __future__ import annotations

from flask import Flask, Response, request
from prometheus_client import Counter
from psycopg import OperationalError

from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.problem import Fault, ProblemError
from services.api.relay_signature import RelaySignature
from services.api.routes.reply import body_of, json_reply
from services.api.starts import STARTS_BYTES_MAX, ReportedStarts, authentic_starts, read_starts
from tidings.contract.signature import InvalidSignatureError, check_body


def add_starts(app: Flask, dependencies: Dependencies) -> None:
    starts = Counter(
        "tidings_attempt_starts",
        "Starts of attempts that the relay reported: stored, forged, or repeated (including unknown submissions)",
        ["outcome"],
        registry=dependencies.registry,
    )
    signature = RelaySignature(dependencies.settings)

    @app.post("/callbacks/relay/starts")
    @access("signature")
    def relay_starts() -> Response:
        token = request.headers.get("Upstash-Signature", "")
        try:
            claims = signature.claims(token, request.path, request.query_string.decode("latin-1"))
            raw = body_of(request, STARTS_BYTES_MAX)
            check_body(claims, raw)
        except InvalidSignatureError as error:
            raise ProblemError(401, str(error), Fault("Upstash-Signature", str(error))) from None
        return json_reply({"stored": stored(read_starts(raw))})

    def stored(report: ReportedStarts) -> int:
        """Return how many starts were new."""
        known = authentic_starts(report, dependencies.authentication.is_callback_token)
        try:
            new = dependencies.store.insert_starts(known) if known else 0
        except OperationalError:
            raise ProblemError(503, "the database does not respond") from None
        for outcome, count in (("stored", new), ("repeated", len(known) - new)):
            starts.labels(outcome).inc(count)
        starts.labels("forged").inc(len(report.starts) - len(known))
        return new
