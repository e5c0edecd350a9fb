"""Links in documents lead to existing pages, their Python compiles, and the code for verifying webhooks works."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from services.dispatcher.message import webhook
from tests.process import ROOT
from tests.unit.test_documents import DOCUMENTS
from tests.unit.test_events import envelope
from tidings.contract.change import decode_result

PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*(?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH = re.compile(r"`((?:services|tidings|stack|tests|debezium|migrations|examples|benchmarks|requirements)/[\w./-]*)`")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_of_a_document_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    broken = []
    for path, anchor in LINK.findall(CODE.sub("", page.read_text())):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if not name.startswith("docs/decisions/")])
def test_each_path_in_a_document_exists(name: str) -> None:
    # Decisions name files as they were at the time.
    named = PATH.findall((ROOT / name).read_text())
    assert [path for path in named if "NNNN" not in path and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_python_of_a_document_compiles(name: str) -> None:
    for code in PYTHON.findall((ROOT / name).read_text()):
        compile(code, name, "exec")


def test_the_readme_shows_the_example_that_its_command_runs() -> None:
    [shown] = PYTHON.findall((ROOT / "README.md").read_text())
    example = ast.parse((ROOT / "examples" / "consumer.py").read_text()).body
    statements = [node for node in example if isinstance(node, ast.Assign | ast.For)]
    assert [ast.dump(node) for node in ast.parse(shown).body] == [ast.dump(node) for node in statements]


def test_the_code_of_the_webhooks_page_accepts_only_what_the_dispatcher_signed() -> None:
    [code] = PYTHON.findall((ROOT / "docs/how-to/receive-webhooks.md").read_text())
    found: dict[str, Any] = {}
    exec(code, found)
    change = decode_result(envelope())
    assert change is not None
    message = webhook(change, "http://x", SECRET, 1_767_225_600)
    prefix = "Upstash-Forward-"
    headers = {name.removeprefix(prefix): value for name, value in message.headers.items() if name.startswith(prefix)}
    body = message.body.encode()
    assert found["is_genuine"](SECRET, headers, body)
    assert not found["is_genuine"](SECRET, headers, body + b" ")
    assert not found["is_genuine"](SECRET, headers | {"webhook-timestamp": "1767225601"}, body)


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub creates for headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
