"""A MongoDB-wire server on this machine: SecantusDB, installed beside this Python interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tieline_lab.process import Process, Server, free_port, port_open

_PROGRAM = Path(sys.executable).with_name("secantusd-py")


def why_not() -> str | None:
    """Return why this machine cannot run the server, or ``None`` if it can."""
    return None if _PROGRAM.exists() else "SecantusDB is not installed. Run pip install 'tieline[lab]'"


class MongoServer(Server):
    """One server. Its data stay in ``work``.

    It syncs to disk on every commit. Otherwise a SIGKILL would lose acknowledged documents.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.port = free_port()
        address = ["--host", "127.0.0.1", "--port", str(self.port)]
        storage = ["--storage-path", str(work.absolute() / "data"), "--sync-on-commit"]
        self.process = Process(
            "SecantusDB", [_PROGRAM, *address, *storage], work / "mongo.log", ready=self._answers
        )

    @property
    def uri(self) -> str:
        """Its address for clients; the same after a restart."""
        return f"mongodb://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and return when clients can use it: about 0.5 s."""
        (self.work / "data").mkdir(parents=True, exist_ok=True)
        self.process.start()

    def stop(self) -> None:
        """Stop it in good order, in about 2 s."""
        self.process.stop()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it if it runs, and start it again with its data, in less than 1 s."""
        self.process.restart()

    def _answers(self) -> bool:
        if not port_open(self.port):
            return False
        with MongoClient[dict[str, object]](self.uri, serverSelectionTimeoutMS=1000) as client:
            try:
                client.admin.command("ping")
            except PyMongoError:
                return False
        return True
