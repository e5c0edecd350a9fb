"""A real PNG drawn from a prompt: the same for the same prompt and number, different for others."""

from __future__ import annotations

import hashlib
import io
import random
from typing import Literal

from PIL import Image, ImageDraw

# In OpenAI's sizes a picture takes a tenth of a second to draw; the stand-in's are a quarter as wide.
SHRINK = 4


def draw(prompt: str, number: int, size: tuple[int, int]) -> bytes:
    """PNG bytes; `size` is OpenAI's, in pixels."""
    chance = random.Random(hashlib.sha256(f"{number}:{prompt}".encode()).digest())
    width, height = max(32, size[0] // SHRINK), max(32, size[1] // SHRINK)
    picture = Image.new("RGB", (width, height), _colour(chance, 20, 90))
    pen = ImageDraw.Draw(picture, "RGBA")
    for _ in range(14):
        x, y = chance.randrange(width), chance.randrange(height)
        radius = chance.randrange(width // 12, width // 3)
        kind: Literal["ellipse", "rectangle"] = chance.choice(["ellipse", "rectangle"])
        getattr(pen, kind)((x - radius, y - radius, x + radius, y + radius), fill=(*_colour(chance, 80, 255), 110))
    pen.rectangle((0, height - 18, width, height), fill=(0, 0, 0, 160))
    text = prompt.encode("ascii", "replace").decode()[: width // 6 - 1]
    pen.text((4, height - 15), text, fill=(255, 255, 255, 255))
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=6)
    return content.getvalue()


def _colour(chance: random.Random, low: int, high: int) -> tuple[int, int, int]:
    return chance.randrange(low, high), chance.randrange(low, high), chance.randrange(low, high)
