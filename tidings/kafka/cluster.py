"""The connection settings of a Kafka cluster: addresses, TLS and SASL, as kafka-python's clients take them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tidings.kafka.tokens import OAuthClient, TokenProvider

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


@dataclass(frozen=True)
class Sasl:
    """`oauth` is for OAUTHBEARER; `username` and `password` are for the other mechanisms."""

    mechanism: Mechanism
    username: str = ""
    password: str = field(default="", repr=False)
    oauth: OAuthClient | None = None


@dataclass(frozen=True)
class Cluster:
    """`bootstrap` is `HOST:PORT`, or several separated by commas. `ca_file` is a PEM bundle; None means the system's.

    `certificate_file` and `key_file` are the client's, for brokers that require a certificate. The files are read at
    the first use of `options`, which raises `OSError` (`ssl.SSLError` is a subclass).
    """

    bootstrap: str
    security: Security = "PLAINTEXT"
    sasl: Sasl | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    @cached_property
    def options(self) -> dict[str, Any]:
        """Return the keyword arguments of every client.
        They are built once, because all clients share the access token of `oauth`.
        """
        options: dict[str, Any] = {
            "bootstrap_servers": [server.strip() for server in self.bootstrap.split(",")],
            "security_protocol": self.security,
        }
        if self.security.endswith("SSL"):
            options["ssl_context"] = self._tls()
        if self.sasl is not None:
            options |= {
                "sasl_mechanism": self.sasl.mechanism,
                "sasl_plain_username": self.sasl.username or None,
                "sasl_plain_password": self.sasl.password or None,
            }
            if self.sasl.oauth is not None:
                options["sasl_oauth_token_provider"] = TokenProvider(self.sasl.oauth)
        return options

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate_file is not None:
            # An encrypted key is an error and does not prompt for a password at the terminal.
            context.load_cert_chain(self.certificate_file, self.key_file, password=lambda: b"")
        return context
