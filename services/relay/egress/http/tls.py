"""Which servers are trusted."""

from __future__ import annotations

import ssl
from pathlib import Path


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Verifies servers against the system's authorities and those of `ca_bundle` (PEM). Raises `ssl.SSLError` if it is
    not valid PEM.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_bundle is not None:
        context.load_verify_locations(ca_bundle)
    return context
