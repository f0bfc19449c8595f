"""Connections, and the rule that a URI's secrets appear nowhere."""

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
_NOT_ENCODED = "no MongoDB URI: a user or password with one of / ? # [ ] @ : must be percent-encoded"
_SECRET_OPTIONS = ("tlscertificatekeyfilepassword", "authmechanismproperties", "proxypassword")


def connect(uri: str, defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> Client:
    """A client that does not connect yet. ``defaults`` give way to the URI, ``chosen`` does not.

    Raises ``ValueError`` where the URI is wrong, without any secret in it.
    """
    if not uri.strip().startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("no MongoDB URI: it begins with mongodb:// or mongodb+srv://")
    if "@" in uri.partition("://")[2].partition("?")[0].partition("/")[2]:
        raise ValueError(_NOT_ENCODED)  # pymongo would take a piece of the password for the host
    try:
        given = options_of(uri)
        options = {name: value for name, value in defaults.items() if name.lower() not in given}
        return MongoClient(uri, connect=False, appname="tieline", **{**options, **chosen})
    except (PyMongoError, ValueError, TypeError) as error:
        raise ValueError(_why(uri, error)) from None
    except OSError as error:  # tlsCAFile, tlsCertificateKeyFile: missing, not readable, no PEM
        raise ValueError(redacted(_tls_files(uri, error), uri)) from None


def _tls_files(uri: str, error: OSError) -> str:
    """What is wrong with a file that a URI names."""
    why = f"cannot be used ({error.strerror or type(error).__name__})"
    told = [
        f"{name} {path}: {why if isfile(path) else 'there is no such file'}"
        for name, path in options_of(uri).items()
        if name.startswith("tls") and name.endswith("file")
    ]
    return (
        f"{'; '.join(told) or f'TLS {why}'}. Give the whole path of a PEM file that this user may read "
        "(~ is not replaced inside a URI)"
    )


def options_of(uri: str) -> dict[str, Any]:
    """The options in a URI by their names in lower case; the seed list of ``+srv`` is not asked for.

    Raises as pymongo does.
    """
    text = uri.partition("?")[2]
    if not text:
        return {}
    return {name.lower(): value for name, value in split_options(text, validate=False).items()}


def redacted(text: str, uri: str) -> str:
    """A text without the secrets of a URI."""
    for secret in _secrets(uri):
        text = text.replace(secret, _MASK)
    return re.sub(r"(\w+://)[^/@\s]+@", rf"\1{_MASK}@", text)


def _secrets(uri: str) -> list[str]:
    found = []
    userinfo = _userinfo(uri)
    if ":" in userinfo:
        found.append(userinfo.partition(":")[2])
    for name, _, value in (pair.partition("=") for pair in re.split("[&;]", uri.partition("?")[2])):
        if name.lower() in _SECRET_OPTIONS:
            found.append(value)
    found += [unquote_plus(secret) for secret in found]
    return sorted({secret for secret in found if secret}, key=len, reverse=True)


def _userinfo(uri: str) -> str:
    return uri.partition("://")[2].rpartition("@")[0]


def _why(uri: str, error: Exception) -> str:
    if _RESERVED.search(_userinfo(uri).partition(":")[2]):
        # pymongo takes such a URI apart at the wrong places, and its message would show a piece of the secret
        return _NOT_ENCODED
    return (
        f"no MongoDB URI: {redacted(str(error), uri)}; its form is mongodb://user:password@host:port/?options"
    )
