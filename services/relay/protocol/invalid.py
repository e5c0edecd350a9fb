"""The error of a request that its sender must change."""

from __future__ import annotations


class InvalidRequestError(Exception):
    """The sender must change the request; the text says what. Answered with 400."""
