"""An answer's Content-Encoding undone, so that what is in it can be judged. Pure.

Without an `Accept-Encoding` any coding is acceptable (RFC 9110, section 12.5.3), so a provider may compress unasked.
"""

from __future__ import annotations

import zlib

# zlib's own window sizes: 16 more reads gzip, and a negative one a deflate stream without a header, which some servers
# send although RFC 9110, section 8.4.1.2, asks for one.
_GZIP = (zlib.MAX_WBITS | 16,)
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": (zlib.MAX_WBITS, -zlib.MAX_WBITS)}


def normal_coding(header: str | None) -> str | None:
    """The codings of a header `Content-Encoding`, without `identity`; None when there is none."""
    names = [name.strip().lower() for name in (header or "").split(",")]
    return ", ".join(name for name in names if name not in {"", "identity"}) or None


def decoded(body: bytes, coding: str | None, bytes_max: int) -> bytes | None:
    """`body` without its coding; None when it is damaged, longer than `bytes_max`, or of a coding that is not read here."""
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
