"""Versions and schemas as the JSON of Confluent's interface."""

from __future__ import annotations

import json
from typing import Any

from tieline.registry.model.events import Content, content_json
from tieline.registry.model.state import Version, guid_of


def version_json(version: Version) -> dict[str, Any]:
    """Return a version as JSON."""
    return {
        "subject": version.subject,
        "version": version.number,
        "id": version.id,
        **guid_json(version.content),
        **content_json(version.content),
    }


def guid_json(content: Content) -> dict[str, str]:
    """Return the schema's id that is the same in every registry, or nothing if it has none."""
    guid = guid_of(content)
    return {} if guid is None else {"guid": guid}


def text_json(text: str) -> Any:
    """Return a schema's text as JSON, or as a string if another registry stored something else."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
