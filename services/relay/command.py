"""The relay's command line: `python -m services.relay token …`, also reached by `python -m tidings relay token …`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import psycopg
from pydantic import Field, SecretStr

from services.relay.schema import SchemaError, create_schema
from services.relay.store.database import Database, new_pool
from services.relay.store.tokens import TokenExistsError, Tokens
from tidings.process.settings import Settings, read_or_exit

T = TypeVar("T")


class CommandSettings(Settings):
    database_url: SecretStr = Field(validation_alias="RELAY_DATABASE_URL")


@click.group()
def token() -> None:
    """Tokens of the relay's callers: create, list, revoke. Reads RELAY_DATABASE_URL."""


@token.command()
@click.argument("name")
@click.option("--read-only", is_flag=True, help="It may look at messages, logs and schedules, and change nothing.")
@click.option(
    "--publishes-per-second", type=click.IntRange(min=1), help="How many messages each relay process takes of it."
)
def create(name: str, *, read_only: bool, publishes_per_second: int | None) -> None:
    """Make the token NAME and print it once: only its hash is stored."""

    async def work(tokens: Tokens) -> str:
        return await tokens.create(name, writes=not read_only, publishes_per_second=publishes_per_second)

    try:
        click.echo(_with_tokens(work))
    except TokenExistsError as error:
        raise click.ClickException(str(error)) from None


@token.command("list")
def list_tokens() -> None:
    """Show each token's name, rights, limit, age and whether it was revoked."""
    for one in _with_tokens(lambda tokens: tokens.all()):
        rights = "writes" if one.writes else "read-only"
        limit = "-" if one.publishes_per_second is None else f"{one.publishes_per_second}/s"
        state = "valid" if one.revoked_at is None else f"revoked {one.revoked_at:%Y-%m-%d}"
        click.echo(f"{one.name}  {rights}  {limit}  {one.created_at:%Y-%m-%d}  {state}")


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke the token NAME. Running processes accept it for a few more seconds at most."""
    if not _with_tokens(lambda tokens: tokens.revoke(name)):
        raise click.ClickException(f"there is no valid token named {name}")
    click.echo("revoked")


def _with_tokens(work: Callable[[Tokens], Awaitable[T]]) -> T:
    url = read_or_exit(CommandSettings).database_url.get_secret_value()

    async def main() -> T:
        async with new_pool(url, connections_max=1) as pool:
            return await work(Tokens(Database(pool)))

    try:
        create_schema(url)
        return asyncio.run(main())
    except psycopg.OperationalError as error:
        raise click.ClickException(f"the database does not respond: {error}") from None
    except SchemaError as error:
        raise click.ClickException(str(error)) from None
