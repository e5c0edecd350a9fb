"""docs/reference/errors.md has exactly the errors that the api and the relay answer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from tests.process import ROOT

PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text()
# The calls that create an error from a status (their first argument) and a text (their second), and exceptions with a
# fixed status.
API = {"ProblemError": None, "problem": None, "_unauthorized": 401, "InvalidSignatureError": 401}
RELAY = {"RefusedError": None, "error_reply": None, "end": None, "not_found": 404}
# A text that is only known at run time. A row in italics describes it.
UNKNOWN = "…"
# Python 3.13 has other phrases.
FORMER = {"Content Too Large": "Request Entity Too Large", "Unprocessable Content": "Unprocessable Entity"}

Error = tuple[int, str]


def test_the_table_of_the_api_has_the_errors_of_its_code() -> None:
    made = set(_errors(API, "services/api", "tidings/contract/signature.py"))
    made = {each for each in made if each[1] != UNKNOWN}
    shown = {(status, text) for status, _, text in _api_rows()}
    assert (sorted(made - shown), sorted(shown - made)) == ([], [])


def test_the_title_of_each_error_is_the_phrase_of_its_status() -> None:
    phrases = {status: HTTPStatus(status).phrase for status, _, _ in _api_rows()}
    assert {(status, title) for status, title, _ in _api_rows()} == {
        (status, FORMER.get(phrase, phrase)) for status, phrase in phrases.items()
    }


def test_the_type_of_each_problem_is_blank() -> None:
    tree = ast.parse((ROOT / "services" / "api" / "problem.py").read_text())
    made = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    [content] = [text for text in made if "'type'" in text]
    assert "'type': 'about:blank', 'title': HTTPStatus(status).phrase, 'status': status, 'detail': detail" in content
    assert "`type` is always `about:blank`, so `title` is the phrase of the status." in PAGE.replace("\n", " ")


def test_the_table_of_the_relay_has_the_errors_of_its_code() -> None:
    made = set(_errors(RELAY, "services/relay"))
    rows = re.findall(r"^\| (\d{3}) \| (?:`([^`]+)`|\*[^*]+\*) \| [^|]+\|$", PAGE, re.MULTILINE)
    shown = {(int(status), text) for status, text in rows}
    assert sorted({each for each in made if each[1] != UNKNOWN} - shown) == []
    # The text of the others is in the code, but not beside the status.
    texts = {_text(node) for file in _files("services/relay/api") for node in ast.walk(ast.parse(file.read_text()))}
    assert sorted({text for _, text in shown - made} - {""} - texts) == []
    assert {status for status, _ in shown} == {status for status, _ in made}


def test_an_error_that_the_page_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "view.py").write_text(
        'def a(n):\n    raise ProblemError(418, f"no {n} tea", Fault("x"))\n\n'
        'def b():\n    why = "none"\n    raise ProblemError(404, why)\n\n'
        'def c(error):\n    raise ProblemError(409, str(error))\n'
    )  # fmt: skip
    assert set(_errors(API, str(tmp_path))) == {(418, "no … tea"), (404, "none"), (409, UNKNOWN)}


def _api_rows() -> list[tuple[int, str, str]]:
    rows = re.findall(r"^\| (\d{3}) \| ([A-Z][A-Za-z ]+) \| `([^`]+)` \| [^|]+\|$", PAGE, re.MULTILINE)
    return [(int(status), title, text) for status, title, text in rows]


def _errors(makers: dict[str, int | None], *places: str) -> Iterator[Error]:
    """Each status and text in the Python files of `places`."""
    for file in _files(*places):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _errors_of(function, makers)


def _files(*places: str) -> Iterator[Path]:
    for place in places:
        path = ROOT / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _errors_of(function: ast.FunctionDef | ast.AsyncFunctionDef, makers: dict[str, int | None]) -> Iterator[Error]:
    known = {
        target.id: _text(node.value)
        for node in ast.walk(function) if isinstance(node, ast.Assign)
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    for call in ast.walk(function):
        name = _name(call) if isinstance(call, ast.Call) else None
        if not isinstance(call, ast.Call) or name not in makers or function.name == name:
            continue
        status = makers[name]
        arguments: list[ast.expr] = list(call.args)
        if status is None:
            first = arguments.pop(0) if arguments else None
            if not isinstance(first, ast.Constant) or not isinstance(first.value, int) or not arguments:
                continue
            status = first.value
        text = arguments[0]
        shown = known.get(text.id, UNKNOWN) if isinstance(text, ast.Name) else _text(text)
        yield status, f"{UNKNOWN} not found" if name == "not_found" else shown


def _name(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


def _text(node: ast.AST) -> str:
    """A text literal, with `…` for each value in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else UNKNOWN for part in node.values)
    return UNKNOWN
