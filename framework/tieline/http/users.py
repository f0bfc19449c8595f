"""The users file: names, roles, and hashes of passwords and tokens.

One line per user, ``NAME ROLE KIND HASH``; a line that starts with ``#`` is a comment. ``tieline users``
writes the file. No error quotes a line, since any part of a damaged line may be a secret.
"""

from __future__ import annotations

import enum
import fcntl
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from tieline.api.files import read_small_file

_MAX_MEMORY_KIB = 1024 * 1024  # of one verification; a larger number in a file is a mistake, or an attack
_MAX_PASSES = 100
_PASSWORD_HASH = re.compile(
    r"\$argon2id\$v=19\$m=(?P<memory>\d{1,7}),t=(?P<passes>\d{1,3}),p=\d{1,2}"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}",
    re.ASCII,
)
_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_MAX_NAME = 64
_OLD_KINDS = {"basic": "", "bearer": " --token"}
"""The first words of lines in the format of earlier releases, with the option that replaces each."""


class Role(enum.Enum):
    """What a user may do, from the least to the most."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Return whether this role may do all that the other may."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


class User(NamedTuple):
    """A user who has been authenticated."""

    name: str
    role: Role


class Account(NamedTuple):
    """One line of the file: a user, and the hash of the password or token."""

    user: User
    kind: Literal["password", "token"]
    hash: str

    def line(self) -> str:
        """Return the account as a line of the file, without a line break."""
        return f"{self.user.name} {self.user.role.value} {self.kind} {self.hash}"


class UsersFileError(ValueError):
    """A users file that cannot be used. The message has the file, the line and the fix, never a secret."""


def is_user_name(name: str) -> bool:
    """Return whether a user may have this name: at most 64 printable characters, no space and no colon."""
    return (
        0 < len(name) <= _MAX_NAME
        and name.isprintable()
        and name[0] != "#"
        and not any(character.isspace() or character == ":" for character in name)
    )


def parse_users(text: str, path: Path) -> list[Account]:
    """Return the accounts in the text of a users file. Raises ``UsersFileError``."""
    accounts: list[Account] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        account = _parse_account(words)
        if account is None:
            raise UsersFileError(f"{path}, line {number}: {_describe_problem(words, path)}")
        first = lines.setdefault(account.user.name, number)
        if first != number:
            raise UsersFileError(f"{path}, line {number}: repeats the user of line {first}. Remove one line")
        accounts.append(account)
    return accounts


def read_users(path: Path) -> list[Account]:
    """Return the accounts in a users file, at least one. Raises ``OSError``, ``UsersFileError``."""
    accounts = list_accounts(path)
    if not accounts:
        raise UsersFileError(f"{path} has no users. Add one: {add_command(path)}")
    return accounts


def list_accounts(path: Path) -> list[Account]:
    """Return the accounts in a users file, which may have none. Raises ``OSError``, ``UsersFileError``."""
    return parse_users(_read_text(path), path)


@contextmanager
def edit_users(path: Path) -> Iterator[UsersFile]:
    """Lock a users file, yield its content, and write the file if the content has changed.

    A missing file is created. Other processes that edit the file wait; readers see the old file or the new
    one. Raises ``OSError``, ``UsersFileError``.
    """
    path = path.resolve()  # a rename would replace a symbolic link itself
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = _read_text(path) if path.exists() else ""
        file = UsersFile(path, before)
        yield file
        if file.text != before:
            _replace(path, file.text)
            os.fsync(folder)
    finally:
        os.close(folder)


class UsersFile:
    """The content of a users file that is being edited. Comments and the order of lines are kept."""

    def __init__(self, path: Path, text: str) -> None:
        self.text = text
        self._path = path
        self.accounts = {account.user.name: account for account in parse_users(text, path)}

    def put(self, account: Account) -> None:
        """Add an account, or replace the one of the same name."""
        lines = self._lines()
        if account.user.name in self.accounts:
            names = [_name_in(line) for line in lines]
            lines[names.index(account.user.name)] = account.line()
        else:
            lines.append(account.line())
        self._set(lines)

    def remove(self, name: str) -> bool:
        """Remove an account, and return whether there was one."""
        is_known = name in self.accounts
        if is_known:
            self._set([line for line in self._lines() if _name_in(line) != name])
        return is_known

    def _lines(self) -> list[str]:
        return self.text.removesuffix("\n").split("\n") if self.text else []

    def _set(self, lines: list[str]) -> None:
        self.text = "".join(f"{line}\n" for line in lines)
        self.accounts = {account.user.name: account for account in parse_users(self.text, self._path)}


def _parse_account(words: list[str]) -> Account | None:
    if len(words) != 4:
        return None
    name, role, kind, hash_ = words
    if not is_user_name(name) or role not in {each.value for each in Role}:
        return None
    user = User(name, Role(role))
    if kind == "password" and _is_password_hash(hash_):
        return Account(user, "password", hash_)
    if kind == "token" and _TOKEN_HASH.fullmatch(hash_):
        return Account(user, "token", hash_)
    return None


def _is_password_hash(text: str) -> bool:
    match = _PASSWORD_HASH.fullmatch(text)
    return (
        match is not None
        and 8 <= int(match["memory"]) <= _MAX_MEMORY_KIB
        and 1 <= int(match["passes"]) <= _MAX_PASSES
    )


def _describe_problem(words: list[str], path: Path) -> str:
    option = _OLD_KINDS.get(words[0])
    if option is None or len(words) == 1:
        return (
            "is not NAME ROLE KIND HASH (roles: viewer, operator, admin; kinds: password, token). Remove the"
            f" line, and add the user with: {add_command(path)}"
        )
    role = "viewer" if words[-1] == "read" and len(words) > 2 else "operator"
    what = "token" if option else "password"
    return (
        f"has a {what} in plain text, which earlier releases accepted. Remove the line, and add the user with"
        f" a new {what}: {add_command(path, role)}{option}"
    )


def add_command(path: Path, role: str = "operator") -> str:
    """Return the command that adds a user, for messages."""
    return f"tieline users add NAME {shlex.quote(str(path))} --role {role}"


def _read_text(path: Path) -> str:
    try:
        return read_small_file(path).decode("utf-8")
    except UnicodeDecodeError:
        raise UsersFileError(f"{path} is not UTF-8 text. Write a new one: {add_command(path)}") from None
    except ValueError as error:
        raise UsersFileError(f"{path} {error}") from None


def _name_in(line: str) -> str:
    words = line.split()
    return words[0] if words else ""


def _replace(path: Path, text: str) -> None:
    file, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            if os.geteuid() == 0 and path.exists():
                owner = path.stat()  # an edit by root must not lock out the service that owns the file
                os.fchown(out.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
