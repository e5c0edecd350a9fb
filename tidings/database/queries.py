"""Named statements from a `.sql` file: each begins with a line `-- name: …`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: *([a-z_0-9]+) *$", re.MULTILINE)


def load_queries(package: str, file: str = "queries.sql") -> Mapping[str, LiteralString]:
    """Return the statements of `file` in `package`, by name. As part of the code they count as literal text."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: cast("LiteralString", sql.strip()) for name, sql in zip(parts[::2], parts[1::2], strict=True)}
