"""The Flask application. `create_app` builds it from the dependencies it receives."""

from __future__ import annotations

from flask import Flask, Response
from werkzeug.routing import BaseConverter

from services.api.dependencies import Dependencies
from services.api.problem import error_reply
from services.api.routes.article import add_article
from services.api.routes.callbacks import add_callbacks
from services.api.routes.contents import add_contents
from services.api.routes.dispatches import add_dispatches
from services.api.routes.operations import add_operations
from services.api.routes.reply import response_of
from services.api.routes.results import add_results
from services.api.routes.starts import add_starts
from services.api.routes.submissions import add_submissions


class _Id(BaseConverter):
    """An id in a path. It matches any text except the name of another route."""

    regex = "(?!batch$)[^/]+"
    part_isolating = True


def create_app(dependencies: Dependencies) -> Flask:
    """Build the application, ready to be served. It opens no connection itself."""
    app = Flask("tidings", static_folder=None)
    # Werkzeug's limit is the widest; asgi.py and then each view apply a narrower one.
    app.config["MAX_CONTENT_LENGTH"] = max(
        dependencies.settings.callback_bytes_max, dependencies.settings.batch_bytes_max
    )
    app.url_map.converters["id"] = _Id
    _register_errors(app)
    clients = (add_submissions, add_results, add_contents, add_article)
    for add in (*clients, add_callbacks, add_starts, add_dispatches, add_operations):
        add(app, dependencies)
    return app


def _register_errors(app: Flask) -> None:
    """Register handlers that answer every error of `app` with a problem document."""

    @app.errorhandler(Exception)
    def on_error(error: Exception) -> Response:
        return response_of(error_reply(error, app.logger))
