"""The commands that documents show, each with the test that runs it, or the reason why none does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import dedent

from tests.process import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

STEPS = "tests/acceptance/test_documents.py::"
SERVER = "tests/integration/test_document_commands.py::"
# By page, the test of each block in the order of the page. None: the block is in NOT_RUN.
RUN: dict[str, tuple[str | None, ...]] = {
    "README.md": (
        "tests/acceptance/test_commands.py::test_the_demo_shows_a_completion_and_leaves_nothing_behind",
        None,
        STEPS + "test_the_readme",
        STEPS + "test_the_readme",
        None,
        STEPS + "test_the_articles_curl",
    ),
    "docs/tutorial.md": (STEPS + "test_the_tutorial",) * 9,
    "docs/how-to/add-a-target.md": (STEPS + "test_submitting_to_a_target",),
    "docs/how-to/back-up.md": (STEPS + "test_a_backup",),
    "docs/how-to/existing-postgres-and-kafka.md": (SERVER + "test_the_commands_for_an_existing_database",),
    "docs/how-to/expired-changes.md": (
        STEPS + "test_expired_changes",
        None,
        STEPS + "test_expired_changes",
        STEPS + "test_expired_changes",
    ),
    "docs/how-to/hanging-transaction.md": (None,),
    "docs/how-to/move-from-qstash.md": (SERVER + "test_the_commands_for_the_relay_alone",) * 2,
    "docs/how-to/receive-webhooks.md": (STEPS + "test_a_submission_with_a_webhook",),
    "docs/how-to/run-with-docker.md": (None,),
    "docs/how-to/stuck-submission.md": (STEPS + "test_a_stuck_submission",) * 3,
}
# By page and first line, the reason.
NOT_RUN = {
    ("README.md", "make test"): "it runs the tests, so that one of them would start itself",
    ("README.md", "make down"): "it needs an account of a provider; the tutorial's step 6 is the same with one of its own",
    ("docs/how-to/expired-changes.md", "docker compose exec connect sh -c 'curl -sX PUT -u tidings:$TIDINGS_CONNECT_PASSWORD \\"):
        "it needs a Docker engine, and stops what the tests with compose share; natively the same is run",
    ("docs/how-to/hanging-transaction.md", "bin/kafka-transactions.sh --bootstrap-server localhost:9092 find-hanging --broker-id 1"):
        "it needs Kafka's own distribution and a hanging transaction; tests/integration/watcher has the watcher do the same",
    ("docs/how-to/run-with-docker.md", "make compose-env          # once: .env with new secrets, providers.env for providers' keys"):
        "it needs a Docker engine; tests/acceptance/test_compose.py starts the same with ports and secrets of its own",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A block of a page, without the indentation of the list that contains it."""

    page: str
    language: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0]


def pages() -> list[str]:
    return [*PAGES, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def blocks_in(page: str, text: str) -> list[Block]:
    return [Block(page, language, dedent(code)) for _, language, code in _FENCED.findall(text)]


def blocks_of(page: str, language: str | None = None) -> list[Block]:
    """The blocks of a page in order, of one language or of all."""
    found = blocks_in(page, (ROOT / page).read_text())
    return found if language is None else [block for block in found if block.language == language]


def run_by(page: str, test: str) -> Sequence[str]:
    """The commands of a page that `test` of its file must run."""
    tests = RUN[page]
    return [
        block.text
        for block, name in zip(blocks_of(page, "sh"), tests, strict=True)
        if name and name.endswith(f"::{test}")
    ]
