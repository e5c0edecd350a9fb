"""The token that proves that the dispatcher requested a callback.
A valid signature of the relay alone is not a proof: any client of the relay can make it sign any body for any address.
"""

from __future__ import annotations

import hashlib
import hmac


def callback_token(internal_token: str, submission_id: str) -> str:
    """Return the HMAC-SHA256 of one submission in hex.
    The relay forwards it and cannot compute it, because it does not have the internal token.
    """
    message = f"callback:{submission_id}".encode()
    return hmac.new(internal_token.encode(), message, hashlib.sha256).hexdigest()


def is_callback_token(token: str, internal_token: str, submission_id: str) -> bool:
    """Return whether `token` is the token of `submission_id`; the comparison takes constant time."""
    expected = callback_token(internal_token, submission_id)
    return hmac.compare_digest(token.encode(errors="replace"), expected.encode())
