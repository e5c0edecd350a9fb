"""The tables of settings and metrics in docs/ agree with the code: each name, its process, its default and its meaning."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from services.api.settings import ApiSettings
from services.dispatcher.settings import DispatcherSettings
from services.notifier.settings import NotifierSettings
from services.reconciler.settings import ReconcilerSettings
from services.relay.settings import RelaySettings
from services.watcher.settings import WatcherSettings
from tests.process import ROOT
from tidings.database.migrate import MigrateSettings
from tidings.process.settings import Settings

SETTINGS: dict[str, type[Settings]] = {
    "api": ApiSettings, "dispatcher": DispatcherSettings, "notifier": NotifierSettings,
    "reconciler": ReconcilerSettings, "relay": RelaySettings, "watcher": WatcherSettings, "migrate": MigrateSettings,
}  # fmt: skip
KAFKA_READERS = "dispatcher, notifier, reconciler, watcher"
# A page, and the process of its settings when no column names it.
PAGES = {
    "docs/reference/settings.md": None, "docs/reference/relay.md": "relay", "docs/how-to/secure-kafka.md": KAFKA_READERS,
}  # fmt: skip
METRICS = "docs/reference/metrics.md"
# Each loop that reads Kafka (tidings/kafka/loop.py) has its name in its metrics.
LOOPS = ("dispatcher", "dispatcher_removals", "notifier", "notifier_channels")
FIELDS = [(process, field) for process, settings in SETTINGS.items() for field in settings.model_fields]


@pytest.mark.parametrize(("process", "field"), FIELDS)
def test_each_setting_is_in_a_table_with_its_process_and_its_default(process: str, field: str) -> None:
    info = SETTINGS[process].model_fields[field]
    name = str(info.validation_alias)
    rows = [(who, text) for names, who, text in _settings() if name in names and _is_of(process, name, who)]
    assert rows, f"no table has {name} for {process}"
    shown = _forms(info.default)
    assert any(_stands_in(form, text) for _, text in rows for form in shown), f"{name} ({process}): one of {shown}"


def test_each_setting_of_a_table_is_read_by_a_process() -> None:
    read = {str(info.validation_alias) for settings in SETTINGS.values() for info in settings.model_fields.values()}
    assert sorted({name for names, _, _ in _settings() for name in names} - read) == []


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    rows = {tuple(cells) for cells in _rows((ROOT / METRICS).read_text()) if cells[0].startswith("`")}
    assert rows == set(_metrics())


def _settings() -> Iterator[tuple[set[str], str, str]]:
    """The names of each row, the processes that read them, and the row's text."""
    for page, whose in PAGES.items():
        text = (ROOT / page).read_text()
        for table in re.findall(r"^\| variable \|.*\n(?:\|.*\n)+", text, re.MULTILINE):
            for cells in _rows(table):
                names = {each for part in re.findall(r"`([A-Z_{},]+)`", cells[0]) for each in _spelled_out(part)}
                yield names, whose or cells[1], " | ".join(cells)


def _is_of(process: str, name: str, who: str) -> bool:
    return process in who or who == "all" or (who == "each" and name.startswith(process.upper()))


def _forms(default: Any) -> list[str]:
    """The notations of a default; an empty one for a default that needs no text."""
    if default is PydanticUndefined:
        return ["equired"]
    if default is None or default in ({}, (), frozenset(), "") or isinstance(default, (SecretStr, frozenset)):
        return [""]
    if isinstance(default, (int, float)):
        mebibytes = [f"{default // 2**20:g} MiB"] if default >= 2**20 else []
        return [f"{default:.0f}", f"{default:,.0f}", *mebibytes]
    return [str(default.value if isinstance(default, Enum) else default)]


def _stands_in(form: str, text: str) -> bool:
    """As a whole word: 100 does not contain 10."""
    return (
        re.search(rf"(?<![0-9a-z]){re.escape(form)}(?![0-9a-z])" if form[:1].isdigit() else re.escape(form), text)
        is not None
    )


def _metrics() -> Iterator[tuple[str, str, str, str]]:
    """The name, kind, labels and meaning of each metric in the code, in the form of the table."""
    for folder in ("services", "tidings"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and _is_registered(call):
                    kind = str(getattr(call.func, "id", "")).lower()
                    labels = [f"`{each}`" for each in ast.literal_eval(call.args[2])] if len(call.args) > 2 else []
                    for name in _names(call.args[0]):
                        shown = f"`{name}_total`" if kind == "counter" else f"`{name}`"
                        yield shown, kind, ", ".join(labels), ast.literal_eval(call.args[1])


def _is_registered(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Name) or call.func.id not in {"Counter", "Gauge", "Histogram", "Summary"}:
        return False
    return any(word.arg == "registry" and not isinstance(word.value, ast.Constant) for word in call.keywords)


def _names(argument: ast.expr) -> list[str]:
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    pattern = ast.unparse(argument)[2:-1]
    assert "{process}" in pattern, pattern
    return [pattern.replace("{process}", loop) for loop in LOOPS]


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            yield [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def _spelled_out(name: str) -> list[str]:
    """Expand a name with alternatives: `TIDINGS_{API,CDC}_PASSWORD` is two names."""
    if not (found := re.search(r"\{([A-Z_,]+)\}", name)):
        return [name] if len(name) > 1 else []
    return [name.replace(found.group(), each) for each in found.group(1).split(",")]
