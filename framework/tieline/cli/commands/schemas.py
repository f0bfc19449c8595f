"""``tieline schemas``: the schemas of a registry or of a broker, and checks before a release."""

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
from tieline.broker.port import Broker
from tieline.cli.connection import (
    BootstrapServers,
    BrokerOptions,
    DataDir,
    RegistryUrl,
    WorkerFile,
    open_session,
    say,
)
from tieline.registry.client import RemoteSchemaStore, translate_errors
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
    """List the subjects with the number, id and name of their latest version."""
    with _open_schemas(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as source:
        rows = []
        for subject in source.subjects():
            version = source.version(subject, "latest")
            row = {"subject": subject, "version": version["version"], "id": version["id"]}
            rows.append({**row, "name": _name(version["schema"])})
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
    """Print a schema as indented JSON. Its id and version go to standard error."""
    with _open_schemas(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as source:
        shown = source.version(subject, version)
    say(f"{subject} version {shown['version']}, id {shown['id']}")
    typer.echo(json.dumps(json.loads(shown["schema"]), indent=2))


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

    with _open_schemas(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as source:
        before, after = source.version(subject, old), source.version(subject, new)
    old_name, new_name = f"version {before['version']}", f"version {after['version']}"
    old_lines, new_lines = (
        json.dumps(json.loads(each["schema"]), indent=2).splitlines() for each in (before, after)
    )
    for line in difflib.unified_diff(old_lines, new_lines, old_name, new_name, lineterm=""):
        typer.echo(line)
    try:
        old_schema, new_schema = (
            parse(each.get("schemaType", "AVRO"), each["schema"], {}) for each in (before, after)
        )
    except ValueError as error:
        raise StartupError(f"the versions cannot be compared: {error}") from None
    for reader, writer, problems in (
        (new_name, old_name, differences(new_schema, old_schema)),
        (old_name, new_name, differences(old_schema, new_schema)),
    ):
        typer.echo(f"{reader} reads what {writer} wrote: {'no' if problems else 'yes'}")
        for problem in problems:
            typer.echo(f"  {problem}")


@schemas.command()
def register(
    subject: Subject,
    file: Annotated[Path, typer.Argument(help="A file with an Avro schema.")],
    worker: WorkerFile = None,
    bootstrap_servers: BootstrapServers = None,
    data_dir: DataDir = None,
    schema_registry_url: RegistryUrl = None,
) -> None:
    """Register a schema and print its id. The same schema always has the same id.

    The exit status is 1 if the registry rejects the schema.
    """
    try:
        schema = Schema.parse(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StartupError(f"{file}: {error}") from None
    with _open_schemas(BrokerOptions(worker, bootstrap_servers, data_dir, schema_registry_url)) as source:
        typer.echo(source.register(subject, schema))


@schemas.command()
def check(
    folder: Annotated[Path, typer.Argument(help="OWNER/Name.avsc, and released/VERSION/OWNER/Name.avsc.")],
) -> None:
    """Check that each schema in files reads what all of its released versions wrote.

    The exit status is 1 if one does not.
    """
    from tieline.registry.release.check import check_formats

    checks = check_formats(folder)
    if not checks:
        raise StartupError(f"{folder} has no schemas (OWNER/Name.avsc)")
    for each in checks:
        verdict = "broken" if each.problems else "ok" if each.released else "ok, never released"
        typer.echo(f"{each.name}: {verdict}")
        for problem in each.problems:
            typer.echo(f"  {problem}")
    if any(each.problems for each in checks):
        raise typer.Exit(1)


@schemas.command()
def docs(
    folder: Annotated[Path, typer.Argument(help="Schemas as OWNER/Name.avsc.")],
) -> None:
    """Print a reference page of message formats from the schemas' own documentation."""
    from tieline.registry.release.reference_page import render_page

    files = sorted(folder.glob("*/*.avsc"))
    try:
        page = render_page(Schema.parse(file.read_text("utf-8")).text for file in files)
    except (OSError, ValueError, KeyError) as error:
        raise StartupError(f"{folder}: {type(error).__name__}: {error}") from None
    typer.echo(page, nl=False)


class _TopicSchemas:
    """The schemas in the topic of a broker, as a registry would show them."""

    def __init__(self, broker: Broker) -> None:
        from tieline.registry.schema_topic import SchemaTopic, TopicSchemaStore

        self._topic = SchemaTopic(broker)
        self._topic.catch_up()
        self._store = TopicSchemaStore(broker, self._topic)

    def subjects(self) -> list[str]:
        return self._topic.peek(lambda state: [name for name in state.names() if state.has(name)])

    def version(self, subject: str, number: str) -> dict[str, Any]:
        versions = self._topic.peek(lambda state: state.versions(subject))
        matching = [version for version in versions if number in ("latest", str(version.number))]
        if not matching:
            known = ", ".join(str(version.number) for version in versions) or "none"
            raise StartupError(f"{subject} has no version {number}; its versions: {known}")
        version = matching[-1]
        return {
            "version": version.number,
            "id": version.id,
            "schema": version.content.text,
            "schemaType": version.content.type,
        }

    def register(self, subject: str, schema: Schema) -> int:
        return self._store.register(subject, schema)


class _RegistrySchemas:
    """The schemas of an external registry."""

    def __init__(self, store: RemoteSchemaStore) -> None:
        self._store = store

    def subjects(self) -> list[str]:
        return sorted(self._store.client.get_subjects())

    def version(self, subject: str, number: str) -> dict[str, Any]:
        client = self._store.client
        if number == "latest":
            version = client.get_latest_version(subject)
        else:
            # The registry rejects what is not a number.
            version = client.get_version(subject, number)  # type: ignore[arg-type]
        return {
            "version": version.version,
            "id": version.schema_id,
            "schema": version.schema.schema_str,
            "schemaType": version.schema.schema_type or "AVRO",
        }

    def register(self, subject: str, schema: Schema) -> int:
        return self._store.register(subject, schema)


@contextmanager
def _open_schemas(options: BrokerOptions) -> Iterator[_TopicSchemas | _RegistrySchemas]:
    """Open the schemas that the options name. A rejected request becomes one message and exit status 1."""
    if options.registry_url and not (options.worker or options.bootstrap_servers or options.data_dir):
        store = RemoteSchemaStore({"url": options.registry_url})
        try:
            with translate_errors("answer"):
                yield _RegistrySchemas(store)
        except TielineError as error:
            say(str(error), error=True)
            raise typer.Exit(1) from None
        finally:
            store.close()
        return
    with open_session(options) as session:
        try:
            if session.registry is None:
                yield _TopicSchemas(session.broker)
            else:
                yield _RegistrySchemas(session.registry)
        except RegistryError as error:
            say(str(error), error=True)
            raise typer.Exit(1) from None


def _name(text: str) -> str:
    try:
        return Schema.parse(text).name
    except ValueError:
        return ""
