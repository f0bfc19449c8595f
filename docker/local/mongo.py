"""Replaces the published mongo image: SecantusDB with the same user and password."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import OperationFailure

# Standalone, as the published image is. A replica set would give clients 0.0.0.0 as its member's address.
SERVER = ["secantusd-py", "--storage-path", "/data/db", "--sync-on-commit", "--standalone"]


def create_user() -> None:
    """Create the user, on 127.0.0.1 only, since the server accepts its first user from any client."""
    password = Path(os.environ["MONGO_INITDB_ROOT_PASSWORD_FILE"]).read_text("utf-8").rstrip("\n")
    user = os.environ["MONGO_INITDB_ROOT_USERNAME"]
    server = subprocess.Popen([*SERVER, "--host", "127.0.0.1", "--port", "27018"])
    client: MongoClient[dict[str, object]]
    with MongoClient("mongodb://127.0.0.1:27018") as client, suppress(OperationFailure):  # the user exists
        client.admin.command("createUser", user, pwd=password, roles=["root"])
    server.send_signal(signal.SIGTERM)
    server.wait()


create_user()
os.execvp(SERVER[0], [*SERVER, "--host", "0.0.0.0", "--auth"])
