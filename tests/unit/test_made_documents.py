"""The documents that docs/tools generates are those that are committed, and are complete."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from honcho.environ import parse_procfile

from docs.tools.made import REST, made
from docs.tools.rest import page
from docs.tools.system import DESCRIPTION, PICTURE, picture
from services.api.openapi import document
from tests.process import ROOT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", sorted(made()))
def test_a_generated_document_is_the_committed_one(name: str) -> None:
    assert (ROOT / name).read_text() == made()[name], f"`make documents` writes {name}"


def test_the_rest_page_has_each_route_with_its_caller_and_its_statuses() -> None:
    content = document("0")
    expected = {
        (method.upper(), path, ", ".join(status for status in operation["responses"] if status != "default"))
        for path, operations in content["paths"].items()
        for method, operation in operations.items()
    }
    rows = re.findall(r"^\| `([A-Z]+)` \| \[`([^`]+)`\]\([^)]+\) \| \w+ \| ([\d, ]+) \|$", _rest(), re.MULTILINE)
    assert set(rows) == expected
    assert len(rows) == len(expected)


def test_the_rest_page_has_each_field_of_each_body() -> None:
    schemas = document("0")["components"]["schemas"]
    sections = dict(
        re.findall(r"^### (\w+)\n(.*?)(?=^###|\Z)", _rest().partition("## Bodies")[2], re.MULTILINE | re.DOTALL)
    )
    for name, schema in schemas.items():
        for field in schema.get("properties", {}):
            mark = r"\*" if field in schema.get("required", ()) else ""
            assert re.search(rf"^\| `{field}`{mark} \| \S", sections[name], re.MULTILINE), f"{name}.{field}"


def test_the_rest_page_changes_with_the_description() -> None:
    content = document("0")
    content["components"]["schemas"]["NewSubmission"]["properties"]["added"] = {"type": "integer"}
    content["paths"]["/v1/added"] = {"get": content["paths"]["/v1/submissions"]["get"]}
    changed = page(content)
    assert "| `added` | integer |" in changed
    assert "### GET /v1/added" in changed


def test_the_picture_names_each_process_and_each_server() -> None:
    names = {box.name for box in PICTURE.boxes}
    assert set(parse_procfile((ROOT / "Procfile").read_text()).processes) - {"provider"} <= names
    assert {"Postgres", "Kafka"} <= names


def test_the_picture_has_a_text_for_screen_readers_and_two_modes() -> None:
    root = ET.fromstring(picture())
    described = (root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc"), root.get("role"))
    assert described == (PICTURE.title, DESCRIPTION, "img")
    assert root.get("aria-labelledby") == "title description"
    style = root.findtext(f"{SVG}style") or ""
    light, mode, dark = style.partition("@media (prefers-color-scheme: dark)")
    assert mode
    drawn = {element.get("class") for element in root.iter() if element.get("class")} - {"name"}
    assert [kind for kind in drawn for part in (light, dark) if f".{kind} {{" not in part] == []


def test_no_text_of_the_picture_is_cut_off_or_overlaps_another() -> None:
    texts = PICTURE.all_texts()
    assert [text.words for text in texts if not (text.left > 0 and text.left + text.width < PICTURE.width)] == []
    for number, one in enumerate(texts):
        for other in texts[number + 1 :]:
            apart = one.left + one.width <= other.left or other.left + other.width <= one.left
            assert apart or abs(one.y - other.y) >= 13, f"{one.words} and {other.words}"
    for box in PICTURE.boxes:
        assert max(text.width for text in box.texts()) <= box.width, box.name


def _rest() -> str:
    return (ROOT / REST).read_text()
