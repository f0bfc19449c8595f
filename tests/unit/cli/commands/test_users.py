"""``tieline users``: what the command asks, prints and writes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from tieline.api import StartupError
from tieline.cli.commands.users import users as users_command
from tieline.http.passwords import hash_token, verify_password
from tieline.http.users import Role, read_users

TIELINE = [sys.executable, "-m", "tieline.cli.main", "users"]


class Done(NamedTuple):
    """What a command did; a ``StartupError`` is reported as by the program."""

    returncode: int
    stdout: str
    stderr: str


def users(*arguments, stdin=""):
    result = CliRunner().invoke(users_command, [*map(str, arguments)], input=stdin)
    if isinstance(result.exception, StartupError):
        return Done(2, result.stdout, result.stderr + str(result.exception))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "users"


def test_a_password_is_read_from_standard_input_and_only_its_hash_is_kept(file):
    done = users("add", "ann", file, "--role", "operator", stdin="correct horse\n")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"ann is in {file} with the role operator. Restart " in done.stderr
    (account,) = read_users(file)
    assert account.user == ("ann", Role.OPERATOR)
    assert verify_password(account.hash, "correct horse")
    for text in (done.stderr, file.read_text()):
        assert "correct horse" not in text


def test_a_password_is_prompted_twice_on_a_terminal_without_echo(file):
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*TIELINE, "add", "ann", str(file), "--role", "viewer"],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # makes it the controlling terminal
    )
    os.close(its)
    printed = read_until(ours, b"Password: ")
    os.write(ours, b"correct horse\n")
    printed += read_until(ours, b"Repeat for confirmation: ")
    os.write(ours, b"correct horse\n")
    printed += read_until(ours, b"apply the change.")
    assert process.wait(60) == 0
    os.close(ours)
    assert b"correct" not in printed
    assert verify_password(read_users(file)[0].hash, "correct horse")


def read_until(terminal, text):
    printed = b""
    while text not in printed:
        data = os.read(terminal, 1000)
        assert data, printed
        printed += data
    return printed


def test_a_token_is_printed_once_and_alone_and_only_its_hash_is_kept(file):
    done = users("add", "ci", file, "--role", "viewer", "--token")
    assert done.returncode == 0
    token = done.stdout.strip()
    assert token not in done.stderr
    (account,) = read_users(file)
    assert (account.kind, account.hash) == ("token", hash_token(token))
    assert token not in file.read_text()


def test_users_are_listed_without_hashes_and_removed(file):
    users("add", "ann", file, "--role", "admin", stdin="correct horse")
    users("add", "ci", file, "--role", "viewer", "--token")
    listed = users("list", file, "--json")
    assert [json.loads(line) for line in listed.stdout.splitlines()] == [
        {"name": "ann", "role": "admin", "kind": "password"},
        {"name": "ci", "role": "viewer", "kind": "token"},
    ]
    table = users("list", file).stdout
    assert "ann" in table
    assert "argon2" not in table
    assert users("remove", "ann", file).returncode == 0
    assert [account.user.name for account in read_users(file)] == ["ci"]
    again = users("remove", "ann", file)
    assert (again.returncode, "has no user 'ann'" in again.stderr) == (2, True)


def test_a_user_is_replaced_only_on_request(file):
    users("add", "ann", file, "--role", "admin", stdin="correct horse")
    before = file.read_text()
    refused = users("add", "ann", file, "--role", "viewer", stdin="another horse")
    assert (refused.returncode, "--replace" in refused.stderr) == (2, True)
    assert file.read_text() == before
    assert users("add", "ann", file, "--role", "viewer", "--replace", stdin="another horse").returncode == 0
    (account,) = read_users(file)
    assert account.user.role is Role.VIEWER
    assert verify_password(account.hash, "another horse")


def test_a_file_without_users_is_an_empty_list_and_a_missing_file_an_error_with_the_fix(file):
    missing = users("list", file)
    assert missing.returncode == 2
    assert f"{file} does not exist. The first user creates it: tieline users add NAME" in missing.stderr
    assert users("remove", "ann", file).stderr == missing.stderr
    file.write_text("# nobody yet\n")
    listed = users("list", file)
    assert (listed.returncode, "name" in listed.stdout, listed.stderr) == (0, True, "")
    assert users("list", file, "--json") == (0, "", "")


def test_a_missing_folder_is_named(file):
    done = users("add", "ann", file / "no" / "users", "--role", "viewer", "--token")
    assert (done.returncode, f"the folder {file / 'no'} does not exist" in done.stderr) == (2, True)


def test_a_role_changes_without_a_new_password(file):
    users("add", "ann", file, "--role", "viewer", stdin="correct horse")
    (before,) = read_users(file)
    assert users("add", "ann", file, "--role", "admin", "--keep").returncode == 0
    (after,) = read_users(file)
    assert (after.user.role, after.hash) == (Role.ADMIN, before.hash)
    unknown = users("add", "bob", file, "--role", "admin", "--keep")
    assert (unknown.returncode, "has no user 'bob'" in unknown.stderr) == (2, True)
    both = users("add", "ann", file, "--role", "admin", "--keep", "--token")
    assert (both.returncode, "give --keep alone" in both.stderr) == (2, True)


def test_users_that_are_added_at_once_are_all_there(file):
    command = [*TIELINE, "add", "{}", str(file), "--role", "viewer", "--token"]
    processes = [
        subprocess.Popen([word.format(f"user{n}") for word in command], stdout=subprocess.DEVNULL)
        for n in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert {account.user.name for account in read_users(file)} == {"user0", "user1", "user2"}


def test_a_symbolic_link_stays_one(file, tmp_path):
    (tmp_path / "link").symlink_to(file)
    assert users("add", "ann", tmp_path / "link", "--role", "viewer", "--token").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert len(read_users(file)) == 1


@pytest.mark.parametrize("password", ["Password", "aaaaaaaa", "12121212", "administrator", "Ann.Smith"])
def test_a_password_that_is_guessed_first_is_refused(file, password):
    done = users("add", "ann.smith", file, "--role", "admin", stdin=password)
    assert (done.returncode, "one that is guessed first" in done.stderr) == (2, True)
    assert not file.exists()


def test_a_missing_password_is_not_just_a_short_one(file):
    done = users("add", "ann", file, "--role", "admin", stdin="")
    assert "standard input has none. Pipe it in, or run the command on a terminal" in done.stderr


@pytest.mark.parametrize("password", ["", "\n", "short", "x" * 1025, "x" * 100_000])
def test_a_password_that_is_too_short_or_too_long_is_refused(file, password):
    done = users("add", "ann", file, "--role", "admin", stdin=password)
    assert (done.returncode, "must have 8 to 1024 characters" in done.stderr) == (2, True)
    assert not file.exists()


def test_a_password_is_utf_8_whatever_the_locale_and_other_bytes_are_refused(file):
    done = subprocess.run(
        [*TIELINE, "add", "ann", str(file), "--role", "admin"],
        input="grüße aus Köln\n".encode(),
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        timeout=60,
    )
    assert done.returncode == 0
    assert verify_password(read_users(file)[0].hash, "grüße aus Köln")
    refused = users("add", "bob", file, "--role", "admin", stdin=b"\xff\xfe secret\n")
    assert (refused.returncode, "is not UTF-8 text" in refused.stderr) == (2, True)


@pytest.mark.parametrize("name", ["a b", "a:b", "#a", ""])
def test_a_name_that_no_client_could_send_is_refused(file, name):
    done = users("add", name, file, "--role", "admin", stdin="correct horse")
    assert (done.returncode, "cannot be the name of a user" in done.stderr) == (2, True)


def test_a_password_is_never_taken_from_the_command_line(file):
    for option in ("--password", "-p"):
        assert users("add", "ann", file, "--role", "admin", option, "correct horse").returncode == 2
    assert users("add", "ann", "correct horse", file, "--role", "admin").returncode == 2


@pytest.mark.parametrize("command", [["list"], ["remove", "ann"], ["add", "ann", "--role", "admin"]])
def test_a_file_in_plain_text_is_rejected_with_the_fix_and_stays_as_it_is(file, command):
    file.write_text("basic ann s3cret99\n")
    done = users(*command, file, stdin="correct horse")
    assert done.returncode == 2
    assert "line 1: has a password in plain text" in done.stderr
    assert "s3cret99" not in done.stderr
    assert file.read_text() == "basic ann s3cret99\n"


def test_a_file_that_cannot_be_read_or_written_is_one_message(tmp_path):
    for command in (["list"], ["remove", "ann"], ["add", "ann", "--role", "admin"]):
        done = users(*command, tmp_path / "missing" / "users", stdin="correct horse")
        assert done.returncode == 2
        assert "does not exist" in done.stderr
