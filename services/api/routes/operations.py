"""The routes for operators and machines: health, metrics and the OpenAPI document."""

from __future__ import annotations

from flask import Flask, Response
from prometheus_client import generate_latest

from services.api.authentication import access
from services.api.dependencies import Dependencies
from services.api.openapi import document
from services.api.routes.reply import json_reply

VERSION = "0.1.0"


def add_operations(app: Flask, dependencies: Dependencies) -> None:
    @app.get("/healthz")
    @access("public")
    def healthz() -> Response:
        return json_reply({"status": "ok"})

    @app.get("/readyz")
    @access("public")
    def readyz() -> Response:
        faults = {}
        try:
            dependencies.store.ping()
        except Exception as error:  # noqa: BLE001  any error means not ready
            faults["postgres"] = type(error).__name__
        if (fault := dependencies.committer.fault()) is not None:
            faults["committer"] = fault
        return json_reply({"status": "not ready", "faults": faults}, 503) if faults else json_reply({"status": "ok"})

    @app.get("/openapi.json")
    @access("public")
    def openapi() -> Response:
        return json_reply(document(VERSION))

    @app.get("/metrics")
    @access("public")
    def metrics() -> Response:
        return Response(generate_latest(dependencies.registry), content_type="text/plain; version=0.0.4; charset=utf-8")
