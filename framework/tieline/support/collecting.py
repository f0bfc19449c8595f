"""Collect what a support bundle holds, part by part. A part that is unavailable says why."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from tieline import __version__
from tieline.api import Config, ConfigError, Secret, StartupError, TielineError
from tieline.api.config import Unresolved
from tieline.api.files import read_small_file
from tieline.broker.client_secrets import secrets as client_secrets
from tieline.config.files import read_file, resolve
from tieline.config.plan import Plan, check_plan
from tieline.plugins import discovery
from tieline.recent_log import FILE as LOG_FILE
from tieline.recent_log import MAX_BYTES, previous
from tieline.registry.schema_topic import SchemaTopic
from tieline.runtime.spool.sizes import spool_sizes
from tieline.runtime.worker.status_file import statuses
from tieline.support.masking import MASK, REFERENCE, mask_content, mask_settings
from tieline.topics.session import BrokerSession

_LIBRARIES = (
    *("confluent-kafka", "pymongo", "fastavro", "pyzmq", "apsw", "pydantic", "typer", "starlette", "uvicorn"),
    *("structlog", "stevedore", "msgspec", "tieline"),
)
_MAX_FILES = 2_000
_MAX_TOPICS = 5_000
_TIMEOUT = 5.0


class WorkerFiles(NamedTuple):
    """The files of a worker: each with its texts as written, and the plan if they can be checked.

    ``secrets``: every text that must not appear. ``problems``: what is wrong with the files.
    """

    files: Mapping[str, Mapping[str, str]]
    plan: Plan | None
    secrets: Sequence[str]
    problems: Sequence[str]


def read_worker_files(worker: Path, connectors: Sequence[Path]) -> WorkerFiles:
    """Read a worker's files. Raises ``ConfigError`` only if the worker's own file cannot be read."""
    read_file(worker)
    written: dict[str, Mapping[str, str]] = {}
    resolved: list[tuple[str, Mapping[str, str]]] = []
    problems: list[str] = []
    for path in (worker, *connectors):
        try:
            written[str(path)] = read_file(path, with_references=True).settings
            file = read_file(path)
        except ConfigError as error:
            problems += map(str, error.problems)
            continue
        problems += map(str, file.problems)
        resolved.append((str(path), file.settings))
    plan = None
    try:
        plan = check_plan(resolved[0][0], resolved[0][1], resolved[1:])
    except (ConfigError, StartupError) as error:
        problems += map(str, error.problems) if isinstance(error, ConfigError) else [str(error)]
    return WorkerFiles(written, plan, list(_secrets(written, resolved, plan)), problems)


def _secrets(
    written: Mapping[str, Mapping[str, str]],
    resolved: Sequence[tuple[str, Mapping[str, str]]],
    plan: Plan | None,
) -> Iterator[str]:
    """Yield what the plan calls secret, and every text that is masked or comes from a reference."""
    if plan is not None:
        yield from plan.secrets
    for where, settings in resolved:
        shown = masked_file(where, written, plan)
        for key, text in settings.items():
            if isinstance(text, Unresolved):
                continue
            yield from client_secrets({key: text})
            yield from _references_in(written[where][key])
            if "${" in written[where][key] or (plan is not None and shown[key] == MASK):
                yield text
                yield from _passwords_in(text)


def _references_in(text: str) -> Iterator[str]:
    """Yield what each reference in a text stands for."""
    for reference in REFERENCE.findall(text):
        with suppress(ValueError):  # it is reported as a problem
            yield resolve(reference)


def _passwords_in(text: str) -> Iterator[str]:
    """Yield the parts before the host of each URL."""
    for url in (text, *text.split(",")):
        user, at, _ = url.partition("://")[2].rpartition("@")
        if at:
            yield from (user, *user.partition(":")[::2])


def masked_file(where: str, written: Mapping[str, Mapping[str, str]], plan: Plan | None) -> dict[str, str]:
    """Return the settings of a file without secrets."""
    settings = written[where]
    if plan is None:
        return mask_settings(settings, (), None)
    secret_keys, known_keys = _declared(plan)
    return mask_settings(settings, secret_keys, known_keys)


def _declared(plan: Plan) -> tuple[set[str], set[str]]:
    """Return the keys of secrets, and all keys that the worker and its connectors declare."""
    secret: set[str] = set()
    known: set[str] = {"connector.class"}
    configs: list[Config] = [plan.worker]
    for planned in plan.connectors:
        configs += [planned.config, planned.settings]
    for config in configs:
        for name, field in type(config).model_fields.items():
            key = field.alias or name
            known.add(key)
            if isinstance(getattr(config, name), Secret):
                secret.add(key)
    return secret, known


class Part(NamedTuple):
    """A file of the bundle."""

    name: str
    collect: Callable[[], Any]


def parts(settings: WorkerFiles, data_dir: Path, session: Callable[[], BrokerSession]) -> list[Part]:
    """Return the parts of a bundle, each with what collects its data."""
    names = _known_names(settings)
    found = [
        Part("versions.json", versions),
        Part("problems.json", lambda: list(settings.problems)),
        Part("status.json", lambda: mask_content(list(statuses(data_dir)), names)),
        Part("disk.json", lambda: disk(data_dir)),
        Part("spools.json", lambda: [size._asdict() for size in spool_sizes(data_dir / "spools")]),
        Part("topics.json", lambda: topics(session())),
        Part("schemas.json", lambda: schemas(session())),
        Part("log.jsonl", lambda: log_lines(data_dir, names)),
    ]
    for number, where in enumerate(settings.files):
        name = f"settings/{number}-{Path(where).stem}.json"
        found.append(Part(name, partial(masked_file, where, settings.files, settings.plan)))
    return found


def versions() -> dict[str, Any]:
    """Return the versions of everything that runs here."""
    return {
        "tieline": __version__,
        "python": sys.version,
        "sqlite": apsw.sqlite_lib_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "plugins": {
            group: {plugin.name: plugin.version for plugin in discovery.installed(group)}
            for group in (discovery.SOURCES, discovery.SINKS)
        },
    }


def disk(data_dir: Path) -> dict[str, Any]:
    """Return the free space, and the size of each file in ``data.dir``."""
    usage = shutil.disk_usage(data_dir)
    files: dict[str, int] = {}
    for folder, _, names in os.walk(data_dir):
        for name in names:
            path = Path(folder, name)
            if len(files) < _MAX_FILES and path.is_file():
                files[str(path.relative_to(data_dir))] = path.stat().st_size
    return {"total": usage.total, "free": usage.free, "files": files}


def topics(session: BrokerSession) -> dict[str, Any]:
    """Return the partitions of every topic, and the committed offset of every group."""
    broker = session.broker
    spans = broker.offsets.spans(sorted(broker.topic_names(_TIMEOUT))[:_MAX_TOPICS], _TIMEOUT)
    groups = {
        group: {
            f"{partition.topic}-{partition.partition}": offset
            for partition, offset in broker.offsets.group(group, _TIMEOUT).committed.items()
        }
        for group in sorted(broker.offsets.groups(_TIMEOUT))
        if group.startswith("connect-")
    }
    partitions = {f"{p.topic}-{p.partition}": {"first": s.first, "next": s.end} for p, s in spans.items()}
    return {"broker": session.name, "partitions": partitions, "groups": groups}


def schemas(session: BrokerSession) -> list[dict[str, Any]]:
    """Return subject, version and id of every schema, without its text."""
    if session.registry is not None:
        raise ValueError("they are in an external schema registry")
    topic = SchemaTopic(session.broker)
    topic.catch_up()
    subjects = topic.snapshot()
    return [
        {"subject": name, "version": version.number, "id": version.id}
        for name in subjects.names()
        for version in subjects.versions(name)
    ]


def log_lines(data_dir: Path, names: Collection[str]) -> list[Any]:
    """Return the newest lines of the worker's log, without what they quote."""
    path = data_dir / LOG_FILE
    lines: list[Any] = []
    for part in (previous(path), path):
        try:
            content = read_small_file(part, 2 * MAX_BYTES)
        except (OSError, ValueError):
            continue
        for line in content.splitlines():
            try:
                lines.append(mask_content(json.loads(line), names))
            except (ValueError, RecursionError):
                continue  # half a line, at the end of a process
    return lines


def _known_names(settings: WorkerFiles) -> frozenset[str]:
    names = {key for file in settings.files.values() for key in file}
    if settings.plan is not None:
        for planned in settings.plan.connectors:
            names.add(planned.name)
            names.update(getattr(planned.settings, "topics", ()) or ())
    return frozenset(names)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def collect(part: Part) -> Any:
    """Return the data of a part, or why it is unavailable."""
    try:
        return part.collect()
    except (TielineError, OSError, ValueError) as error:
        return {"unavailable": f"{type(error).__name__}: {error}"}
