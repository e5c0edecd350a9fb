"""The units of tests for xdist. Each name in their tables exists."""

from __future__ import annotations

import re

from tests.order import CHECKOUT, CHECKOUT_FILES, CONNECT, FIRST, SPLIT, STACK, STACK_FILES, in_order, unit_of
from tests.process import ROOT

WAY = "tests/acceptance/test_way.py::test_a"
WEBHOOK = "tests/acceptance/test_webhooks.py::test_b[1]"
STOP = "tests/integration/relay/test_stops.py::test_c"
OTHER_STOP = "tests/integration/relay/test_stops.py::test_d[x::y]"
UNIT = "tests/unit/test_order.py::test_e"
OTHER_UNIT = "tests/unit/test_order.py::test_f"
STORE = "tests/integration/relay_store/test_plans.py::test_g"


def test_a_file_is_a_unit() -> None:
    assert unit_of(UNIT) == unit_of(OTHER_UNIT) == "tests/unit/test_order.py"


def test_files_that_share_a_server_are_one_unit_and_tests_that_share_nothing_are_several() -> None:
    assert unit_of(WAY) == unit_of(WEBHOOK)
    assert unit_of(STOP) != unit_of(OTHER_STOP)
    assert unit_of(CONNECT + "test_changes.py::test_h") == unit_of(CONNECT + "test_tls.py::test_i")


def test_long_units_are_first_and_tests_without_io_last_and_the_rest_keeps_its_order() -> None:
    given = [UNIT, OTHER_UNIT, STORE, STOP, WEBHOOK, WAY]
    assert in_order(given) == [WEBHOOK, WAY, STOP, STORE, UNIT, OTHER_UNIT]


def test_the_files_of_a_checkouts_stack_have_an_order_as_the_last_one_stops_it() -> None:
    tests = [f"{file}::test_a" for file in CHECKOUT_FILES]
    assert in_order([*reversed(tests), WAY]) == [WAY, *tests]
    assert {unit_of(test) for test in tests} == {CHECKOUT}
    assert CHECKOUT_FILES[-1].endswith("/test_documents.py")


def test_each_named_file_and_folder_exists() -> None:
    named = [*STACK_FILES, *CHECKOUT_FILES, *SPLIT, *(name for name in FIRST if name not in {STACK, CHECKOUT})]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_file_that_uses_the_shared_stack_is_in_its_unit() -> None:
    """A file of another unit would start a stack of its own."""
    files = list((ROOT / "tests" / "acceptance").glob("test_*.py"))
    users = {str(file.relative_to(ROOT)) for file in files if re.search(r"\bstack: Stack[,)]", file.read_text())}
    tests = {name for name in users if "def stack(" not in (ROOT / name).read_text()}
    assert tests == STACK_FILES
    checkouts = {str(file.relative_to(ROOT)) for file in files if "checkout: Checkout" in file.read_text()}
    assert checkouts == set(CHECKOUT_FILES)
