"""The reconciler's settings."""

from __future__ import annotations

from pydantic import Field, SecretStr

from tidings.kafka.settings import KafkaSettings
from tidings.process.log import LogFormat
from tidings.process.settings import BaseUrl, Listen


class ReconcilerSettings(KafkaSettings):
    database_url: SecretStr = Field(validation_alias="RECONCILER_DATABASE_URL")
    relay_url: BaseUrl = Field(validation_alias="QSTASH_URL")
    relay_token: SecretStr = Field(validation_alias="QSTASH_TOKEN")
    listen: Listen = Field("127.0.0.1:8005", validation_alias="RECONCILER_LISTEN")
    # Younger submissions and results are still in regular processing.
    grace_seconds: float = Field(120.0, ge=1, validation_alias="RECONCILER_GRACE_SECONDS")
    # A row is committed within this time after its id was generated; it is longer than any statement of the api may
    # take.
    settle_seconds: float = Field(60.0, ge=1, validation_alias="RECONCILER_SETTLE_SECONDS")
    # An action without effect is repeated after this time.
    repeat_seconds: float = Field(600.0, ge=1, validation_alias="RECONCILER_REPEAT_SECONDS")
    # Without it nothing is dropped; `python -m tidings retention` drops months on demand.
    retention_days: int | None = Field(None, ge=31, validation_alias="TIDINGS_RETENTION_DAYS")
    interval_seconds: float = Field(10.0, gt=0, validation_alias="RECONCILER_INTERVAL_SECONDS")
    expiry_interval_seconds: float = Field(1.0, gt=0, validation_alias="RECONCILER_EXPIRY_INTERVAL_SECONDS")
    log_level: str = Field("INFO", validation_alias="TIDINGS_LOG_LEVEL")
    log_format: LogFormat = Field("auto", validation_alias="TIDINGS_LOG_FORMAT")
