"""The api's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from tidings.process.log import LogFormat
from tidings.process.settings import BaseUrl, Listen, Settings


class ApiSettings(Settings):
    listen: Listen = Field("127.0.0.1:8000", validation_alias="API_LISTEN")
    # The port for the dispatcher, the relay's callbacks and metrics; on loopback, because clients do not need it.
    internal_listen: Listen = Field("127.0.0.1:8004", validation_alias="API_INTERNAL_LISTEN")
    database_url: SecretStr = Field(validation_alias="API_DATABASE_URL")
    public_url: BaseUrl = Field("http://127.0.0.1:8000", validation_alias="TIDINGS_PUBLIC_URL")
    callback_url: BaseUrl | None = Field(None, validation_alias="TIDINGS_CALLBACK_URL")
    internal_token: SecretStr = Field(validation_alias="TIDINGS_INTERNAL_TOKEN")
    current_signing_key: SecretStr = Field(validation_alias="QSTASH_CURRENT_SIGNING_KEY")
    next_signing_key: SecretStr = Field(validation_alias="QSTASH_NEXT_SIGNING_KEY")
    targets_file: Path = Field(Path("targets.toml"), validation_alias="TIDINGS_TARGETS_FILE")
    image_target: str = Field("openai-images", validation_alias="TIDINGS_IMAGE_TARGET")
    webhooks: Literal["on", "off"] = Field("off", validation_alias="TIDINGS_WEBHOOKS")
    # The dispatcher reads this setting too, and makes the relay refuse an address that a name resolves to.
    webhook_addresses: Literal["public", "any"] = Field("public", validation_alias="TIDINGS_WEBHOOK_ADDRESSES")
    input_bytes_max: int = Field(5 * 1024 * 1024, ge=1024, validation_alias="API_INPUT_BYTES_MAX")
    # The size of up to 1,000 submissions, each within input_bytes_max. One INSERT and one COMMIT store them.
    batch_bytes_max: int = Field(32 * 1024 * 1024, ge=1024, validation_alias="API_BATCH_BYTES_MAX")
    # A callback carries the answer and the input in base64, which makes them a third larger.
    callback_bytes_max: int = Field(80 * 1024 * 1024, ge=1024, validation_alias="API_CALLBACK_BYTES_MAX")
    threads: int = Field(32, ge=1, le=256, validation_alias="API_THREADS")
    log_level: str = Field("INFO", validation_alias="TIDINGS_LOG_LEVEL")
    log_format: LogFormat = Field("auto", validation_alias="TIDINGS_LOG_FORMAT")
