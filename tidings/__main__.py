"""The command line: `python -m tidings`."""

from __future__ import annotations

import time

import click

from tidings.settings import read_or_exit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tidings: submit a slow AI call, go away, get tidings when it is done."""


@main.command()
@click.option("--wait-seconds", default=60.0, show_default=True, help="How long to wait for the database to answer.")
def migrate(wait_seconds: float) -> None:
    """Bring the database to the newest schema and set the roles' logins.

    Reads TIDINGS_ADMIN_DATABASE_URL and TIDINGS_{API,CDC,STREAM,RELAY}_PASSWORD. Safe to run twice and by two at once.
    """
    import psycopg  # noqa: PLC0415  only this command needs the driver

    from tidings.migrate import MigrateSettings  # noqa: PLC0415
    from tidings.migrate import migrate as apply  # noqa: PLC0415

    settings = read_or_exit(MigrateSettings)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            psycopg.connect(settings.database_url.get_secret_value(), connect_timeout=5).close()
            break
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise click.ClickException(f"the database does not answer: {error}") from None
            time.sleep(0.5)
    applied = apply(settings)
    click.echo(f"{applied} migration(s) applied" if applied else "the schema is up to date")


if __name__ == "__main__":
    main()
