"""SQL is in `.sql` files. No text in the code of processes is a statement."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("services", "tidings", "stack")
# The first word of a statement in upper case, or the form of one in any case. `"DELETE"` alone is a method of HTTP.
_WORDS = (
    "SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|CREATE|ALTER|DROP|GRANT|REVOKE|TRUNCATE|COPY|LOCK|LISTEN|NOTIFY|"
    "VACUUM|SET|RESET|SHOW|BEGIN|COMMIT|ROLLBACK|EXPLAIN|CALL|DO"
)
_UPPER = re.compile(rf"\s*(?:{_WORDS})\s+\S")
_FORM = re.compile(
    r"\s*(?:select\s.*\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s+\S+(?:\s+where\s|\s*$)"
    r"|(?:create|alter|drop)\s+(?:table|schema|role|database|index|function|publication)\s+\S)",
    re.IGNORECASE | re.DOTALL,
)


def statements(source: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each string that begins like a statement, without docstrings and comments in SQL."""
    tree = ast.parse(source)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and id(node) not in documents:
            text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
            bare = re.sub(r"--[^\n]*\n|/\*.*?\*/", " ", text, flags=re.DOTALL)
            if _UPPER.match(bare) or _FORM.match(bare):
                yield node.lineno, text


def test_no_process_has_a_statement_in_its_code() -> None:
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(paths) > 200
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]}" for path in paths for line, text in statements(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'execute("SELECT relay.make_partitions(2)")',
        'execute("select id from relay.messages")',
        'execute(f"UPDATE {table} SET a = 1")',
        'execute(b"DELETE FROM relay.messages")',
        'execute("-- why\\nINSERT INTO t VALUES (1)")',
        'execute("""\n  WITH found AS (SELECT 1) SELECT * FROM found\n""")',
        'execute("ALTER " + "x", "SET ROLE tidings_owner")',
        'execute("create table t (a integer)")',
    ],
)
def test_a_statement_in_code_is_found(source: str) -> None:
    assert len(list(statements(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """SELECT a row FROM somewhere."""',
        'call("DELETE", "/v2/messages")',
        'log.info("committer", mode="Set limits that messages do not change from now on")',
        'help("Drop months whose last day is older than that.")',
        'queries("messages")["select_ids"]',
    ],
)
def test_other_text_is_not_reported(source: str) -> None:
    assert list(statements(source)) == []
