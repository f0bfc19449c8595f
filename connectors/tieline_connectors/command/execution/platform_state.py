"""What is known of a platform at this moment: whether its agents answer, and what points read."""

from __future__ import annotations

import logging

from tieline_connectors.command.execution import writer
from tieline_connectors.command.execution.conditions import Surroundings
from tieline_connectors.command.execution.platform import Away, Platform, Uncertain
from tieline_connectors.command.model.ledger import Entry
from tieline_connectors.command.rules.decisions import Readings

log = logging.getLogger(__name__)

_AWAY = 500_000
"""How long after an agent did not answer the next one asks; microseconds."""
_SILENT, _MOST_SILENT = 500_000, 30_000_000
"""How long a device that gives no answer is left alone, doubled up to; microseconds."""


class Told:
    """What was logged: each thing once, until it is another sentence."""

    def __init__(self) -> None:
        self._sentences: dict[str, str] = {}

    def say(self, what: str, sentence: str) -> None:
        """Log the sentence, unless it is the last one about this."""
        if self._sentences.get(what) != sentence:
            self._sentences[what] = sentence
            log.warning(sentence)

    def forget(self, what: str) -> None:
        """Log the next sentence about this, even if it is the same."""
        self._sentences.pop(what, None)


class Senses:
    """Used by the executor's thread."""

    def __init__(self, platform: Platform, surroundings: Surroundings, told: Told) -> None:
        self._platform = platform
        self._surroundings = surroundings
        self._told = told
        self._away_until = 0
        self._silent: dict[str, tuple[int, int]] = {}

    def look_before(self, entry: Entry) -> Readings | None:
        """What its points read before a write. None, and nothing is begun: no answer came to one of them.

        A driver that has just not answered may hand on a write at any later time, also after its expiry. If
        only these devices do not answer, the others' commands go on meanwhile.
        """
        now, devices = self._surroundings.now().monotonic, entry.command.devices
        if any(now < self._silent[device][0] for device in devices if device in self._silent):
            return None
        if not self._is_there():
            return None
        try:
            found = writer.read(self._platform, [w.point for w in entry.command.writes])
        except Away as error:
            self._is_away(error)
            return None
        except Uncertain as error:
            if self._is_there(sure=True):
                self._told.say("silent", f"commands of {', '.join(sorted(devices))} wait: {error}")
                for device in devices:
                    pause = min(self._silent.get(device, (0, _SILENT))[1] * 2, _MOST_SILENT)
                    self._silent[device] = self._surroundings.now().monotonic + pause, pause
            return None
        for device in devices:
            self._silent.pop(device, None)
        return None if self._platform.is_new and None in found.values() else found

    def look(self, entry: Entry) -> Readings | None:
        """What its points read. None, and nothing of it is begun: nobody is there who could say.

        A driver that starts answers a moment before it knows its devices. So right after a connection is
        made, a point that cannot be read is one that is not known yet.
        """
        if not self._is_there():
            return None
        found = writer.look(self._platform, [w.point for w in entry.command.writes])
        if None in found.values() and not self._is_there(sure=True):  # it went away meanwhile
            return None
        return None if self._platform.is_new and None in found.values() else found

    def _is_there(self, sure: bool = False) -> bool:
        """Whether the agents that take writes answer; ``sure``: they are asked now."""
        if self._surroundings.now().monotonic < self._away_until:
            return False
        try:
            if sure:
                self._platform.be_sure()
            else:
                self._platform.connect()
        except Away as error:
            self._is_away(error)
            return False
        self._told.forget("platform")
        return True

    def _is_away(self, error: Away) -> None:
        self._told.say("platform", f"commands wait: {error}")
        self._away_until = self._surroundings.now().monotonic + _AWAY
