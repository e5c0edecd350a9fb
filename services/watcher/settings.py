"""The watcher's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from psycopg.conninfo import make_conninfo
from pydantic import Field, SecretStr

from tidings.kafka.settings import KafkaSettings
from tidings.process.log import LogFormat
from tidings.process.settings import BaseUrl, Listen

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class WatcherSettings(KafkaSettings):
    connect_url: BaseUrl = Field(validation_alias="TIDINGS_CONNECT_URL")
    # The password of the user `tidings` of the REST interface; without it Connect requires none.
    connect_password: SecretStr | None = Field(None, validation_alias="TIDINGS_CONNECT_PASSWORD")
    connector_file: Path = Field(Path("debezium/connector.json"), validation_alias="TIDINGS_CONNECTOR_FILE")
    connector_name: str = Field("tidings", validation_alias="TIDINGS_CONNECTOR_NAME", pattern=r"^[a-z0-9_-]{1,60}$")
    # The address of the database for Debezium. Connect has the password in its own environment; the watcher needs it to
    # read the state of the slot.
    database_host: str = Field(validation_alias="TIDINGS_CDC_DATABASE_HOST")
    database_port: int = Field(5432, validation_alias="TIDINGS_CDC_DATABASE_PORT")
    database_name: str = Field(validation_alias="TIDINGS_CDC_DATABASE_NAME")
    database_password: SecretStr = Field(validation_alias="TIDINGS_CDC_DATABASE_PASSWORD")
    # As libpq's sslmode and sslrootcert. The file must exist at the same path for both the watcher and Connect.
    database_sslmode: SslMode = Field("prefer", validation_alias="TIDINGS_CDC_DATABASE_SSLMODE")
    database_ca_file: Path | None = Field(None, validation_alias="TIDINGS_CDC_DATABASE_CA_FILE")
    # Connect's transactions time out after 60 s, the notifier's after 10 s; half a minute later no coordinator will end
    # them.
    hanging_seconds: float = Field(90.0, gt=0, validation_alias="WATCHER_HANGING_SECONDS")
    listen: Listen = Field("127.0.0.1:8003", validation_alias="WATCHER_LISTEN")
    interval_seconds: float = Field(1.0, gt=0, validation_alias="WATCHER_INTERVAL_SECONDS")
    log_level: str = Field("INFO", validation_alias="TIDINGS_LOG_LEVEL")
    log_format: LogFormat = Field("auto", validation_alias="TIDINGS_LOG_FORMAT")

    def conninfo(self) -> str:
        """Return the connection string of the database for the role `tidings_cdc`."""
        return make_conninfo(
            host=self.database_host,
            port=self.database_port,
            dbname=self.database_name,
            user="tidings_cdc",
            password=self.database_password.get_secret_value(),
            sslmode=self.database_sslmode,
            sslrootcert=None if self.database_ca_file is None else str(self.database_ca_file),
        )

    def connector_tls(self) -> dict[str, str]:
        """Return the connector's settings for TLS to the database."""
        found: dict[str, str] = {"database.sslmode": self.database_sslmode}
        return found if self.database_ca_file is None else found | {"database.sslrootcert": str(self.database_ca_file)}
