import pytest

from tieline_connectors.mongo.client import redact


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("mongodb://user:s3crt@h:1/db", "s3crt at mongodb://user:s3crt@h:1/db"),
        ("mongodb://user:s3c%72t@h:1/?authSource=admin", "s3crt is s3c%72t"),
        ("mongodb+srv://user:s3crt@h/db?w=1", "mongodb+srv://user:s3crt@h"),
        ("mongodb://h/?w=1&tlsCertificateKeyFilePassword=s3crt", "no key for s3crt"),
        ("mongodb://user:pa@s3crt@h:1/db", "mongodb://user:pa@s3crt@h:1/db"),
    ],
)
def test_no_secret_of_the_uri_is_left_in_a_text(uri, text):
    assert "s3c" not in redact(text, uri)


def test_the_address_in_a_masked_uri_stays_readable():
    assert redact("h:1 in mongodb://u:p@h:1/db", "mongodb://u:p@h:1/db") == (
        "h:1 in mongodb://********@h:1/db"
    )


def test_user_and_password_of_another_uri_are_hidden_too():
    assert "other" not in redact("mongodb://u:other@h", "mongodb://h")
