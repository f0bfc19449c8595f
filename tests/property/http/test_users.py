"""No error about a users file contains a secret of it, and what is written is read back."""

from __future__ import annotations

import traceback
from pathlib import Path

from hypothesis import event, given
from hypothesis import strategies as st

from tieline.http.passwords import UNKNOWN_USER_HASH, hash_token
from tieline.http.users import Account, Role, User, UsersFileError, is_user_name, parse_users

SECRET = "Zq7-secret"  # which no message contains by chance
PATH = Path("/etc/tieline/users")

words = st.one_of(
    st.sampled_from(
        [
            SECRET,
            f"x{SECRET}",
            f"$argon2id${SECRET}",
            f"sha256:{SECRET}",
            *("basic", "bearer", "read", "ann", "password", "token", "viewer", "admin", "#"),
            UNKNOWN_USER_HASH,
            hash_token("x"),
        ]
    ),
    st.text(max_size=5),
)
separators = st.sampled_from([" ", "  ", "\t", "\n", "\r\n", "\u2028", ":", ""])
texts = st.lists(st.tuples(words, separators), max_size=30).map(
    lambda parts: "".join(word + separator for word, separator in parts)
)


@given(texts)
def test_no_error_about_a_users_file_contains_a_secret(text):
    try:
        printed = f"{len(parse_users(text, PATH))} accounts"
    except UsersFileError:
        printed = traceback.format_exc()
    event(printed[:9])
    assert SECRET not in printed


characters = st.characters(exclude_categories=["C", "Z"], exclude_characters=":")
names = st.text(characters, min_size=1, max_size=64).filter(is_user_name)
accounts = st.builds(
    Account,
    st.builds(User, names, st.sampled_from(Role)),
    st.just("token"),
    st.text(min_size=1).map(lambda text: hash_token(ascii(text))),
)


@given(st.lists(accounts, unique_by=lambda account: account.user.name))
def test_all_accounts_that_are_written_are_read_back(written):
    text = "".join(f"{account.line()}\n" for account in written)
    assert parse_users(text, PATH) == written
