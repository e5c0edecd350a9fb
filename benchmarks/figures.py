"""Percentiles, and the file of the results."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as `share` of all values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def write(name: str, content: dict[str, Any]) -> Path:
    """Write `results/<name>.json`, with the time and the machine of the measurement."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
    path.write_text(json.dumps({"seen": datetime.now(UTC).isoformat(), "machine": machine} | content, indent=2) + "\n")
    return path
