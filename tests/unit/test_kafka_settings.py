"""Kafka's settings: missing ones are named, and no value is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from tests.certificates import authority
from tidings.kafka.settings import KafkaSettings


def made(**variables: str) -> KafkaSettings:
    return KafkaSettings.model_validate({"TIDINGS_KAFKA": "a:9092, b:9092"} | variables)


def test_without_security_nothing_else_is_needed() -> None:
    assert made().cluster.options == {
        "bootstrap_servers": ["a:9092", "b:9092"], "security_protocol": "PLAINTEXT",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mechanism", "missing"),
    [
        ("SCRAM-SHA-512", ["TIDINGS_KAFKA_USERNAME", "TIDINGS_KAFKA_PASSWORD"]),
        ("OAUTHBEARER", ["TIDINGS_KAFKA_TOKEN_URL", "TIDINGS_KAFKA_CLIENT_ID", "TIDINGS_KAFKA_CLIENT_SECRET"]),
    ],
)
def test_missing_settings_of_a_mechanism_are_named(mechanism: str, missing: list[str]) -> None:
    with pytest.raises(ValidationError) as error:
        made(TIDINGS_KAFKA_SECURITY="SASL_PLAINTEXT", TIDINGS_KAFKA_MECHANISM=mechanism)
    assert all(name in str(error.value) for name in missing)


def test_a_missing_ca_file_is_an_error_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="certificate file"):
        made(TIDINGS_KAFKA_SECURITY="SSL", TIDINGS_KAFKA_CA_FILE=str(tmp_path / "none.pem"))


@pytest.mark.parametrize("name", ["CA_FILE", "CERTIFICATE_FILE", "KEY_FILE"])
def test_a_file_without_tls_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match=f"TIDINGS_KAFKA_{name} has no effect"):
        made(**{f"TIDINGS_KAFKA_{name}": str(tmp_path / "file.pem")})


def test_a_key_without_its_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs TIDINGS_KAFKA_CERTIFICATE_FILE"):
        made(TIDINGS_KAFKA_SECURITY="SSL", TIDINGS_KAFKA_KEY_FILE=str(tmp_path / "key.pem"))


def test_an_encrypted_key_is_an_error_of_the_settings_and_not_a_prompt(tmp_path: Path) -> None:
    authority(tmp_path)
    chain = (tmp_path / "server.pem").read_bytes()
    key = load_pem_private_key(chain, None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "key.pem").write_bytes(encrypted)
    (tmp_path / "certificate.pem").write_bytes(chain[chain.index(b"-----BEGIN CERTIFICATE") :])
    with pytest.raises(ValidationError, match="certificate file"):
        made(
            TIDINGS_KAFKA_SECURITY="SSL",
            TIDINGS_KAFKA_CERTIFICATE_FILE=str(tmp_path / "certificate.pem"),
            TIDINGS_KAFKA_KEY_FILE=str(tmp_path / "key.pem"),
        )


def test_neither_password_nor_client_secret_is_in_what_is_printed() -> None:
    settings = made(
        TIDINGS_KAFKA_SECURITY="SASL_PLAINTEXT",
        TIDINGS_KAFKA_MECHANISM="PLAIN",
        TIDINGS_KAFKA_USERNAME="user",
        TIDINGS_KAFKA_PASSWORD="hidden",
    )
    assert settings.cluster.options["sasl_plain_password"] == "hidden"
    assert "hidden" not in f"{settings!r} {settings.cluster!r}"
