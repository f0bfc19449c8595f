"""``tieline schemas``: the schemas of a registry or of a broker, and whether changed ones may be released."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api import Schema, StartupError, TielineError
from tieline.cli.connection import (
    BootstrapServers,
    BrokerOptions,
    DataDir,
    RegistryUrl,
    WorkerFile,
    open_session,
    say,
)
from tieline.registry.model.errors import RegistryError

schemas = typer.Typer(
    help="The schemas of a registry or of a broker, and their changes.", no_args_is_help=True
)

Subject = Annotated[str, typer.Argument(help="A subject, such as readings-value.")]
Version = Annotated[str, typer.Argument(help="A number, or latest.")]


@schemas.command("list")
def list_all(
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")] = False,
) -> None:
    """List the subjects with their versions, the newest one's id and name."""
    with _known(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as known:
        rows = []
        for subject in known.subjects():
            found = known.version(subject, "latest")
            row = {"subject": subject, "version": found["version"], "id": found["id"]}
            rows.append({**row, "name": _name(found["schema"])})
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    table = Table("subject", "version", "id", "name")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row.values()))
    Console().print(table)


@schemas.command()
def show(
    subject: Subject,
    version: Version = "latest",
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
) -> None:
    """Print a schema as indented JSON; its id and version go to standard error."""
    with _known(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as known:
        found = known.version(subject, version)
    say(f"{subject} version {found['version']}, id {found['id']}")
    typer.echo(json.dumps(json.loads(found["schema"]), indent=2))


@schemas.command()
def diff(
    subject: Subject,
    old: Version,
    new: Version = "latest",
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
) -> None:
    """Show what changed between two versions, and which of them reads what the other wrote."""
    import difflib

    from tieline.registry.model.avro_schema import parse
    from tieline.registry.model.compatibility import differences

    with _known(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as known:
        found = [known.version(subject, each) for each in (old, new)]
    names = [f"version {each['version']}" for each in found]
    before, after = (json.dumps(json.loads(each["schema"]), indent=2).splitlines() for each in found)
    for line in difflib.unified_diff(before, after, names[0], names[1], lineterm=""):
        typer.echo(line)
    try:
        one, other = (parse(each.get("schemaType", "AVRO"), each["schema"], {}) for each in found)
    except ValueError as error:
        raise StartupError(f"not compared: {error}") from None
    for reader, writer, told in (
        (names[1], names[0], differences(other, one)),
        (names[0], names[1], differences(one, other)),
    ):
        typer.echo(f"{reader} reads what {writer} wrote: {'no' if told else 'yes'}")
        for each in told:
            typer.echo(f"  {each}")


@schemas.command()
def register(
    subject: Subject,
    file: Annotated[Path, typer.Argument(help="A file with an Avro schema.")],
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
) -> None:
    """Register a schema; the same one again has the same id. Exit status 1 where it is refused."""
    try:
        schema = Schema.parse(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StartupError(f"{file}: {error}") from None
    with _known(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as known:
        typer.echo(known.register(subject, schema))


@schemas.command()
def check(
    folder: Annotated[Path, typer.Argument(help="OWNER/Name.avsc, and released/VERSION/OWNER/Name.avsc.")],
) -> None:
    """Hold formats in files against all released versions: each must read what any of them wrote.

    Exit status 1 where one does not.
    """
    from tieline.registry.release import check as released

    found = released.check(folder)
    if not found:
        raise StartupError(f"{folder} holds no format (OWNER/Name.avsc)")
    for each in found:
        told = "broken" if each.wrong else "ok" if each.released else "ok, never released"
        typer.echo(f"{each.name}: {told}")
        for wrong in each.wrong:
            typer.echo(f"  {wrong}")
    if any(each.wrong for each in found):
        raise typer.Exit(1)


@schemas.command()
def docs(
    folder: Annotated[Path, typer.Argument(help="Formats as OWNER/Name.avsc.")],
) -> None:
    """Print the reference page of formats, made from their own documentation."""
    from tieline.registry.release.reference_page import page

    files = sorted(folder.glob("*/*.avsc"))
    try:
        typer.echo(page(Schema.parse(file.read_text("utf-8")).text for file in files), nl=False)
    except (OSError, ValueError, KeyError) as error:
        raise StartupError(f"{folder}: {type(error).__name__}: {error}") from None


class _OfBroker:
    """The topic of a broker, as a registry would show it."""

    def __init__(self, broker: Any) -> None:
        from tieline.registry.schema_topic import SchemaTopic, TopicSchemaStore

        self._topic = SchemaTopic(broker)
        self._topic.catch_up()
        self._store = TopicSchemaStore(broker, self._topic)

    def subjects(self) -> list[str]:
        return self._topic.peek(lambda state: [name for name in state.names() if state.has(name)])

    def version(self, subject: str, number: str) -> dict[str, Any]:
        found = self._topic.peek(lambda state: state.versions(subject))
        chosen = [v for v in found if number in ("latest", str(v.number))]
        if not chosen:
            there = ", ".join(str(v.number) for v in found) or "none"
            raise StartupError(f"{subject} has no version {number}; there are: {there}")
        last = chosen[-1]
        shown = {"version": last.number, "id": last.id, "schema": last.content.text}
        return {**shown, "schemaType": last.content.type}

    def register(self, subject: str, schema: Schema) -> int:
        return self._store.register(subject, schema)


class _OfRegistry:
    """A registry elsewhere."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._client = store.client

    def subjects(self) -> list[str]:
        return sorted(self._client.get_subjects())

    def version(self, subject: str, number: str) -> dict[str, Any]:
        latest = number == "latest"
        found = (
            self._client.get_latest_version(subject) if latest else self._client.get_version(subject, number)
        )
        kind = found.schema.schema_type or "AVRO"
        shown = {"version": found.version, "id": found.schema_id, "schema": found.schema.schema_str}
        return {**shown, "schemaType": kind}

    def register(self, subject: str, schema: Schema) -> int:
        return int(self._store.register(subject, schema))


@contextmanager
def _known(place: BrokerOptions) -> Iterator[_OfBroker | _OfRegistry]:
    """What is asked. What it refuses becomes one sentence and exit status 1."""
    if place.registry_url and not (place.worker or place.bootstrap_servers or place.data_dir):
        from tieline.registry.client import RemoteSchemaStore, told

        store = RemoteSchemaStore({"url": place.registry_url})
        try:
            with told("answer"):
                yield _OfRegistry(store)
        except TielineError as error:
            say(str(error), error=True)
            raise typer.Exit(1) from None
        finally:
            store.close()
        return
    with open_session(place) as opened:
        try:
            yield _OfBroker(opened.broker) if opened.registry is None else _OfRegistry(opened.registry)
        except RegistryError as error:
            say(str(error), error=True)
            raise typer.Exit(1) from None


def _name(text: str) -> str:
    try:
        return Schema.parse(text).name
    except ValueError:
        return ""
