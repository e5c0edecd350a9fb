"""A picture of where a submission's time goes: a bar for each load, a part for each hop. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, BAR, GAP, LEFT, RIGHT, LEGEND = 860, 34, 26, 70, 90, 22
# Readable on light and dark ground, and told apart with colour blindness (Okabe and Ito, 2008).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#999999", "#0072b2", "#d55e00", "#cc79a7", "#7f6000")
STYLE = """\
  <style>
    text { font: 13px system-ui, sans-serif; fill: #222 }
    @media (prefers-color-scheme: dark) { text { fill: #ddd } }
  </style>"""


def draw(spent: Mapping[str, Mapping[str, float]]) -> str:
    """An SVG document. `spent`: mean milliseconds of each hop, by load; a negative hop is drawn as none."""
    names = list(dict.fromkeys(hop for times in spent.values() for hop in times))
    colours = dict(zip(names, COLOURS, strict=False))
    totals = {load: sum(max(0.0, one) for one in times.values()) for load, times in spent.items()}
    scale = (WIDTH - LEFT - RIGHT) / max(1.0, *totals.values())
    height = len(spent) * (BAR + GAP) + (len(names) + 1) // 2 * LEGEND + 40
    label = "; ".join(f"{load}: {total:.0f} ms" for load, total in totals.items())
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(label, quote=True)}">',
        "  <title>Where the time of a submission goes, without the provider's</title>",
        STYLE,
    ]
    for row, (load, times) in enumerate(spent.items()):
        y, x = row * (BAR + GAP) + 10, float(LEFT)
        lines.append(f'  <text x="{LEFT - 8}" y="{y + BAR / 2 + 5:.0f}" text-anchor="end">{escape(load)}</text>')
        for hop, one in times.items():
            width = max(0.0, one) * scale
            lines.append(
                f'  <rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colours[hop]}">'
                f"<title>{escape(hop)}: {one:.1f} ms</title></rect>"
            )
            x += width
        lines.append(f'  <text x="{x + 8:.1f}" y="{y + BAR / 2 + 5:.0f}">{totals[load]:.0f} ms</text>')
    top = len(spent) * (BAR + GAP) + 24
    for number, hop in enumerate(names):
        x, y = LEFT + number % 2 * (WIDTH - LEFT) // 2, top + number // 2 * LEGEND
        lines.append(f'  <rect x="{x}" y="{y - 11}" width="12" height="12" fill="{colours[hop]}"/>')
        lines.append(f'  <text x="{x + 18}" y="{y}">{escape(hop)}</text>')
    return "\n".join([*lines, "</svg>", ""])
