"""Verifies the relay's signature on a request from the head alone, before the body is read."""

from __future__ import annotations

from services.api.settings import ApiSettings
from tidings.contract.signature import Claims, verify_token

# The routes that only the relay calls.
CALLBACKS = ("/callbacks/relay", "/image-callback")
STARTS = "/callbacks/relay/starts"


class RelaySignature:
    """Holds the signing keys and the addresses under which the relay may call the api."""

    def __init__(self, settings: ApiSettings) -> None:
        keys = settings.current_signing_key, settings.next_signing_key
        self._keys = [key.get_secret_value() for key in keys]
        self._bases = list(dict.fromkeys([settings.callback_url or settings.public_url, settings.public_url]))

    def claims(self, token: str, path: str, query: str) -> Claims:
        """Return the claims of `Upstash-Signature`, for `check_body`. Raises `InvalidSignatureError`."""
        target = path + (f"?{query}" if query else "")
        return verify_token(token, keys=self._keys, urls=[base + target for base in self._bases])
