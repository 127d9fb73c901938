"""API keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from signgate.keys.v1 import keys_pb2
from signgate_client import calls
from signgate_client.command.caller import Caller, pass_caller
from signgate_client.command.options import PAIR, SPAN
from signgate_client.command.show import as_json, facts, moment, say, show, table

F = TypeVar("F", bound=Callable[..., Any])

PAGE: Final = 200


@click.group()
def keys() -> None:
    """Make, see, change, rotate and revoke API keys.

    For whoever is signed in, or for a key that has the scopes keys:read and keys:manage.
    """


def limits(command: F) -> F:
    """The options that a new key and a changed one share."""
    for option in (
        click.option("--external-id", help="Its id in a system of your own."),
        click.option(
            "--metadata",
            "pairs",
            type=PAIR,
            multiple=True,
            metavar="NAME=VALUE",
            help="A note to find it by, such as team=search; may be repeated.",
        ),
        click.option("--engine", help="The engine of requests that name none."),
        click.option("--from", "cidrs", multiple=True, metavar="CIDR", help="A network it may be used from."),
        click.option("--per-minute", type=int, help="Its own limit of signatures a minute."),
        click.option("--daily-limit", type=int, help="Its own limit of signatures a UTC day."),
        click.option("--ends-in", type=SPAN, help="When it ends, such as 30d."),
        click.option(
            "--scope", "scopes", multiple=True, help="What it may do, such as sign; may be repeated."
        ),
    ):
        command = option(command)
    return command


once = click.option(
    "--idempotency-key",
    default="",
    help="Repeated with the same value within 24 hours, the command prints the same key and makes no other.",
)


@keys.command()
@click.argument("name")
@click.option("--test", is_flag=True, help="A key for trying out: sgk_test_…")
@limits
@once
@pass_caller
def create(
    caller: Caller, /, name: str, *, test: bool, scopes: Sequence[str], cidrs: Sequence[str], **more: Any
) -> None:
    """Make a key. The key itself is all that is printed on standard output: this once."""
    request = keys_pb2.CreateKeyRequest(
        name=name,
        scopes=scopes,
        mode=keys_pb2.KEY_MODE_TEST if test else keys_pb2.KEY_MODE_UNSPECIFIED,
        expires_at=calls.timestamp(_end(more["ends_in"])),
        allowed_cidrs=cidrs,
        daily_limit=more["daily_limit"],
        per_minute=more["per_minute"],
        engine=more["engine"] or "",
        metadata=dict(more["pairs"]),
        external_id=more["external_id"] or "",
        idempotency_key=more["idempotency_key"],
    )
    with caller.signed_in() as client:
        made = client.call(client.keys.CreateKey, request)
    if caller.as_json:
        as_json(made)
        return
    say(f"Key {made.key.id}, {made.key.masked}. Store it now: it can't be shown again.")
    click.echo(made.secret)


@keys.command("list")
@click.option("--all", "everything", is_flag=True, help="Revoked and expired ones too.")
@click.option("--external-id", default="", help="Only those with this external id.")
@click.option(
    "--metadata",
    "pairs",
    type=PAIR,
    multiple=True,
    metavar="NAME=VALUE",
    help="Only those with this note; may be repeated.",
)
@click.option("--name", default="", help="Only those whose name has this part.")
@pass_caller
def list_(
    caller: Caller, *, everything: bool, external_id: str, pairs: Sequence[tuple[str, str]], name: str
) -> None:
    """List the account's keys, newest first: all, or those that match every option."""
    answer = keys_pb2.ListKeysResponse()
    with caller.signed_in() as client:
        token = ""
        while True:
            request = keys_pb2.ListKeysRequest(
                page_size=PAGE,
                page_token=token,
                include_inactive=everything,
                external_id=external_id,
                metadata_filter=[f"{key}={value}" for key, value in pairs],
                name_contains=name,
            )
            page = client.call(client.keys.ListKeys, request)
            answer.keys.extend(page.keys)
            if not (token := page.next_page_token):
                break
    if caller.as_json:
        as_json(answer)
        return
    columns = ("id", "name", "key", "status", "scopes", "last used", "ends", "external id", "metadata")
    show(
        table(
            columns,
            (
                (
                    k.id,
                    k.name,
                    k.masked,
                    _status(k),
                    " ".join(k.scopes),
                    moment(k.last_used),
                    moment(k.expires_at),
                    k.external_id,
                    _notes(k),
                )
                for k in answer.keys
            ),
        )
    )


@keys.command("show")
@click.argument("key_id")
@pass_caller
def show_(caller: Caller, key_id: str) -> None:
    """Show one key."""
    with caller.signed_in() as client:
        answer = client.call(client.keys.GetKey, keys_pb2.GetKeyRequest(key_id=key_id))
    _tell(caller, answer, answer.key)


@keys.command()
@click.argument("key_id")
@click.option("--name", help="Its new name.")
@limits
@click.option("--endless", is_flag=True, help="Takes its end away.")
@click.option("--from-anywhere", is_flag=True, help="Allows all networks.")
@pass_caller
def update(
    caller: Caller,
    /,
    key_id: str,
    *,
    name: str | None,
    scopes: Sequence[str],
    cidrs: Sequence[str],
    from_anywhere: bool,
    endless: bool,
    **more: Any,
) -> None:
    """Change a key; what is not named stays.

    A limit of 0, and an engine or external id of "", take the key's own away. --metadata NAME= takes that
    note away.
    """
    request = keys_pb2.UpdateKeyRequest(
        key_id=key_id,
        name=name,
        scopes=keys_pb2.Scopes(scopes=scopes) if scopes else None,
        expires_at=calls.timestamp(_end(more["ends_in"])),
        clear_expires_at=endless,
        allowed_cidrs=keys_pb2.Cidrs(cidrs=cidrs) if cidrs or from_anywhere else None,
        daily_limit=more["daily_limit"],
        per_minute=more["per_minute"],
        engine=more["engine"],
        metadata=dict(more["pairs"]),
        external_id=more["external_id"],
    )
    with caller.signed_in() as client:
        answer = client.call(client.keys.UpdateKey, request)
    _tell(caller, answer, answer.key)


