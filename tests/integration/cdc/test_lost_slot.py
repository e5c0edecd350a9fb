"""A slot that is lost while it is not read is repaired: a snapshot repeats its rows."""

from __future__ import annotations

from tests.integration.cdc.conftest import Cdc
from tests.wait import until


def _row_in_the_gap(cdc: Cdc) -> str:
    """A row that is stored while the connector is stopped, after one that became an event."""
    cdc.events("submissions", cdc.has(cdc.submit()))
    cdc.stop()
    return cdc.submit()


def _assert_told_again(cdc: Cdc, missed: str) -> None:
    events = cdc.events("submissions", cdc.has(missed))
    assert [event.envelope["op"] for event in events if event.key == missed] == ["r"]
    later = cdc.submit()
    cdc.events("submissions", cdc.has(later))


def test_rows_of_a_dropped_slot_become_events(cdc: Cdc) -> None:
    cdc.register()
    missed = _row_in_the_gap(cdc)
    cdc.drop_slot()
    cdc.resume()
    _assert_told_again(cdc, missed)


def test_rows_of_a_recreated_slot_become_events(cdc: Cdc) -> None:
    cdc.register()
    missed = _row_in_the_gap(cdc)
    cdc.drop_slot()
    cdc.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", cdc.slot)
    cdc.resume()
    _assert_told_again(cdc, missed)


def test_without_the_snapshot_mode_the_rows_are_lost(cdc: Cdc) -> None:
    lossy = {"snapshot_mode": "no_data", "offset_mismatch_strategy": "trust_slot"}
    cdc.register(**lossy)
    missed = _row_in_the_gap(cdc)
    cdc.drop_slot()
    cdc.resume()
    cdc.wait_running()
    until(lambda: cdc.slot_value("active"), 30)
    later = cdc.submit()
    events = cdc.events("submissions", cdc.has(later))
    assert missed not in {event.key for event in events}
