"""Decodes the Content-Encoding of a response, so that its content can be classified. Pure.

Without an `Accept-Encoding` any coding is acceptable (RFC 9110, section 12.5.3), so a provider may compress unasked.
"""

from __future__ import annotations

import zlib

# Window sizes of zlib: 16 more reads gzip. A negative size reads a deflate stream without a header, which some servers
# send although RFC 9110, section 8.4.1.2, requires one.
_GZIP = (zlib.MAX_WBITS | 16,)
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS)}


def normal_coding(header: str | None) -> str | None:
    """Return the codings of a `Content-Encoding` header without `identity`, or None if there are none."""
    names = [name.strip().lower() for name in (header or "").split(",")]
    return ", ".join(name for name in names if name not in {"", "identity"}) or None


def decoded(body: bytes, coding: str | None, bytes_max: int) -> bytes | None:
    """Return `body` decoded, or None if it is damaged, is longer than `bytes_max`, or has an unsupported coding."""
    if coding is None:
        return body
    for window in _WINDOWS.get(coding, ()):
        reader = zlib.decompressobj(window)
        try:
            found = reader.decompress(body, bytes_max + 1)
        except zlib.error:
            continue
        return found if reader.eof and len(found) <= bytes_max else None
    return None
