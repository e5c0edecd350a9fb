"""Boxes and arrows as SVG, in two sets of colours: the reader's light or dark mode decides. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Widths are those of the characters of most sans-serif fonts at 13 pixels, rounded up, so that no text is cut off.
CHARACTER_WIDTH = 7.2
STYLE = """\
    text { font: 13px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1f2328 }
    .name { font-weight: 600 }
    .small { fill: #59636e }
    .page { fill: #ffffff; stroke: #d1d9e0 }
    .ours { fill: #ddf4ff; stroke: #0969da }
    .server { fill: #f6f8fa; stroke: #59636e }
    .other { fill: #ffffff; stroke: #59636e; stroke-dasharray: 5 3 }
    .arrow { fill: none; stroke: #59636e; stroke-width: 1.5 }
    .head { fill: #59636e }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc }
      .small { fill: #b1bac4 }
      .page { fill: #0d1117; stroke: #3d444d }
      .ours { fill: #0c2d4f; stroke: #58a6ff }
      .server { fill: #21262d; stroke: #9198a1 }
      .other { fill: #0d1117; stroke: #9198a1 }
      .arrow { stroke: #9198a1 }
      .head { fill: #9198a1 }
    }"""


@dataclass(frozen=True)
class Text:
    """One line; `anchor` is start, middle or end."""

    x: float
    y: float
    words: str
    kind: str = "small"
    anchor: str = "middle"

    @property
    def left(self) -> float:
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        return self.x - share * self.width

    @property
    def width(self) -> float:
        return len(self.words) * CHARACTER_WIDTH


@dataclass(frozen=True)
class Box:
    """A box with its centre at `x`, `y`, its name, and a line below the name; `kind` is ours, server or other."""

    x: int
    y: int
    name: str
    words: str
    kind: str
    width: int = 150
    height: int = 56

    def texts(self) -> tuple[Text, Text]:
        return Text(self.x, self.y - 4, self.name, "name"), Text(self.x, self.y + 14, self.words)


@dataclass(frozen=True)
class Arrow:
    """A line through `points`, with a head at its end and `words` centred on `at`, a line each."""

    points: tuple[tuple[int, int], ...]
    words: tuple[str, ...]
    at: tuple[int, int]
    anchor: str = "middle"
    line_height: int = 17

    def texts(self) -> tuple[Text, ...]:
        x, y = self.at
        return tuple(
            Text(x, y + n * self.line_height, words, "small", self.anchor) for n, words in enumerate(self.words)
        )


@dataclass(frozen=True)
class Picture:
    title: str
    description: str
    width: int
    height: int
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]
    texts: Sequence[Text] = ()

    def all_texts(self) -> list[Text]:
        parts: list[Arrow | Box] = [*self.arrows, *self.boxes]
        return [text for part in parts for text in part.texts()] + list(self.texts)


def svg(picture: Picture) -> str:
    """Return the picture as an SVG document."""
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {picture.width} {picture.height}"'
            f' width="{picture.width}" height="{picture.height}" role="img" aria-labelledby="title description">'
        ),
        f'  <title id="title">{escape(picture.title)}</title>',
        f'  <desc id="description">{escape(picture.description)}</desc>',
        f"  <style>\n{STYLE}\n  </style>",
        (
            '  <defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
        ),
        f'  <rect class="page" x="0.5" y="0.5" width="{picture.width - 1}" height="{picture.height - 1}" rx="8"/>',
    ]
    for arrow in picture.arrows:
        path = " ".join(f"{x} {y}" for x, y in arrow.points)
        lines.append(f'  <path class="arrow" d="M{path}" marker-end="url(#head)"/>')
    for box in picture.boxes:
        left, top = box.x - box.width // 2, box.y - box.height // 2
        lines.append(
            f'  <rect class="{box.kind}" x="{left}" y="{top}" width="{box.width}" height="{box.height}" rx="6"/>'
        )
    for text in picture.all_texts():
        place = f'x="{text.x:g}" y="{text.y:g}" text-anchor="{text.anchor}"'
        lines.append(f'  <text class="{text.kind}" {place}>{escape(text.words)}</text>')
    return "\n".join([*lines, "</svg>", ""])
