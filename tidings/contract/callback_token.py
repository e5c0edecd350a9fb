"""The token by which a callback proves that the dispatcher asked for it. A valid signature of the relay alone does not:
whoever may publish at the relay can have it sign a body of their own for any address.
"""

from __future__ import annotations

import hashlib
import hmac


def callback_token(internal_token: str, submission_id: str) -> str:
    """HMAC-SHA256 in hex, of one submission. The relay forwards it and cannot make it: it has no internal token."""
    message = f"callback:{submission_id}".encode()
    return hmac.new(internal_token.encode(), message, hashlib.sha256).hexdigest()


def is_callback_token(token: str, internal_token: str, submission_id: str) -> bool:
    """Whether `token` is the one of `submission_id`, compared in constant time."""
    expected = callback_token(internal_token, submission_id)
    return hmac.compare_digest(token.encode(errors="replace"), expected.encode())
