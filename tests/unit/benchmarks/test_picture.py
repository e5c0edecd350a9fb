"""The picture of where a submission's time goes."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from benchmarks.way.picture import draw

SVG = "{http://www.w3.org/2000/svg}"
SPENT = {"10/s": {"submit": 5.0, "CDC <row>": 20.0}, "50/s": {"submit": 10.0, "CDC <row>": 90.0}}


def bars(text: str) -> list[tuple[str, float]]:
    parts = ET.fromstring(text).iter(f"{SVG}rect")
    titled = [(part.find(f"{SVG}title"), float(part.attrib["width"])) for part in parts]
    return [(str(title.text), width) for title, width in titled if title is not None]


def test_each_hop_of_each_load_has_a_part_as_wide_as_its_time() -> None:
    found = bars(draw(SPENT))
    assert [title for title, _ in found] == [
        "submit: 5.0 ms",
        "CDC <row>: 20.0 ms",
        "submit: 10.0 ms",
        "CDC <row>: 90.0 ms",
    ]
    widths = [width for _, width in found]
    assert widths[1] / widths[0] == 4.0
    assert abs(widths[3] / widths[1] - 4.5) < 0.01


def test_a_negative_time_has_no_width() -> None:
    assert bars(draw({"10/s": {"submit": -0.4, "claim": 1.0}}))[0] == ("submit: -0.4 ms", 0.0)
