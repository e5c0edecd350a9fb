"""The callbacks of the relay."""

from __future__ import annotations

from flask import Flask, Response, request

from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.recording import CallbackHead
from services.api.routes.reply import body_of, response_of


def add_callbacks(app: Flask, dependencies: Dependencies) -> None:
    @app.post("/callbacks/relay")
    @app.post("/image-callback", endpoint="image_callback")
    @access("signature")
    def callback() -> Response:
        head = CallbackHead(
            path=request.path,
            query=request.query_string.decode("latin-1"),
            submission=request.args.get("submission", ""),
            signature=request.headers.get("Upstash-Signature", ""),
            authorization=request.headers.get("Authorization", ""),
        )
        claims = dependencies.recording.authenticate(head)
        raw = body_of(request, dependencies.settings.callback_bytes_max)
        return response_of(dependencies.recording.record(claims, head.submission, raw))
