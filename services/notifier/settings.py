"""The notifier's settings."""

from __future__ import annotations

from pydantic import Field

from tidings.kafka.settings import KafkaSettings
from tidings.process.log import LogFormat
from tidings.process.settings import BaseUrl, Listen


class NotifierSettings(KafkaSettings):
    public_url: BaseUrl = Field("http://127.0.0.1:8000", validation_alias="TIDINGS_PUBLIC_URL")
    instance: str = Field("0", validation_alias="NOTIFIER_INSTANCE", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    listen: Listen = Field("127.0.0.1:8002", validation_alias="NOTIFIER_LISTEN")
    # Each channel is a topic, and topics cost the brokers memory: the events of further channels go to the main topic
    # only.
    channels_max: int = Field(1000, ge=0, validation_alias="NOTIFIER_CHANNELS_MAX")
    # A fifth of the maximum, so that no tenant uses the topics of the others.
    tenant_channels_max: int = Field(200, ge=0, validation_alias="NOTIFIER_CHANNELS_PER_TENANT_MAX")
    batch_max: int = Field(500, ge=1, le=10_000, validation_alias="NOTIFIER_BATCH_MAX")
    log_level: str = Field("INFO", validation_alias="TIDINGS_LOG_LEVEL")
    log_format: LogFormat = Field("auto", validation_alias="TIDINGS_LOG_FORMAT")
