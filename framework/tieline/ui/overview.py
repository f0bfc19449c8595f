"""The first page: the pipeline as a diagram, with states, rates and lag; abnormal parts first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tieline.api.pages import (
    Channel,
    Page,
    PageContext,
    PageRequest,
    Pages,
    Route,
    RunningConnector,
    Update,
)
from tieline.ui.health import Health, Problem, SpoolUse
from tieline.ui.sampler import Sample, Sampler
from tieline.ui.topic_flow import TopicFlow, topic_flows

_RANK = {"FAILED": 0, "RESTARTING": 1, "UNASSIGNED": 2, "STOPPED": 3, "PAUSED": 4, "RUNNING": 5}


class Card(NamedTuple):
    """What the diagram shows of one connector."""

    name: str
    kind: str
    plugin: str
    topics: Sequence[str]
    state: str
    received: float | None
    delivered: float | None
    spool: SpoolUse | None
    problems: Sequence[Problem]
    ledger: Mapping[str, Any]
    is_connected: bool
    """Whether the external system is available, as far as the tasks report it."""

    @property
    def is_abnormal(self) -> bool:
        """Whether an operator should look at it."""
        return bool(self.problems)

    @property
    def equation(self) -> str:
        """The ledger as an equation."""
        ledger = self.ledger
        if not ledger:
            return ""
        parts = {
            "delivered": ledger["delivered"],
            "dead-lettered": ledger["dead_lettered"],
            "filtered": ledger["filtered"],
            "in flight": ledger["in_flight"],
        }
        terms = " + ".join(
            f"{number} {name}" for name, number in parts.items() if number or name == "delivered"
        )
        return f"{ledger['received']} received = {terms}"


class OverviewPages(Pages):
    """The overview."""

    title = "Overview"

    def __init__(self, context: PageContext, sampler: Sampler, health: Health, place: str) -> None:
        super().__init__(context)
        self._sampler = sampler
        self._health = health
        self._place = place
        self._fragments: dict[str, tuple[int, str]] = {}
        sampler.add_listener(self._refresh)

    def routes(self) -> Sequence[Route]:
        """Return the page."""
        return [Route("/", self._show, navigation="Overview")]

    def channels(self) -> Mapping[str, Channel]:
        """Return the channel of the diagram."""
        return {"overview": self._changes}

    def _show(self, request: PageRequest) -> Page:
        cards = self._cards(self._sampler.fresh())
        cards.sort(key=lambda card: (not card.is_abnormal, _RANK.get(card.state, 0), card.name))
        values = {
            **self._shared(cards),
            "sources": [card for card in cards if card.kind == "source"],
            "sinks": [card for card in cards if card.kind == "sink"],
            "place": self._place,
        }
        return Page("overview.html", "Overview", values)

    def _shared(self, cards: Sequence[Card]) -> dict[str, Any]:
        return {
            "abnormal": [card for card in cards if card.is_abnormal],
            "number": len(cards),
            "topics": self._topics(cards),
            "now_ms": time.time() * 1000,
        }

    def _topics(self, cards: Sequence[Card]) -> list[TopicFlow]:
        return topic_flows(self.context.connectors, {card.name: card.delivered for card in cards})

    def _cards(self, sample: Sample) -> list[Card]:
        return [self._card(connector, sample) for connector in self.context.connectors]

    def _card(self, connector: RunningConnector, sample: Sample) -> Card:
        ledger = sample.ledgers.get(connector.name, {})
        rates = self._sampler.rates(connector.name)
        return Card(
            connector.name,
            connector.kind,
            connector.plugin,
            connector.topics,
            ledger.get("state", "UNASSIGNED"),
            *rates,
            self._health.spool(connector.name, ledger),
            self._health.problems(connector.name, ledger),
            ledger,
            self._health.is_connected(connector, ledger),
        )

    def _refresh(self, sample: Sample) -> None:
        """Render the diagram, and remember at which sample each part has changed. In the sampler's thread."""
        if not self.context.is_watched():
            return
        cards = self._cards(sample)
        shared = self._shared(cards)
        self._render(sample, "overview-problems", "overview_problems.html", shared)
        self._render(sample, "topic-list", "overview_topics.html", shared)
        for card in cards:
            values = {"card": card, "now_ms": shared["now_ms"]}
            self._render(sample, f"card-{card.name}", "card_content.html", values)

    def _render(self, sample: Sample, element: str, template: str, values: Mapping[str, Any]) -> None:
        html = self.context.render(template, values)
        if self._fragments.get(element, (0, ""))[1] != html:
            self._fragments[element] = sample.version, html

    def _changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        changed = {
            element: html for element, (version, html) in list(self._fragments.items()) if version > since
        }
        return Update(self._sampler.last.version, changed) if changed else None
