"""Which documents are made, and of what."""

from __future__ import annotations

from pathlib import Path

from docs.tools.rest import page
from docs.tools.system import picture
from services.api.openapi import document

ROOT = Path(__file__).resolve().parent.parent.parent
REST = "docs/reference/rest.md"
PICTURE = "docs/pictures/system.svg"


def made() -> dict[str, str]:
    """Return the text of each such document, by its path."""
    # The page does not show the version.
    return {REST: page(document("0")), PICTURE: picture()}
