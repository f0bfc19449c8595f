"""Versions and schemas as JSON, in the words of Confluent's interface."""

from __future__ import annotations

import json
from typing import Any

from tieline.registry.model.events import Content
from tieline.registry.model.state import Version, guid_of


def told(version: Version) -> dict[str, Any]:
    """A version as JSON."""
    named = {"subject": version.subject, "version": version.number, "id": version.id}
    return {**named, **guid_told(version.content), **content_told(version.content)}


def content_told(content: Content) -> dict[str, Any]:
    """A schema as JSON."""
    found: dict[str, Any] = {"schema": content.text}
    if content.type != "AVRO":
        found["schemaType"] = content.type
    if content.references:
        found["references"] = [reference._asdict() for reference in content.references]
    if content.metadata:
        found["metadata"] = json.loads(content.metadata)
    if content.rules:
        found["ruleSet"] = json.loads(content.rules)
    return found


def guid_told(content: Content) -> dict[str, str]:
    """Its name that is the same in every registry, where it has one."""
    guid = guid_of(content)
    return {} if guid is None else {"guid": guid}


def text_told(text: str) -> Any:
    """A schema's text alone: as JSON, or, where another registry stored something else, as a text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
