"""A notifier with a broker that requires TLS and SASL: it consumes, commits, and creates topics and transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.certificates import authority
from tests.infra.secure_kafka import SecureKafka, token_endpoint
from tests.integration.notifier.conftest import Notifying, Topics
from tests.process import started
from tests.wait import until

Start = Callable[..., Notifying]


@pytest.fixture
def notify(secure: SecureKafka, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def start(mechanism: str, *, ready: bool = True, **changed: str) -> Notifying:
            settings = secure.environment(mechanism, **changed)
            bootstrap = settings.pop("TIDINGS_KAFKA")
            made = Notifying(bootstrap, tmp_path, f"secure-{mechanism.lower()}", **settings)
            if not ready:
                made.process.ready_url = None
            stack.enter_context(started(made.process))
            return made

        yield start


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_change_becomes_an_event_with_a_user_and_a_password(
    secure: SecureKafka, notify: Start, mechanism: str
) -> None:
    topics = Topics(secure.open)
    notify(mechanism)
    submission_id = topics.change()
    until(lambda: topics.completions(submission_id) == [submission_id], 30)


def test_a_change_becomes_an_event_with_a_token_that_is_requested_once(secure: SecureKafka, notify: Start) -> None:
    topics = Topics(secure.open)
    with token_endpoint("the-client", "the-secret") as (url, given):
        notify(
            "OAUTHBEARER",
            TIDINGS_KAFKA_TOKEN_URL=url,
            TIDINGS_KAFKA_CLIENT_ID="the-client",
            TIDINGS_KAFKA_CLIENT_SECRET="the-secret",
        )
        submission_id = topics.change()
        until(lambda: topics.completions(submission_id) == [submission_id], 30)
    assert len(given) == 1


def test_a_wrong_password_is_reported_and_never_shown(secure: SecureKafka, notify: Start) -> None:
    made = notify("SCRAM-SHA-512", ready=False, TIDINGS_KAFKA_PASSWORD="not-the-password")
    until(lambda: made.said("kafka_failed"), 60)
    assert requests.get(made.process_url("/readyz"), timeout=30).status_code == 503
    assert "not-the-password" not in made.process.log.read_text()


def test_a_token_that_is_refused_is_reported_and_its_secret_never_shown(secure: SecureKafka, notify: Start) -> None:
    with token_endpoint("the-client", "the-secret") as (url, given):
        made = notify(
            "OAUTHBEARER",
            ready=False,
            TIDINGS_KAFKA_TOKEN_URL=url,
            TIDINGS_KAFKA_CLIENT_ID="the-client",
            TIDINGS_KAFKA_CLIENT_SECRET="another-secret",
        )
        until(lambda: made.said("kafka_failed"), 60)
        assert given == []
    assert "another-secret" not in made.process.log.read_text()


def test_a_broker_with_a_certificate_of_an_unknown_authority_gets_no_password(
    secure: SecureKafka, notify: Start, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other, _ = authority(tmp_path / "other")
    made = notify("PLAIN", ready=False, TIDINGS_KAFKA_CA_FILE=str(other))
    until(lambda: made.said("kafka_failed"), 60)
    assert requests.get(made.process_url("/readyz"), timeout=30).status_code == 503
