"""The users file: what it holds, how it is written, and which files are rejected."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from tieline.http.passwords import UNKNOWN_USER_HASH, hash_password, hash_token, verify_password
from tieline.http.users import (
    Account,
    Role,
    User,
    UsersFileError,
    edit_users,
    is_user_name,
    parse_users,
    read_users,
)

HASH = UNKNOWN_USER_HASH
ANN = Account(User("ann", Role.ADMIN), "password", HASH)
CI = Account(User("ci", Role.VIEWER), "token", hash_token("t0ken"))


def test_a_file_that_was_written_is_read_back(tmp_path):
    path = tmp_path / "users"
    with edit_users(path) as users:
        users.put(ANN)
        users.put(CI)
    assert read_users(path) == [ANN, CI]
    assert path.read_text() == f"ann admin password {HASH}\nci viewer token {CI.hash}\n"


def test_the_file_is_private_and_nothing_else_is_left_in_its_folder(tmp_path):
    with edit_users(tmp_path / "users") as users:
        users.put(ANN)
    (tmp_path / "users").chmod(0o644)
    with edit_users(tmp_path / "users") as users:
        users.put(CI)
    assert stat.S_IMODE((tmp_path / "users").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["users"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "users"
    with edit_users(path) as users:
        users.put(ANN)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tieline.http.users.os.replace", fail)
    with pytest.raises(OSError, match="No space left"), edit_users(path) as users:
        users.put(CI)
    assert read_users(path) == [ANN]
    assert os.listdir(tmp_path) == ["users"]


def test_an_edit_through_a_symbolic_link_keeps_the_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "users").symlink_to(tmp_path / "there" / "users")
    with edit_users(tmp_path / "users") as users:
        users.put(ANN)
    assert (tmp_path / "users").is_symlink()
    assert read_users(tmp_path / "there" / "users") == [ANN]


def test_comments_and_the_order_of_lines_are_kept(tmp_path):
    path = tmp_path / "users"
    path.write_text(f"# people\n{ANN.line()}\n\n# programs\n{CI.line()}")
    with edit_users(path) as users:
        users.put(ANN._replace(user=User("ann", Role.VIEWER)))
        assert users.remove("ci")
        assert not users.remove("ci")
    assert path.read_text() == f"# people\nann viewer password {HASH}\n\n# programs\n"


def test_two_edits_at_once_lose_no_user(tmp_path):
    path = tmp_path / "users"
    start = threading.Barrier(8)

    def add(number):
        start.wait(10)
        with edit_users(path) as users:
            users.put(Account(User(f"user{number}", Role.VIEWER), "token", hash_token(str(number))))

    threads = [threading.Thread(target=add, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {account.user.name for account in read_users(path)} == {f"user{number}" for number in range(8)}


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("basic ann s3cret", "users --role operator"),
        ("basic ann s3cret read", "users --role viewer"),
        ("bearer t0ken", "users --role operator --token"),
        ("bearer t0ken read", "users --role viewer --token"),
    ],
)
def test_a_line_in_plain_text_is_rejected_with_its_number_and_the_command_to_run(tmp_path, line, fix):
    path = tmp_path / "users"
    path.write_text(f"# people\n{line}\n")
    with pytest.raises(UsersFileError) as raised:
        read_users(path)
    message = str(raised.value)
    assert f"{path}, line 2: has a " in message
    assert message.endswith(f"tieline users add NAME {tmp_path}/{fix}")
    assert "s3cret" not in message
    assert "t0ken" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no users. Add one: tieline users add"),
        (b"# only a comment\n", "has no users"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"x" * (1024 * 1024 + 1), "is larger than 1048576 bytes"),
        (b"ann admin password\n", "line 1: is not NAME ROLE KIND HASH"),
        (b"ann root token sha256:" + b"0" * 64, "line 1: is not NAME ROLE KIND HASH"),
        (b"ann admin token sha256:" + b"0" * 63, "line 1: is not NAME ROLE KIND HASH"),
        (b"a:b admin token sha256:" + b"0" * 64, "line 1: is not NAME ROLE KIND HASH"),
        (ANN.line().encode() + b"\n\n" + ANN.line().encode(), "line 3: repeats the user of line 1"),
        (ANN.line().replace("m=19456", "m=9999999").encode(), "line 1: is not NAME ROLE KIND HASH"),
        (ANN.line().replace("argon2id", "argon2d").encode(), "line 1: is not NAME ROLE KIND HASH"),
    ],
)
def test_a_file_that_is_not_a_users_file_is_rejected(tmp_path, content, message):
    (tmp_path / "users").write_bytes(content)
    with pytest.raises(UsersFileError) as raised:
        read_users(tmp_path / "users")
    assert message in str(raised.value)


def test_a_folder_or_a_pipe_is_rejected_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UsersFileError, match="is not a regular file"):
            read_users(path)


def test_a_user_may_be_called_basic():
    account = Account(User("basic", Role.ADMIN), "password", HASH)
    (parsed,) = parse_users(account.line(), path=None)  # type: ignore[arg-type]
    assert parsed == account


@pytest.mark.parametrize("name", ["", "a b", "a:b", "#a", "a\n", "a\0", "x" * 65, "a\u2028b", "\u00a0"])
def test_a_name_that_would_break_a_line_or_a_header_is_not_allowed(name):
    assert not is_user_name(name)


def test_each_role_includes_those_before_it():
    assert [[role.includes(other) for other in Role] for role in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_a_password_is_verified_by_its_own_salted_hash():
    first, second = hash_password("correct horse"), hash_password("correct horse")
    assert first != second
    assert verify_password(first, "correct horse")
    assert not verify_password(first, "correct horse ")
    assert not verify_password(UNKNOWN_USER_HASH, "")


def test_a_new_hash_costs_as_much_as_that_of_an_unknown_user():
    parameters = hash_password("x").rsplit("$", 2)[0]
    assert UNKNOWN_USER_HASH.startswith(f"{parameters}$")
