"""`tidings relay token`, as an operator calls it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.integration.relay_store.conftest import Run, Stores


def tidings(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tidings", "relay", *arguments],
        env=os.environ | {"RELAY_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_token_is_created_listed_and_revoked(run: Run, relay_url: str) -> None:
    made = tidings(relay_url, "token", "create", "ci", "--read-only", "--publishes-per-second", "7")
    assert made.returncode == 0, made.stderr
    again = tidings(relay_url, "token", "create", "ci")
    assert again.returncode == 1
    assert "there is or was a token named ci" in again.stderr

    async def story(stores: Stores) -> None:
        found = await stores.tokens.find(made.stdout.strip())
        assert found is not None
        assert (found.name, found.writes, found.publishes_per_second) == ("ci", False, 7)

    run(story)
    assert tidings(relay_url, "token", "revoke", "ci").stdout == "revoked\n"
    assert tidings(relay_url, "token", "revoke", "ci").returncode == 1
    assert "ci  read-only  7/s" in (listed := tidings(relay_url, "token", "list").stdout)
    assert "revoked" in listed
    assert made.stdout.strip() not in listed
