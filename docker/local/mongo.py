"""In place of the published mongo image: SecantusDB with the user and password that that would make."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import OperationFailure

# Alone, as the published image is: it would name 0.0.0.0 as the address of its only member.
SERVER = ["secantusd-py", "--storage-path", "/data/db", "--sync-on-commit", "--standalone"]


def make_user() -> None:
    """It takes its first user from anybody, so nobody outside may reach it meanwhile."""
    password = Path(os.environ["MONGO_INITDB_ROOT_PASSWORD_FILE"]).read_text("utf-8").rstrip("\n")
    user = os.environ["MONGO_INITDB_ROOT_USERNAME"]
    server = subprocess.Popen([*SERVER, "--host", "127.0.0.1", "--port", "27018"])
    client: MongoClient[dict[str, object]]
    with MongoClient("mongodb://127.0.0.1:27018") as client, suppress(OperationFailure):  # it is there
        client.admin.command("createUser", user, pwd=password, roles=["root"])
    server.send_signal(signal.SIGTERM)
    server.wait()


make_user()
os.execvp(SERVER[0], [*SERVER, "--host", "0.0.0.0", "--auth"])
