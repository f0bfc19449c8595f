"""The calls of Confluent's interface about subjects, compatibility, configuration and mode."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tieline.registry.http.request import RegistryRequest
from tieline.registry.http.responses import content_told, guid_told, text_told, told
from tieline.registry.model import config_and_mode, errors, rules
from tieline.registry.model.events import MAX_ID, Content
from tieline.registry.model.state import Subjects, Version

_MOST_IN_A_LIST = 10_000

Call = Callable[[RegistryRequest], Any]


# -- subjects


def schemas(asked: RegistryRequest) -> Any:
    """``GET /schemas``."""
    prefix, deleted = _prefix(asked), asked.flag("deleted")

    def find(state: Subjects) -> list[Version]:
        names = [name for name in state.names() if name.startswith(prefix)]
        found = [state.versions(name, deleted=deleted) for name in names]
        return [v for versions in found for v in (versions[-1:] if asked.flag("latestOnly") else versions)]

    return [told(version) for version in asked.page(asked.topic.ask(find))[:_MOST_IN_A_LIST]]


def _prefix(asked: RegistryRequest) -> str:
    """``:*:`` is all contexts, ``:.:`` the default one, which is all that there are."""
    return asked.query.get("subjectPrefix", "").removeprefix(":*:").removeprefix(":.:")


def subjects(asked: RegistryRequest) -> Any:
    """``GET /subjects``."""
    prefix, only, deleted = (
        _prefix(asked),
        asked.flag("deletedOnly"),
        asked.flag("deleted"),
    )

    def find(state: Subjects) -> list[str]:
        names = [name for name in state.names() if name.startswith(prefix)]
        if only:
            return [name for name in names if not state.has(name)]
        return [name for name in names if state.has(name, deleted=deleted)]

    return asked.page(asked.topic.ask(find))


def versions(asked: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/versions``."""
    only = asked.flag("deletedOnly")

    def find(state: Subjects) -> list[int]:
        found = state.versions(asked.subject, deleted=only or asked.flag("deleted"))
        if not found:
            raise errors.subject_not_found(asked.subject)
        return [version.number for version in found if version.deleted or not only]

    return asked.page(asked.topic.ask(find))


def version(asked: RegistryRequest) -> Version:
    """``GET /subjects/{subject}/versions/{version}``, before it is JSON."""
    return asked.topic.ask(lambda state: _found(state, asked, deleted=asked.flag("deleted")))


