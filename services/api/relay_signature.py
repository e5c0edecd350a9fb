"""The relay's signature on a request: checked by its head alone, before the body is read."""

from __future__ import annotations

from services.api.settings import ApiSettings
from tidings.contract.signature import Claims, verify_token

# The routes that the relay alone calls.
CALLBACKS = ("/callbacks/relay", "/image-callback")
STARTS = "/callbacks/relay/starts"


class RelaySignature:
    """Knows the keys, and the addresses that the relay may have called."""

    def __init__(self, settings: ApiSettings) -> None:
        keys = settings.current_signing_key, settings.next_signing_key
        self._keys = [key.get_secret_value() for key in keys]
        self._bases = list(dict.fromkeys([settings.callback_url or settings.public_url, settings.public_url]))

    def claims(self, token: str, path: str, query: str) -> Claims:
        """Of `Upstash-Signature`, for `check_body`. Raises `InvalidSignatureError`."""
        asked = path + (f"?{query}" if query else "")
        return verify_token(token, keys=self._keys, urls=[base + asked for base in self._bases])
