"""The plan of a run: repeatable by its seed, with every kind of fault before one is repeated, and within its time."""

from __future__ import annotations

from collections import Counter

from tests.chaos.plan import LINKS, PROCESSES, TAIL_SECONDS, Kind, kinds, plan


def test_a_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert plan(7, 120, 2.0) == plan(7, 120, 2.0)
    assert plan(7, 120, 2.0) != plan(8, 120, 2.0)


def test_every_kind_happens_before_one_is_repeated() -> None:
    faults = plan(1, 600, 2.0)
    deck = sum(kind.weight for kind in kinds())
    assert len(faults) > deck
    first = Counter(fault.kind for fault in faults[:deck])
    assert first == {f"{kind.name} {kind.target}": kind.weight for kind in kinds()}


def test_faults_begin_and_end_within_the_time_in_order() -> None:
    faults = plan(3, 60, 1.0)
    assert faults
    assert [fault.at_seconds for fault in faults] == sorted(fault.at_seconds for fault in faults)
    assert all(0 < fault.at_seconds <= fault.ends_seconds <= 60 - TAIL_SECONDS for fault in faults)


def test_a_target_has_one_fault_at_a_time() -> None:
    faults = plan(5, 600, 0.5)
    for fault in faults:
        later = [other for other in faults if other.target == fault.target and other.number > fault.number]
        assert all(other.at_seconds > fault.ends_seconds for other in later)


def test_a_stop_has_a_duration_of_its_kind() -> None:
    [kind] = [Kind("stop", "api", (2.0, 3.0))]
    faults = plan(1, 200, 1.0, [kind])
    assert faults
    assert all(2.0 <= fault.lasts_seconds <= 3.0 for fault in faults)


def test_a_time_too_short_for_any_fault_has_none() -> None:
    assert plan(1, 5, 2.0) == ()


def test_every_process_is_killed_stopped_and_ended() -> None:
    found = {f"{kind.name} {kind.target}" for kind in kinds()}
    assert {f"{name} {target}" for name in ("kill", "stop", "terminate") for target in PROCESSES} <= found
    assert {"kill postgres", "restart postgres", "stop postgres"} <= found
    assert {"kill backend postgres", "terminate backends postgres", "stop postgres backend"} <= found


def test_every_link_is_cut_delayed_refused_and_silenced() -> None:
    found = {f"{kind.name} {kind.target}" for kind in kinds()}
    assert {f"{name} link to {link}" for name in ("cut", "delay", "refuse", "swallow") for link in LINKS} <= found


def test_the_name_server_is_disturbed_if_there_is_one() -> None:
    harmed = {kind.name for kind in kinds() if kind.target == "name server"}
    assert harmed == {"silence", "fail"}
    assert not any(kind.target == "name server" for kind in kinds(names=False))