def version_as_json(asked: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/versions/{version}``."""
    return told(version(asked))


def text_of_version(asked: RegistryRequest) -> Any:
    """``GET /subjects/{subject}/versions/{version}/schema``."""
    return text_told(version(asked).content.text)


def _found(state: Subjects, asked: RegistryRequest, *, deleted: bool = False) -> Version:
    """The version in the path: a number, ``latest`` or ``-1``. The latest is never one that was deleted."""
    subject, number = asked.subject, asked.path["version"]
    versions = state.versions(subject, deleted=deleted)
    if not versions:
        raise errors.subject_not_found(subject)
    if number in ("latest", "-1"):
        live = state.versions(subject)
        if not live:
            raise errors.version_not_found(-1)
        return live[-1]
    wanted = _number(number)
    chosen = [version for version in versions if version.number == wanted]
    if not chosen:
        raise errors.version_not_found(wanted)
    return chosen[0]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and 0 < int(text) <= MAX_ID):
        raise errors.invalid_version(text[:100])
    return int(text)


def with_metadata(asked: RegistryRequest) -> Any:
    """The latest version whose metadata have these properties: ``?key=…&value=…``, each maybe again."""
    wanted = dict(zip(asked.query.getlist("key"), asked.query.getlist("value"), strict=False))

    def find(state: Subjects) -> Version:
        versions = state.versions(asked.subject, deleted=asked.flag("deleted"))
        if not versions:
            raise errors.subject_not_found(asked.subject)
        matching = [version for version in versions if wanted.items() <= _properties(version.content).items()]
        if not matching:
            raise errors.schema_not_found()
        return matching[-1]

    return told(asked.topic.ask(find))


def _properties(content: Content) -> dict[str, Any]:
    found = json.loads(content.metadata or "{}").get("properties")
    return found if isinstance(found, dict) else {}


def referenced_by(asked: RegistryRequest) -> Any:
    """``GET …/versions/{version}/referencedby``."""

    def find(state: Subjects) -> list[int]:
        version = _found(state, asked)
        return state.referrers(version.subject, version.number)

    return asked.topic.ask(find)


def register(asked: RegistryRequest) -> Any:
    """``POST /subjects/{subject}/versions``."""
    normalize = asked.flag("normalize")
    found: Version = asked.answer_of(
        lambda state: rules.register(state, asked.subject, asked.schema(state), normalize=normalize)
    )
    return {
        "id": found.id,
        "version": found.number,
        **guid_told(found.content),
        **content_told(found.content),
    }


def lookup(asked: RegistryRequest) -> Any:
    """``POST /subjects/{subject}``."""
    deleted = asked.flag("deleted")

    def find(state: Subjects) -> Version:
        if not state.has(asked.subject, deleted=deleted):
            raise errors.subject_not_found(asked.subject)
        found = rules.lookup(state, asked.subject, asked.content(state), deleted=deleted)
        if found is None:
            raise errors.schema_not_found()
        return found

    return told(asked.topic.ask(find))


def delete_subject(asked: RegistryRequest) -> Any:
    """``DELETE /subjects/{subject}``."""
    permanent = asked.flag("permanent")
    return asked.answer_of(lambda state: rules.delete_subject(state, asked.subject, permanent=permanent))


def delete_version(asked: RegistryRequest) -> Any:
    """``DELETE /subjects/{subject}/versions/{version}``."""
    permanent = asked.flag("permanent")

    def delete(state: Subjects) -> rules.Decision:
        number = _found(state, asked, deleted=True).number
        return rules.delete_version(state, asked.subject, number, permanent=permanent)

    return asked.answer_of(delete)


def check(asked: RegistryRequest) -> Any:
    """``POST /compatibility/subjects/{subject}/versions[/{version}]``.

    The latest version of a subject without versions forbids nothing, as for Confluent's registry. What is no
    schema is refused, or, if asked for messages, one of them.
    """
    verbose = asked.flag("verbose")

    def find(state: Subjects) -> list[str]:
        earlier = _to_check(state, asked)
        try:
            sent = asked.schema(state).content
            rules.check_readable(state, asked.subject, sent)
        except errors.RegistryError as error:
            if verbose and error.code == errors.INVALID_SCHEMA:
                return [str(error)]
            raise
        return rules.messages(state, asked.subject, sent, earlier)

    asked.topic.catch_up(time.monotonic())
    messages = asked.topic.ask(find)
    more = {"messages": messages} if verbose else {}
    return {"is_compatible": not messages, **more}


def _to_check(state: Subjects, asked: RegistryRequest) -> list[Version]:
    """The versions that a schema is checked against; never one that was deleted."""
    there, number = state.versions(asked.subject), asked.path.get("version")
    if number is None:
        return there
    if number in ("latest", "-1"):
        return there[-1:]
    wanted = _number(number)
    chosen = [version for version in there if version.number == wanted]
    if not chosen:
        raise errors.version_not_found(wanted)
    return chosen


# -- configuration and mode


def config(asked: RegistryRequest) -> Any:
    """``GET /config[/{subject}]``."""
    subject, wider = asked.maybe_subject, asked.flag("defaultToGlobal")
    return asked.topic.ask(lambda state: config_and_mode.config(state, subject, default_to_global=wider))


def set_config(asked: RegistryRequest) -> Any:
    """``PUT /config[/{subject}]``."""
    return asked.answer_of(lambda state: config_and_mode.set_config(state, asked.maybe_subject, asked.body))


def delete_config(asked: RegistryRequest) -> Any:
    """``DELETE /config[/{subject}]``."""
    return asked.answer_of(lambda state: config_and_mode.delete_config(state, asked.maybe_subject))


def mode(asked: RegistryRequest) -> Any:
    """``GET /mode[/{subject}]``."""
    subject, wider = asked.maybe_subject, asked.flag("defaultToGlobal")
    return asked.topic.ask(lambda state: config_and_mode.mode(state, subject, default_to_global=wider))


def set_mode(asked: RegistryRequest) -> Any:
    """``PUT /mode[/{subject}]``."""
    mode, force = asked.body.get("mode"), asked.flag("force")
    return asked.answer_of(
        lambda state: config_and_mode.set_mode(state, asked.maybe_subject, mode, force=force)
    )


def delete_mode(asked: RegistryRequest) -> Any:
    """``DELETE /mode/{subject}``."""
    return asked.answer_of(lambda state: config_and_mode.delete_mode(state, asked.subject))


def metadata(asked: RegistryRequest) -> Any:
    """``GET /v1/metadata/id``."""
    clusters = {"kafka-cluster": asked.topic.cluster_id, "schema-registry-cluster": "schema-registry"}
    return {"id": "", "scope": {"path": [], "clusters": clusters}}
