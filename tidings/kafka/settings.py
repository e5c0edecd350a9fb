"""The settings of every process that uses Kafka."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from tidings.kafka.cluster import Cluster, Mechanism, Sasl, Security
from tidings.kafka.tokens import OAuthClient
from tidings.process.settings import BaseUrl, Settings


class KafkaSettings(Settings):
    """The settings; `cluster` combines them."""

    kafka: str = Field(validation_alias="TIDINGS_KAFKA")
    kafka_security: Security = Field("PLAINTEXT", validation_alias="TIDINGS_KAFKA_SECURITY")
    kafka_ca_file: Path | None = Field(None, validation_alias="TIDINGS_KAFKA_CA_FILE")
    kafka_certificate_file: Path | None = Field(None, validation_alias="TIDINGS_KAFKA_CERTIFICATE_FILE")
    kafka_key_file: Path | None = Field(None, validation_alias="TIDINGS_KAFKA_KEY_FILE")
    kafka_mechanism: Mechanism = Field("SCRAM-SHA-512", validation_alias="TIDINGS_KAFKA_MECHANISM")
    kafka_username: str = Field("", validation_alias="TIDINGS_KAFKA_USERNAME")
    kafka_password: SecretStr = Field(SecretStr(""), validation_alias="TIDINGS_KAFKA_PASSWORD")
    # For OAUTHBEARER, with OAuth's client credentials grant.
    kafka_token_url: BaseUrl | None = Field(None, validation_alias="TIDINGS_KAFKA_TOKEN_URL")
    kafka_client_id: str = Field("", validation_alias="TIDINGS_KAFKA_CLIENT_ID")
    kafka_client_secret: SecretStr = Field(SecretStr(""), validation_alias="TIDINGS_KAFKA_CLIENT_SECRET")
    kafka_scope: str = Field("", validation_alias="TIDINGS_KAFKA_SCOPE")

    @cached_property
    def cluster(self) -> Cluster:
        """Build the cluster. Its files are read together with the settings."""
        return Cluster(
            self.kafka,
            self.kafka_security,
            self._sasl(),
            self.kafka_ca_file,
            self.kafka_certificate_file,
            self.kafka_key_file,
        )

    def _sasl(self) -> Sasl | None:
        if not self.kafka_security.startswith("SASL"):
            return None
        if self.kafka_mechanism != "OAUTHBEARER":
            return Sasl(self.kafka_mechanism, self.kafka_username, self.kafka_password.get_secret_value())
        secret = self.kafka_client_secret.get_secret_value()
        return Sasl(
            "OAUTHBEARER", oauth=OAuthClient(str(self.kafka_token_url), self.kafka_client_id, secret, self.kafka_scope)
        )

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if missing := [name for name, value in self._needed().items() if not value]:
            raise ValueError(f"{', '.join(missing)} must be set with TIDINGS_KAFKA_SECURITY={self.kafka_security}")
        files = {
            "TIDINGS_KAFKA_CA_FILE": self.kafka_ca_file,
            "TIDINGS_KAFKA_CERTIFICATE_FILE": self.kafka_certificate_file,
            "TIDINGS_KAFKA_KEY_FILE": self.kafka_key_file,
        }
        given = ", ".join(name for name, file in files.items() if file is not None)
        if given and not self.kafka_security.endswith("SSL"):
            raise ValueError(f"{given} has no effect with TIDINGS_KAFKA_SECURITY={self.kafka_security}")
        if self.kafka_key_file is not None and self.kafka_certificate_file is None:
            raise ValueError("TIDINGS_KAFKA_KEY_FILE needs TIDINGS_KAFKA_CERTIFICATE_FILE")
        try:
            _ = self.cluster.options
        except OSError as error:
            raise ValueError(f"a certificate file of TIDINGS_KAFKA_… cannot be used: {error}") from None
        return self

    def _needed(self) -> dict[str, str]:
        if not self.kafka_security.startswith("SASL"):
            return {}
        if self.kafka_mechanism == "OAUTHBEARER":
            return {
                "TIDINGS_KAFKA_TOKEN_URL": self.kafka_token_url or "",
                "TIDINGS_KAFKA_CLIENT_ID": self.kafka_client_id,
                "TIDINGS_KAFKA_CLIENT_SECRET": self.kafka_client_secret.get_secret_value(),
            }
        return {
            "TIDINGS_KAFKA_USERNAME": self.kafka_username,
            "TIDINGS_KAFKA_PASSWORD": self.kafka_password.get_secret_value(),
        }
