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
from tieline.ui.sampler import Sample, Sampler

_RANK = {"FAILED": 0, "UNASSIGNED": 1, "STOPPED": 2, "RUNNING": 3}


class Card(NamedTuple):
    """What the diagram shows of one connector."""

    name: str
    kind: str
    plugin: str
    topics: Sequence[str]
    state: str
    received: float | None
    delivered: float | None
    ledger: Mapping[str, Any]

    @property
    def is_abnormal(self) -> bool:
        """Whether an operator should look at it."""
        return self.state == "FAILED" or bool(self.ledger.get("not_connected"))

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

    def __init__(self, context: PageContext, sampler: Sampler, broker: str) -> None:
        super().__init__(context)
        self._sampler = sampler
        self._broker = broker
        self._fragments: dict[str, tuple[int, str]] = {}
        sampler.add_listener(self._refresh)

    def routes(self) -> Sequence[Route]:
        """Return the page."""
        return [Route("/", self._show, navigation="Overview")]

    def channels(self) -> Mapping[str, Channel]:
        """Return the channel of the cards."""
        return {"overview": self._changes}

    def _show(self, request: PageRequest) -> Page:
        cards = self._cards(self._sampler.fresh())
        cards.sort(key=lambda card: (not card.is_abnormal, _RANK.get(card.state, 0), card.name))
        values = {
            "sources": [card for card in cards if card.kind == "source"],
            "sinks": [card for card in cards if card.kind == "sink"],
            "broker": self._broker,
            "now_ms": time.time() * 1000,
        }
        return Page("overview.html", "Overview", values)

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
            ledger,
        )

    def _refresh(self, sample: Sample) -> None:
        """Render the cards, and remember at which sample each has changed. In the sampler's thread."""
        if not self.context.is_watched():
            return
        now_ms = time.time() * 1000
        for card in self._cards(sample):
            html = self.context.render("card_content.html", {"card": card, "now_ms": now_ms})
            if self._fragments.get(card.name, (0, ""))[1] != html:
                self._fragments[card.name] = sample.version, html

    def _changes(self, arguments: Mapping[str, str], since: int) -> Update | None:
        changed = {
            f"card-{name}": html for name, (version, html) in list(self._fragments.items()) if version > since
        }
        return Update(self._sampler.last.version, changed) if changed else None