@keys.command()
@click.argument("key_id")
@click.option("--grace", type=SPAN, help="How long the old key works on: 0s to 30d. [default: 1d]")
@once
@pass_caller
def rotate(caller: Caller, key_id: str, grace: timedelta | None, idempotency_key: str) -> None:
    """Make a key's successor. The new key is all that is printed on standard output: this once."""
    request = keys_pb2.RotateKeyRequest(
        key_id=key_id, grace_period=calls.duration(grace), idempotency_key=idempotency_key
    )
    with caller.signed_in() as client:
        made = client.call(client.keys.RotateKey, request)
    if caller.as_json:
        as_json(made)
        return
    say(
        f"Key {made.key.id} follows {made.previous.masked}, which ends at {moment(made.previous.expires_at)}."
    )
    click.echo(made.secret)


@keys.command()
@click.argument("key_ids", nargs=-1, required=True, metavar="KEY_ID...")
@pass_caller
def revoke(caller: Caller, key_ids: Sequence[str]) -> None:
    """End keys, for good."""
    with caller.signed_in() as client:
        for key_id in key_ids:
            key = client.revoke_key(key_id)
            say(f"Revoked {key.masked}, {key.name}.")


@keys.command("revoke-all")
@click.option("--except", "kept", default="", metavar="KEY_ID", help="A key to keep.")
@click.option("--yes", is_flag=True, help="Without asking.")
@pass_caller
def revoke_all(caller: Caller, *, kept: str, yes: bool) -> None:
    """End all keys of the account, for good. The key in SIGNGATE_API_KEY ends too, unless it is kept."""
    if not yes:
        which = "all API keys but one" if kept else "all API keys"
        click.confirm(f"Revoke {which} of this account? This can't be undone.", abort=True, err=True)
    with caller.signed_in() as client:
        answer = client.revoke_all_keys(except_key_id=kept)
    if caller.as_json:
        as_json(answer)
        return
    say(f"Revoked keys: {answer.revoked_count}.")
    for key_id in answer.key_ids:
        click.echo(key_id)


@keys.command("revoke-self")
@pass_caller
def revoke_self(caller: Caller) -> None:
    """End the key in SIGNGATE_API_KEY, for good: for whoever finds one."""
    with caller.by_key() as client:
        key = client.call(client.keys.RevokeSelf, keys_pb2.RevokeSelfRequest()).key
    say(f"Revoked {key.masked}.")


@keys.command()
@click.option("--scope", "scopes", multiple=True, help="Some of the key's; none: all but keys:manage.")
@click.option("--ttl", type=SPAN, help="1s to 1h. [default: 5m]")
@pass_caller
def token(caller: Caller, scopes: Sequence[str], ttl: timedelta | None) -> None:
    """Make a short-lived token of the key in SIGNGATE_API_KEY, and print it."""
    request = keys_pb2.MintTokenRequest(scopes=scopes, ttl=calls.duration(ttl))
    with caller.by_key() as client:
        made = client.call(client.keys.MintToken, request)
    if caller.as_json:
        as_json(made)
        return
    say(f"Until {moment(made.expires_at)}: {' '.join(made.scopes)}")
    click.echo(made.token)


@keys.command()
@click.argument("key_id")
@pass_caller
def events(caller: Caller, key_id: str) -> None:
    """List what was done to a key, newest first: the last 200."""
    request = keys_pb2.ListKeyEventsRequest(key_id=key_id, page_size=PAGE)
    with caller.signed_in() as client:
        answer = client.call(client.keys.ListKeyEvents, request)
    if caller.as_json:
        as_json(answer)
        return
    rows = (
        (moment(e.created_at), e.action, f"{e.actor_kind} {e.actor_id}", e.changes_json, e.reason)
        for e in answer.events
    )
    show(table(("when", "what", "by", "changes", "reason"), rows))


def _end(span: timedelta | None) -> datetime | None:
    return None if span is None else datetime.now(UTC) + span


def _status(key: keys_pb2.Key) -> str:
    return keys_pb2.KeyStatus.Name(key.status).removeprefix("KEY_STATUS_").lower()


def _notes(key: keys_pb2.Key) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(key.metadata.items()))


def _tell(caller: Caller, answer: Any, key: keys_pb2.Key) -> None:
    if caller.as_json:
        as_json(answer)
        return
    show(
        facts(
            [
                ("id", key.id),
                ("name", key.name),
                ("key", key.masked),
                ("status", _status(key)),
                ("scopes", " ".join(key.scopes)),
                ("made", moment(key.created_at)),
                ("last used", moment(key.last_used)),
                ("ends", moment(key.expires_at)),
                ("revoked", moment(key.revoked_at)),
                ("from", " ".join(key.allowed_cidrs)),
                ("a day", str(key.daily_limit) if key.HasField("daily_limit") else ""),
                ("a minute", str(key.per_minute) if key.HasField("per_minute") else ""),
                ("engine", key.engine),
                ("follows", key.rotated_from),
                ("external id", key.external_id),
                ("metadata", _notes(key)),
            ]
        )
    )


COMMANDS = (keys,)
