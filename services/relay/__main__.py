"""The relay's composition root: `python -m services.relay`."""

from __future__ import annotations

import gc
import ssl
import sys

import click
import psycopg
import uvloop

from services.relay.command import token
from services.relay.egress.http.tls import tls_context
from services.relay.engine.loops import LoopEndedError
from services.relay.listening import CannotListenError, bind
from services.relay.schema import SchemaError, create_schema
from services.relay.serving import serve
from services.relay.settings import RelaySettings
from services.relay.store.encryption import Encryption
from services.relay.store.sealing import UnreadableError
from tidings.process import log
from tidings.process.files import raise_file_limit
from tidings.process.settings import EXIT_CONFIGURATION, read_or_exit, split_listen

# New objects between two runs of the garbage collector. Python's default is 700: while 10,000 calls start, it scans all
# of them dozens of times.
COLLECT_AFTER_OBJECTS = 20_000
# Open files that are not calls: database connections, publishers, and connections kept for later calls.
SPARE_FILES = 200


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Serve the QStash protocol, durably. Settings come from the environment: docs/reference/relay.md."""
    if context.invoked_subcommand is None:
        start()


main.add_command(token)


def start() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = read_or_exit(RelaySettings)
    log.configure("relay", level=settings.log_level, log_format=settings.log_format)
    try:
        encryption = Encryption(settings.encryption_keys.get_secret_value())
    except ValueError:
        sys.stderr.write("RELAY_ENCRYPTION_KEYS: each must be 32 random bytes in url-safe base64\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    try:
        tls = tls_context(settings.ca_bundle)
    except ssl.SSLError:
        sys.stderr.write("RELAY_CA_BUNDLE: holds no certificate in PEM form\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    try:
        sockets = bind(*split_listen(settings.listen))
        create_schema(settings.database_url.get_secret_value())
        settings = _fitting(settings, raise_file_limit())
        _collect_less_often()
        uvloop.run(serve(settings, encryption, tls, sockets, log.get("relay")))
    except (psycopg.OperationalError, SchemaError) as error:
        text = str(error) if isinstance(error, SchemaError) else f"the database does not respond: {error}"
        sys.stderr.write(f"{text}\n")
        raise SystemExit(1) from None
    except (CannotListenError, LoopEndedError) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    except UnreadableError as error:
        # The stored signing keys cannot be read. A single unreadable message fails alone.
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None


def _fitting(settings: RelaySettings, files: int) -> RelaySettings:
    """Bound the concurrent calls by the limit on open files. More calls would fail, and with them requests and the
    database's connections.
    """
    calls_max = max(files - SPARE_FILES, files // 2)
    if settings.concurrency_max <= calls_max:
        return settings
    log.get("relay").warning(
        "files_few",
        detail="RELAY_CONCURRENCY_MAX is more than the limit of open files allows; raise the limit (ulimit -Hn)",
        files=files,
        calls_max=calls_max,
    )
    return settings.model_copy(update={"concurrency_max": calls_max})


def _collect_less_often() -> None:
    """A held call is about twenty objects that live for minutes. Python's default scans all of them repeatedly for
    reference cycles, and calls create none.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 50)


if __name__ == "__main__":
    main()
