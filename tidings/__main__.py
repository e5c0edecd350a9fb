"""The command line: `python -m tidings`."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from tidings.process.settings import read_or_exit

if TYPE_CHECKING:
    import psycopg


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tidings: submit a slow AI call, go away, get tidings when it is done."""


@main.command()
@click.option("--wait-seconds", default=60.0, show_default=True, help="Seconds to wait for the database to respond.")
def migrate(wait_seconds: float) -> None:
    """Bring the database to the newest schema and set the roles' logins.

    Reads TIDINGS_ADMIN_DATABASE_URL and TIDINGS_{API,CDC,STREAM,RELAY,RECONCILER}_PASSWORD. Safe to run twice
    and by two at once.
    """
    import psycopg  # noqa: PLC0415  only this command needs the driver

    from tidings.database.migrate import MigrateSettings  # noqa: PLC0415
    from tidings.database.migrate import migrate as apply  # noqa: PLC0415

    settings = read_or_exit(MigrateSettings)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=5).close()
            break
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise click.ClickException(f"the database does not respond: {error}") from None
            time.sleep(0.5)
    applied = apply(settings)
    click.echo(f"{applied} migration(s) applied" if applied else "the schema is up to date")


@main.group()
def keys() -> None:
    """API keys: create, list, revoke. Reads TIDINGS_ADMIN_DATABASE_URL."""


@keys.command("create")
@click.option(
    "--tenant", default="default", show_default=True, help="The tenant whose submissions the key creates and reads."
)
@click.option("--name", required=True, help="The purpose of the key.")
def create_key(tenant: str, name: str) -> None:
    """Make a key and print it, this once."""
    from tidings.contract.keys import new_api_key  # noqa: PLC0415
    from tidings.database.migrate import add_api_key  # noqa: PLC0415

    key = new_api_key()
    with _administrator() as connection:
        add_api_key(connection, key, tenant=tenant, name=name)
    click.echo(key)


@keys.command("list")
def list_keys() -> None:
    """Show tenant, name, age and the first digits of the hash, by which a key is revoked."""
    from tidings.database.migrate import api_keys  # noqa: PLC0415

    with _administrator() as connection:
        for prefix, tenant, name, created_at, revoked_at in api_keys(connection):
            click.echo(f"{prefix}  {tenant}  {name}  {created_at:%Y-%m-%d}  {'revoked' if revoked_at else 'valid'}")


@keys.command("revoke")
@click.argument("hash_prefix")
def revoke_key(hash_prefix: str) -> None:
    """Revoke the key whose hash begins with HASH_PREFIX; it works for some seconds more at the most."""
    from tidings.database.migrate import revoke_api_key  # noqa: PLC0415

    with _administrator() as connection:
        if revoke_api_key(connection, hash_prefix) != 1:
            raise click.ClickException("the prefix does not match exactly one valid key; nothing was revoked")
    click.echo("revoked")


@main.command()
@click.option(
    "--days", type=click.IntRange(min=31), required=True, envvar="TIDINGS_RETENTION_DAYS", show_envvar=True,
    help="Drop months that ended more than this many days ago (at least 31).",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be dropped; drop nothing.")
def retention(days: int, dry_run: bool) -> None:  # noqa: FBT001  click's way
    """Drop old months of submissions, attempts and results, and the idempotency keys and removals of
    contents of that time.

    A month with open submissions, and one that is being read, stays. Reads TIDINGS_ADMIN_DATABASE_URL.
    """
    from tidings.database.retention import Dropped, Retention  # noqa: PLC0415

    with _administrator() as connection:
        connection.autocommit = True
        work = Retention(connection, days)
        if dry_run:
            for month in work.months():
                stays = f"stays: {month.open} open" if month.open else "would be dropped"
                click.echo(f"{month.name}  {month.submissions} submissions  {month.bytes} bytes  {stays}")
            click.echo(f"{work.old_keys()} idempotency keys would be deleted")
            click.echo(f"{work.old_removals()} removals of contents would be deleted")
            return
        for outcome in work.drop():
            result = "dropped" if isinstance(outcome, Dropped) else f"kept: {outcome.why}"
            click.echo(f"{outcome.month.name}  {outcome.month.submissions} submissions  {result}")
        click.echo(f"{work.prune_keys()} idempotency keys deleted")
        click.echo(f"{work.prune_removals()} removals of contents deleted")


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def relay(arguments: tuple[str, ...]) -> None:
    """The relay's own commands, for example `relay token create NAME`; without one it serves."""
    # A separate process, because `tidings` must not import a service.
    command = [sys.executable, "-m", "services.relay", *arguments]
    raise SystemExit(subprocess.run(command, check=False).returncode)  # noqa: S603  the operator's own arguments


def _administrator() -> psycopg.Connection[Any]:
    import psycopg  # noqa: PLC0415

    from tidings.database.migrate import MigrateSettings  # noqa: PLC0415

    return psycopg.connect(read_or_exit(MigrateSettings).database_url.get_secret_value())


if __name__ == "__main__":
    main()
