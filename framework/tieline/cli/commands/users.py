"""``tieline users``: the users file of the schema registry and of every other HTTP listener."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api import StartupError
from tieline.cli.connection import say
from tieline.http.users import (
    Account,
    Role,
    User,
    UsersFile,
    UsersFileError,
    add_command,
    edit_users,
    is_user_name,
    list_accounts,
)

users = typer.Typer(
    help="Who may use the HTTP listeners: names, roles and hashes in a users file.", no_args_is_help=True
)

_MIN_PASSWORD = 8
_MAX_PASSWORD = 1024
_MIN_CHARACTERS = 4  # different ones
_GUESSED_FIRST = {
    *("password", "password1", "passw0rd", "12345678", "123456789", "1234567890", "qwertyui", "qwerty123"),
    *("qwertyuiop", "1q2w3e4r", "abcd1234", "iloveyou", "admin123", "administrator", "letmein1", "welcome1"),
    *("changeme", "changeit", "sunshine", "princess"),
}

Name = Annotated[str, typer.Argument(help="The user's name.")]
File = Annotated[Path, typer.Argument(help="The users file, as in users.file.")]


@users.command()
def add(
    name: Name,
    file: File,
    role: Annotated[
        Role, typer.Option(help="viewer may read; operator may change things too; admin may do everything.")
    ],
    token: Annotated[
        bool, typer.Option("--token", help="Generate a bearer token instead of asking for a password.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the user's role and password or token.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Change the role alone; the user keeps the password or token.")
    ] = False,
) -> None:
    """Add a user. The password is asked for without echo, or read from standard input.

    With --token, the token is generated and printed once; only its hash is kept.
    """
    if keep:
        if token or replace:
            raise StartupError("give --keep alone: it changes neither the password nor the token")
        _change_role(file, User(name, role))
        return
    from tieline.http.passwords import generate_token, hash_password, hash_token

    if not is_user_name(name):
        raise StartupError(
            f"{name[:100]!r} cannot be the name of a user: use at most 64 printable characters, no spaces and"
            " no colons"
        )
    _edit(file, lambda users_file: _check_is_new(users_file, name, replace=replace))
    secret = generate_token() if token else _read_password(name)
    hash_ = hash_token(secret) if token else hash_password(secret)
    account = Account(User(name, role), "token" if token else "password", hash_)

    def put(users_file: UsersFile) -> None:
        _check_is_new(users_file, name, replace=replace)
        users_file.put(account)

    _edit(file, put)
    say(f"{name} is in {file} with the role {role.value}. {_RESTART}")
    if token:
        say("This is the token. It is not shown again:")
        typer.echo(secret)


@users.command()
def remove(name: Name, file: File) -> None:
    """Remove a user."""
    _check_exists(file)

    def remove_user(users_file: UsersFile) -> None:
        if not users_file.remove(name):
            raise _unknown_user(file, name)

    _edit(file, remove_user)
    say(f"{name} was removed from {file}. {_RESTART}")


@users.command("list")
def list_users(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")] = False,
) -> None:
    """List the users with their roles; passwords and tokens cannot be shown."""
    _check_exists(file)
    try:
        accounts = list_accounts(file)
    except OSError as error:
        raise StartupError(f"{file} cannot be read: {error.strerror}") from None
    except UsersFileError as error:
        raise StartupError(str(error)) from None
    rows = [{"name": a.user.name, "role": a.user.role.value, "kind": a.kind} for a in accounts]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    table = Table("name", "role", "kind")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    Console().print(table)


_RESTART = "Restart the registry or worker that uses this file to apply the change."


def _check_is_new(users_file: UsersFile, name: str, *, replace: bool) -> None:
    if name in users_file.accounts and not replace:
        raise StartupError(
            f"the user {name!r} exists already; --replace gives a new role and password or token, "
            "--keep a new role alone"
        )


def _change_role(file: Path, user: User) -> None:
    _check_exists(file)

    def change(users_file: UsersFile) -> None:
        account = users_file.accounts.get(user.name)
        if account is None:
            raise StartupError(
                f"{file} has no user {user.name[:100]!r}; `tieline users list` shows all users"
            )
        users_file.put(account._replace(user=user))

    _edit(file, change)
    say(f"{user.name} has the role {user.role.value} in {file}. {_RESTART}")


def _unknown_user(file: Path, name: str) -> StartupError:
    return StartupError(f"{file} has no user {name[:100]!r}; `tieline users list` shows all users")


def _check_exists(file: Path) -> None:
    if not file.exists():
        raise StartupError(f"{file} does not exist. The first user creates it: {add_command(file)}")


def _edit(file: Path, change: Callable[[UsersFile], None]) -> None:
    """Change a users file. Every error becomes one message without a secret."""
    try:
        with edit_users(file) as users_file:
            change(users_file)
    except FileNotFoundError:
        folder = file.resolve().parent
        raise StartupError(
            f"{file} cannot be created: the folder {folder} does not exist. Create it"
        ) from None
    except OSError as error:
        raise StartupError(f"{file} cannot be changed: {error.strerror}") from None
    except UsersFileError as error:
        raise StartupError(str(error)) from None


def _read_password(name: str) -> str:
    """Ask for a password twice on a terminal; otherwise read the first line of standard input."""
    none_given = ""
    if sys.stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        # Bytes, since not every locale decodes UTF-8.
        line = sys.stdin.buffer.readline(4 * _MAX_PASSWORD + 2)
        if not line:
            none_given = ", and standard input has none. Pipe it in, or run the command on a terminal"
        try:
            password = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise StartupError("the password is not UTF-8 text; nothing was changed") from None
    if not _MIN_PASSWORD <= len(password) <= _MAX_PASSWORD:
        raise StartupError(
            f"the password must have {_MIN_PASSWORD} to {_MAX_PASSWORD} characters{none_given}; nothing was"
            " changed"
        )
    plain = password.casefold()
    if plain == name.casefold() or plain in _GUESSED_FIRST or len(set(plain)) < _MIN_CHARACTERS:
        raise StartupError(
            "the password is one that is guessed first: the user's name, a common one, or one of few"
            " different characters; nothing was changed"
        )
    return password
