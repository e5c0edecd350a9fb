"""A broker whose clients must use TLS and SASL. Another port, without either, is for administration by the test."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from stack.ports import free_ports
from stack.servers import kafka
from tests.certificates import authority
from tests.infra.kafka import Broker, jvm

USER = "tidings"
_LISTENER = "listener.name.sasl_ssl"
_MODULES = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class SecureKafka:
    """`bootstrap` is the port with TLS and SASL, `open` the one without."""

    bootstrap: str
    open: Broker
    ca_file: Path
    password: str

    def environment(self, mechanism: str, **changed: str) -> dict[str, str]:
        """The environment of one of our processes. Keyword arguments are variables of it."""
        return {
            "TIDINGS_KAFKA": self.bootstrap,
            "TIDINGS_KAFKA_SECURITY": "SASL_SSL",
            "TIDINGS_KAFKA_CA_FILE": str(self.ca_file),
            "TIDINGS_KAFKA_MECHANISM": mechanism,
            "TIDINGS_KAFKA_USERNAME": USER,
            "TIDINGS_KAFKA_PASSWORD": self.password,
        } | changed

    def worker_properties(self, user: str = USER) -> dict[str, str]:
        """The settings of a Connect worker according to docs/how-to/secure-kafka.md, for this broker."""
        login = f'{_MODULES}.scram.ScramLoginModule required username="{user}" password="{self.password}";'
        client = {
            "security.protocol": "SASL_SSL",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca_file),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.jaas.config": login,
        }
        prefixes = ("", "producer.", "consumer.", "admin.")
        return {"bootstrap.servers": self.bootstrap} | {
            prefix + name: value for prefix in prefixes for name, value in client.items()
        }


@contextmanager
def secure_kafka(directory: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[SecureKafka]:
    """`settings` are properties of the broker."""
    directory.mkdir(parents=True)
    port, secure_port, controller_port = free_ports(3)
    ca_file, _ = authority(directory)
    password = secrets.token_urlsafe(16)
    plain = f'{_MODULES}.plain.PlainLoginModule required user_{USER}="{password}";'
    bearer = f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
    more = {
        "listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        f"{_LISTENER}.ssl.keystore.type": "PEM",
        f"{_LISTENER}.ssl.keystore.location": str(directory / "server.pem"),
        f"{_LISTENER}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        f"{_LISTENER}.plain.sasl.jaas.config": plain,
        f"{_LISTENER}.scram-sha-256.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{_LISTENER}.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        f"{_LISTENER}.oauthbearer.sasl.jaas.config": bearer,
    } | dict(settings)
    server = kafka(jvm(), directory / "kafka", port=port, controller_port=controller_port, more=more).start()
    try:
        server.wait()
        made = SecureKafka(f"127.0.0.1:{secure_port}", Broker(port), ca_file, password)
        make_user(made, USER)
        yield made
    finally:
        server.stop()


def make_user(made: SecureKafka, user: str) -> None:
    """A SCRAM user with the broker's password."""
    with closing(KafkaAdminClient(bootstrap_servers=made.open.bootstrap)) as admin:
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            made_of = UserScramCredentialUpsertion(user, mechanism, made.password, 4096)
            assert admin.alter_user_scram_credentials([made_of]) == {user: None}


@contextmanager
def token_endpoint(client_id: str, client_secret: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An authorization server for one client: its URL, and the claims of the tokens that it has issued.

    Its tokens are unsecured (RFC 7519, section 6), as Kafka's broker accepts them by default.
    """
    expected = "Basic " + base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    given: list[dict[str, Any]] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"]))
            granted = self.headers["Authorization"] == expected and b"grant_type=client_credentials" in form
            if granted:
                given.append({"sub": USER, "iat": 1_700_000_000, "exp": 4_000_000_000})
            body = json.dumps({"access_token": _unsecured(given[-1]), "expires_in": 3600} if granted else {}).encode()
            self.send_response(200 if granted else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token", given
    finally:
        server.shutdown()
        server.server_close()


def _unsecured(claims: dict[str, Any]) -> str:
    parts = [{"alg": "none"}, claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."
