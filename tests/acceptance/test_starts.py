"""A second start of a stack finds the first one."""

from __future__ import annotations

import subprocess
import sys

from tests.acceptance.checkouts import Checkout
from tests.process import ROOT
from tests.wait import patient


def test_two_starts_at_once_are_one_stack(checkout: Checkout) -> None:
    assert sorted("already running" in printed for printed in checkout.starts) == [False, True], checkout.starts
    stack = checkout.stack
    assert stack.ended(stack.submit())["status"] == "succeeded"
    owner = subprocess.run(
        [sys.executable, "-m", "stack", "run"],
        cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=patient(60), check=False,
    )  # fmt: skip
    assert (owner.returncode, owner.stderr.startswith("error: another process uses")) == (1, True)
    assert stack.ended(stack.submit())["status"] == "succeeded"
