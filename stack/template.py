"""Filling in `${name}` of a properties file. Other uses of `$`, as Connect's own `${env:NAME}`, stay as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill(template: str, values: Mapping[str, object]) -> str:
    """Raises `KeyError` for a name without a value: a half-filled file would fail later and say less."""
    return re.sub(r"\$\{([a-z_]+)\}", lambda found: str(values[found.group(1)]), template)
