"""The errors of a call, by what is known of it afterwards. Their texts are sent to senders, and contain no secret."""

from __future__ import annotations


class NotSentError(Exception):
    """Nothing of the request was sent: no name, no connection, no TLS, or the request cannot be written."""


class NotAttemptedError(NotSentError):
    """No attempt was made, as the relay lacked a resource: retry after `seconds`. This says nothing about the
    destination.
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class NoAnswerError(Exception):
    """Some or all of the request was sent, and no complete answer came. The destination may have processed it."""


class StaleError(NoAnswerError):
    """The other side closed a kept connection without any byte of an answer, before the request was sent or so soon
    after that the connection was most likely idle for too long.
    """
