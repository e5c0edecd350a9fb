"""Requests to the relay for removals: few requests for many submissions, each within the relay's limits."""

from __future__ import annotations

from uuid import UUID

from services.relay.api import contents
from tidings.contract import removals
from tidings.contract.removals import RemovalRequest, removal_requests

A, B = UUID(int=1), UUID(int=2)


def test_a_submission_that_is_named_several_times_is_requested_once() -> None:
    assert list(removal_requests([(A, ["m1"]), (B, []), (A, ["m1", "m2"]), (A, [])])) == [
        RemovalRequest((str(A), f"webhook-{A}", str(B), f"webhook-{B}"), ("m1", "m2"))
    ]
    assert list(removal_requests([])) == []


def test_each_request_obeys_the_relays_limits() -> None:
    assert (removals.LABELS_MAX, removals.MESSAGE_IDS_MAX) == (contents.LABELS_MAX, contents.MESSAGE_IDS_MAX)
    many = list(removal_requests((UUID(int=n), []) for n in range(101)))
    assert [len(request.labels) for request in many] == [200, 2]
    large = [(UUID(int=n), [f"m{n}-{i}" for i in range(600)]) for n in range(3)] + [
        (UUID(int=9), ["m"] + ["x", "y"] * 900)
    ]
    asked = list(removal_requests(large))
    assert [len(request.message_ids) for request in asked] == [600, 600, 603]
    assert [len(request.labels) for request in asked] == [2, 2, 4]
    [cut] = removal_requests([(A, [f"m{i}" for i in range(5000)])])
    assert len(cut.message_ids) == 1000
