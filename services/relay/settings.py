"""The relay's settings."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, FilePath, SecretStr, field_validator
from pydantic_settings import NoDecode

from services.relay.egress.hosts import HostPorts
from services.relay.egress.http.request import origin_of
from services.relay.memory.memory import BYTES_MAX
from tidings.process.log import LogFormat
from tidings.process.settings import Listen, Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Hosts that must not receive our signature or learn which relay calls them.
THIRD_PARTIES = "api.openai.com,api.anthropic.com,generativelanguage.googleapis.com,api.mistral.ai,api.replicate.com"


class RelaySettings(Settings):
    database_url: SecretStr = Field(validation_alias="RELAY_DATABASE_URL")
    # Prepared statements belong to a session of the server. They fail behind a pooler that gives each transaction a
    # different session.
    database_prepared: Literal["auto", "on", "off"] = Field("auto", validation_alias="RELAY_DATABASE_PREPARED")
    listen: Listen = Field("127.0.0.1:8080", validation_alias="RELAY_LISTEN")
    token: SecretStr = Field(validation_alias="QSTASH_TOKEN")
    current_signing_key: SecretStr = Field(validation_alias="QSTASH_CURRENT_SIGNING_KEY")
    next_signing_key: SecretStr = Field(validation_alias="QSTASH_NEXT_SIGNING_KEY")
    # Fernet keys. The first encrypts, all decrypt; to rotate, put a new key in front and drop the old one later.
    encryption_keys: SecretStr = Field(validation_alias="RELAY_ENCRYPTION_KEYS")
    destination_map: Annotated[dict[str, str], NoDecode] = Field({}, validation_alias="RELAY_DESTINATION_MAP")
    allow_private: Annotated[tuple[Network, ...], NoDecode] = Field((), validation_alias="RELAY_ALLOW_PRIVATE")
    # Names in the cluster: `web`, `web:8000` or `*.svc.cluster.local`. They may be called whatever address they resolve
    # to.
    allow_hosts: Annotated[frozenset[str], NoDecode] = Field(frozenset(), validation_alias="RELAY_ALLOW_HOSTS")
    # A PEM file of certificate authorities, in addition to the system's.
    ca_bundle: FilePath | None = Field(None, validation_alias="RELAY_CA_BUNDLE")
    # http://[user:password@]host:port. The proxy then resolves the destinations' names.
    egress_proxy: SecretStr | None = Field(None, validation_alias="RELAY_EGRESS_PROXY")
    # A host, or `.host` for all its subdomains.
    third_parties: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(THIRD_PARTIES.split(",")), validation_alias="RELAY_THIRD_PARTIES"
    )
    deduplication_seconds: int = Field(600, ge=1, validation_alias="RELAY_DEDUP_WINDOW_SECONDS")
    concurrency_max: int = Field(10_000, ge=1, validation_alias="RELAY_CONCURRENCY_MAX")
    lease_seconds: float = Field(15.0, ge=1, validation_alias="RELAY_LEASE_SECONDS")
    drain_seconds: float = Field(20.0, ge=0, validation_alias="RELAY_DRAIN_SECONDS")
    # The budget of the whole process; memory.py says what counts against it. Below the minimum no operation fits.
    memory_bytes_max: int = Field(BYTES_MAX, ge=64 * 1024 * 1024, validation_alias="RELAY_MEMORY_BYTES_MAX")
    body_bytes_max: int = Field(50 * 1024 * 1024, ge=1024, validation_alias="RELAY_BODY_BYTES_MAX")
    # A larger answer is truncated. An answer between this and body_bytes_max is stored, and its callback has its first
    # part.
    answer_bytes_max: int = Field(512 * 1024 * 1024, ge=1024, validation_alias="RELAY_ANSWER_BYTES_MAX")
    # The address at which this relay is reached from outside, used in callbacks.
    public_url: str | None = Field(None, validation_alias="RELAY_PUBLIC_URL")
    # Whether DELETE without a filter selects all messages: for every client, for the vendor's clients, or only with
    # all=true.
    bulk_without_filter: Literal["on", "clients", "off"] = Field(
        "clients", validation_alias="RELAY_BULK_WITHOUT_FILTER"
    )
    keep_seconds: float = Field(60.0, ge=0, validation_alias="RELAY_KEEP_SECONDS")
    # Messages accepted in the same period share a partition, which is dropped when all of them have ended.
    period_seconds: float = Field(600.0, ge=1, validation_alias="RELAY_PERIOD_SECONDS")
    log_days: float = Field(3.0, gt=0, validation_alias="RELAY_LOG_DAYS")
    dead_letter_days: float = Field(7.0, gt=0, validation_alias="RELAY_DEAD_LETTER_DAYS")
    log_level: str = Field("INFO", validation_alias="TIDINGS_LOG_LEVEL")
    log_format: LogFormat = Field("auto", validation_alias="TIDINGS_LOG_FORMAT")

    @field_validator("destination_map", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [item.strip().split("=", 1) for item in value.split(",") if item.strip()]
        if any(len(pair) != 2 or "://" not in pair[0] or "://" not in pair[1] for pair in pairs):
            raise ValueError("must be https://host=http://127.0.0.1:port, separated by commas")
        found = {source.rstrip("/").lower(): target.rstrip("/") for source, target in pairs}
        for source, target in found.items():
            if source.count("/") > 2 or any(mark in source + target for mark in "?#@"):
                raise ValueError("must lead from an origin to an origin or a path under it")
            origin_of(source), origin_of(target)
        return found

    @field_validator("allow_private", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("egress_proxy")
    @classmethod
    def _proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith("http://"):
            raise ValueError("must be http://host:port")
        return value

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/") if value else None

    @field_validator("third_parties", "allow_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return frozenset(host.strip().lower() for host in value.split(",") if host.strip())

    @field_validator("allow_hosts")
    @classmethod
    def _with_ports(cls, value: frozenset[str]) -> frozenset[str]:
        HostPorts(value)
        return value
