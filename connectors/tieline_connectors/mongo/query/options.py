"""Options that the commands on MongoDB share."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_URI = "mongodb://127.0.0.1:27017"
DEFAULT_DATABASE = "tieline"
CONNECTING = {"serverSelectionTimeoutMS": 3000, "connectTimeoutMS": 3000}
"""Options of a client whose operator waits for it."""

MongoUri = Annotated[
    str, typer.Option(envvar="TIELINE_MONGO_URI", help="The MongoDB connection string.", show_envvar=True)
]
Database = Annotated[str, typer.Option(help="The database.")]
