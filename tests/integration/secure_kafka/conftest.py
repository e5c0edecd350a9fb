"""A broker with TLS and SASL for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.secure_kafka import SecureKafka, secure_kafka


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure") / "broker") as made:
        yield made
