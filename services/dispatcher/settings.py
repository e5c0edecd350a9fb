"""The dispatcher's settings."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from services.dispatcher.message import CALLBACK_RETRIES
from tidings.kafka.settings import KafkaSettings
from tidings.process.log import LogFormat
from tidings.process.settings import BaseUrl, Listen


def _webhook_secret(secret: SecretStr) -> SecretStr:
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("must be whsec_ followed by a key in base64")
    return secret


class DispatcherSettings(KafkaSettings):
    # The internal port of the api; the port for clients has no /internal.
    api_url: BaseUrl = Field(validation_alias="TIDINGS_API_INTERNAL_URL")
    # The address at which the relay reaches the api; the default is the address for clients.
    public_url: BaseUrl = Field("http://127.0.0.1:8000", validation_alias="TIDINGS_PUBLIC_URL")
    callback_url: BaseUrl | None = Field(None, validation_alias="TIDINGS_CALLBACK_URL")
    # The plans of the hosted service allow fewer.
    callback_retries: int = Field(CALLBACK_RETRIES, ge=0, le=1000, validation_alias="DISPATCHER_CALLBACK_RETRIES")
    internal_token: SecretStr = Field(validation_alias="TIDINGS_INTERNAL_TOKEN")
    relay_url: BaseUrl = Field(validation_alias="QSTASH_URL")
    relay_token: SecretStr = Field(validation_alias="QSTASH_TOKEN")
    signing_key: SecretStr = Field(validation_alias="QSTASH_CURRENT_SIGNING_KEY")
    webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] | None = Field(
        None, validation_alias="TIDINGS_WEBHOOK_SECRET"
    )
    # `any`: webhooks may go to every address that the relay may call for Tidings, for receivers in a private network.
    webhook_addresses: Literal["public", "any"] = Field("public", validation_alias="TIDINGS_WEBHOOK_ADDRESSES")
    targets_file: Path = Field(Path("targets.toml"), validation_alias="TIDINGS_TARGETS_FILE")
    instance: str = Field("0", validation_alias="DISPATCHER_INSTANCE", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    listen: Listen = Field("127.0.0.1:8001", validation_alias="DISPATCHER_LISTEN")
    # The batch route of the hosted service accepts 100 messages.
    batch_max: int = Field(100, ge=1, le=100, validation_alias="DISPATCHER_BATCH_MAX")
    log_level: str = Field("INFO", validation_alias="TIDINGS_LOG_LEVEL")
    log_format: LogFormat = Field("auto", validation_alias="TIDINGS_LOG_FORMAT")
