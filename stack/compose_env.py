"""Writes `.env` with new secrets for docker-compose, unless it exists.
Uses only the standard library: needs no .venv.
"""

import base64
import os
import secrets
import sys
from pathlib import Path

NAMES = (
    "POSTGRES_PASSWORD", "TIDINGS_API_PASSWORD", "TIDINGS_CDC_PASSWORD", "TIDINGS_STREAM_PASSWORD",
    "TIDINGS_RELAY_PASSWORD", "TIDINGS_RECONCILER_PASSWORD", "TIDINGS_CONNECT_PASSWORD",
    "TIDINGS_API_KEY", "TIDINGS_INTERNAL_TOKEN", "QSTASH_TOKEN", "QSTASH_CURRENT_SIGNING_KEY",
    "QSTASH_NEXT_SIGNING_KEY",
)  # fmt: skip


PROVIDERS = """\
# The variables that targets.toml names as ${NAME}, one NAME=value a line; the dispatcher alone gets them.
# OPENAI_API_KEY=
"""


def main() -> None:
    """The path is an optional argument; the default is `.env` in the checkout, where compose looks for it."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / ".env"
    if path.exists():
        print(f"{path} exists and is not changed")
        return
    made = {name: secrets.token_hex(24) for name in NAMES}
    made["RELAY_ENCRYPTION_KEYS"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    made["TIDINGS_WEBHOOK_SECRET"] = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    providers = path.resolve().with_name("providers.env")
    made["TIDINGS_PROVIDERS_ENV"] = str(providers)
    if not providers.exists():
        write(providers, PROVIDERS)
    write(path, "".join(f"{name}={value}\n" for name, value in made.items()))
    print(f"{path} written; it contains secrets, do not share it. Keys of providers go into {providers}")


def write(path, text):
    """Create a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
