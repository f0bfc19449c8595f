"""Creates clients, and keeps the secrets of a URI out of every message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os.path import isfile
from typing import Any, TypeAlias
from urllib.parse import unquote_plus

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import split_options

Client: TypeAlias = "MongoClient[dict[str, Any]]"

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)

_MASK = "********"
_RESERVED = re.compile(r"[/?#\[\]@:]")
_NOT_ENCODED = "not a MongoDB URI: a user or password with one of / ? # [ ] @ : must be percent-encoded"
_SECRET_OPTIONS = ("tlscertificatekeyfilepassword", "authmechanismproperties", "proxypassword")


def create_client(uri: str, defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> Client:
    """Return an unconnected client. The URI overrides ``defaults``, and ``chosen`` overrides the URI.

    Raises ``ValueError`` on a wrong URI; its message contains no secret.
    """
    if not uri.strip().startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("not a MongoDB URI: it must begin with mongodb:// or mongodb+srv://")
    if "@" in uri.partition("://")[2].partition("?")[0].partition("/")[2]:
        raise ValueError(_NOT_ENCODED)  # pymongo would read a part of the password as the host
    try:
        uri_names = uri_options(uri)
        options = {name: value for name, value in defaults.items() if name.lower() not in uri_names}
        return MongoClient(uri, connect=False, appname="tieline", **{**options, **chosen})
    except (PyMongoError, ValueError, TypeError) as error:
        raise ValueError(_describe_error(uri, error)) from None
    except OSError as error:  # tlsCAFile, tlsCertificateKeyFile: missing, not readable, not PEM
        raise ValueError(redact(_describe_tls_error(uri, error), uri)) from None


def _describe_tls_error(uri: str, error: OSError) -> str:
    """Return what is wrong with the files that a URI names, with the fix."""
    problem = f"cannot be used ({error.strerror or type(error).__name__})"
    problems = [
        f"{name} {path}: {problem if isfile(path) else 'there is no such file'}"
        for name, path in uri_options(uri).items()
        if name.startswith("tls") and name.endswith("file")
    ]
    return (
        f"{'; '.join(problems) or f'TLS {problem}'}. Give the full path of a PEM file that this user may "
        "read (~ is not expanded inside a URI)"
    )


def uri_options(uri: str) -> dict[str, Any]:
    """Return the options in a URI by their lower-case names, without a DNS query for ``+srv``.

    Raises pymongo's errors.
    """
    text = uri.partition("?")[2]
    if not text:
        return {}
    return {name.lower(): value for name, value in split_options(text, validate=False).items()}


def redact(text: str, uri: str) -> str:
    """Return a text in which the secrets of a URI are masked."""
    for secret in _secrets(uri):
        text = text.replace(secret, _MASK)
    return re.sub(r"(\w+://)[^/@\s]+@", rf"\1{_MASK}@", text)


def _secrets(uri: str) -> list[str]:
    secrets = []
    userinfo = _userinfo(uri)
    if ":" in userinfo:
        secrets.append(userinfo.partition(":")[2])
    for name, _, value in (pair.partition("=") for pair in re.split("[&;]", uri.partition("?")[2])):
        if name.lower() in _SECRET_OPTIONS:
            secrets.append(value)
    secrets += [unquote_plus(secret) for secret in secrets]
    return sorted({secret for secret in secrets if secret}, key=len, reverse=True)


def _userinfo(uri: str) -> str:
    return uri.partition("://")[2].rpartition("@")[0]


def _describe_error(uri: str, error: Exception) -> str:
    if _RESERVED.search(_userinfo(uri).partition(":")[2]):
        # pymongo splits such a URI in the wrong places, and its message would show a part of the secret
        return _NOT_ENCODED
    return f"not a MongoDB URI: {redact(str(error), uri)}; its form is mongodb://user:password@host:port/?options"
