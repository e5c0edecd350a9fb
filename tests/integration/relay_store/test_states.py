"""The state diagram in docs/reference/relay.md shows exactly the transitions of messages, and the table's constraints
match it.
"""

from __future__ import annotations

import re
from uuid import UUID

import psycopg
import pytest

from services.relay.store.messages import Messages
from services.relay.store.processes import Processes
from tests.integration.relay_store.conftest import Run, Stores, draft
from tests.process import ROOT

Edge = tuple[str, str]
_EDGE = re.compile(r"^  (\[\*\]|[a-z]+) --> (\[\*\]|[a-z]+)(?:: |$)", re.MULTILINE)
ENDS = {"delivered", "failed", "cancelled"}

WATCH = """
  CREATE TABLE relay.edges (old text NOT NULL, new text NOT NULL, UNIQUE (old, new));
  CREATE FUNCTION relay.note_edge() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF TG_OP = 'INSERT' OR OLD.state <> NEW.state THEN
      INSERT INTO relay.edges VALUES (CASE TG_OP WHEN 'INSERT' THEN '[*]' ELSE OLD.state END, NEW.state) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
  END $$;
  CREATE TRIGGER edges AFTER INSERT OR UPDATE ON relay.messages FOR EACH ROW EXECUTE FUNCTION relay.note_edge();
"""


def drawn() -> set[Edge]:
    text = (ROOT / "docs/reference/relay.md").read_text()
    diagram = text.partition("stateDiagram-v2\n")[2].partition("```")[0]
    edges = [(match[1], match[2]) for match in _EDGE.finditer(diagram)]
    assert len(edges) == len(diagram.strip().splitlines())
    return set(edges)


async def without_a_queue(stores: Stores) -> None:
    await stores.accept(*(draft() for _ in range(3)))
    delivered, failed, again = await stores.claim()
    await stores.finish([delivered])
    await stores.finish([failed], 500, final=True)
    await stores.finish([again], 500)
    [waiting, active] = await stores.accept(draft(delay_seconds=60), draft())
    await stores.claim()
    assert len(await stores.messages.cancel([waiting, active])) == 2


async def in_a_queue(stores: Stores) -> None:
    await stores.accept(draft(queue="q"), draft(queue="q"))
    await stores.queues.pause("q")
    await stores.queues.resume("q")
    [held] = await stores.claim()
    await stores.queues.pause("q")
    await stores.finish([held], 500)
    assert await stores.queues.delete("q")


async def with_a_dead_process(stores: Stores) -> None:
    dead = UUID(int=2)
    processes = Processes(stores.database, owner=dead)
    await stores.accept(draft(), draft(on_unknown="fail"))
    await processes.renew(60)
    assert len(await Messages(stores.database, stores.encryption, owner=dead).claim(10)) == 2
    await processes.release()
    assert await stores.expire() == 1
    await stores.processes.renew(60)
    await stores.finish(await stores.claims.take_over(10), 500, final=True)


def test_messages_make_the_transitions_of_the_diagram_and_all_of_them(
    run: Run, administrator: psycopg.Connection[object]
) -> None:
    administrator.execute(WATCH)

    async def story(stores: Stores) -> None:
        await without_a_queue(stores)
        await in_a_queue(stores)
        await with_a_dead_process(stores)
        seen = {(row["old"], row["new"]) for row in await stores.rows("SELECT old, new FROM relay.edges")}
        assert seen == {edge for edge in drawn() if edge[1] != "[*]"}

    run(story)
    assert {old for old, new in drawn() if new == "[*]"} == ENDS


def test_the_constraint_has_the_states_of_the_diagram(administrator: psycopg.Connection[object]) -> None:
    found = administrator.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conname = 'state_is_known' AND conrelid = 'relay.messages'::regclass"
    ).fetchone()
    assert isinstance(found, tuple)
    assert set(re.findall(r"'([a-z]+)'", str(found[0]))) == {state for edge in drawn() for state in edge} - {"[*]"}


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'lost'", "state_is_known"),
        ("state = 'active'", "active_is_leased"),
        ("state = 'active', started_at = now()", "active_is_leased"),
        ("lease_owner = gen_random_uuid()", "active_is_leased"),
        ("started_at = now()", "active_is_leased"),
        ("state = 'delivered'", "ended_has_its_time"),
        ("ended_at = now()", "ended_has_its_time"),
        ("state = 'queued'", "queued_has_a_queue"),
        ("holds = true", "holder_has_a_queue"),
        ("queue = 'q'", "queue_is_entered_before_work"),
        ("body_key = 'k'", "large_body_is_elsewhere"),
    ],
)
def test_columns_that_contradict_the_state_are_refused(
    run: Run, administrator: psycopg.Connection[object], change: str, constraint: str
) -> None:
    run(lambda stores: stores.accept(draft(body=b"x")))
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        administrator.execute(f"UPDATE relay.messages SET {change}".encode())
