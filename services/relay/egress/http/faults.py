"""What can go wrong with a call, by what is known of it afterwards. The texts are told to senders, and name no secret."""

from __future__ import annotations


class NotSentError(Exception):
    """Nothing of the request left: no name, no connection, no TLS, or the request cannot be written."""


class NotAttemptedError(NotSentError):
    """Nothing was tried, for want of something of ours: come again after `seconds`. It says nothing of the destination."""

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


class NoAnswerError(Exception):
    """The request, or some of it, left, and no whole answer came: it may have been worked on."""


class StaleError(NoAnswerError):
    """The other side closed a kept connection without a byte of an answer, before the request was sent or so soon after that
    it was most likely idle for too long.
    """
