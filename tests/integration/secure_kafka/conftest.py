"""One broker with TLS and SASL for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.secure_kafka import SecureKafka, secure_kafka


@pytest.fixture(scope="package")
def secure(run_directory: Path) -> Iterator[SecureKafka]:
    with secure_kafka(run_directory / "secure") as made:
        yield made
