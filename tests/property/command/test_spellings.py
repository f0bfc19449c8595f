"""No spelling of a point is another point to us, and the same one to a platform."""

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from tieline_connectors.command.model.command import Command, Write
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.facts import PolicyContext
from tieline_connectors.command.model.ledger import CommandLedger
from tieline_connectors.command.model.point import key_of, point_of, split
from tieline_connectors.command.policy.file import parse

DEVICES = ("campus/b1/ahu1", "campus/b1/ahu1/zone", "campus/dev\u00edce")
NAMES = ("Mode", "Zone Temp", "Zone/Temp", "Temp", "Caf\u00e9", "Cafe\u0301", "A*", "Stra\u00dfe")
POLICY = parse(
    """
version: 1
limits: {per_device: {commands: 1, minutes: 60}}
rules:
  - {issuers: x, points: ["campus/*/*/Mode", "**/Caf\u00e9", "campus/b1/**/Temp"], deny: never}
  - {issuers: x, points: "campus/b1/**", type: float, min: 0, max: 9, dwell_minutes: 60}
  - {issuers: x, points: "**/Stra*", type: float, min: 0, max: 9}
""",
    "p.yaml",
)
MINUTE = 60_000_000


def driver(device, name):
    """VOLTTRON 8 to 10: two dictionaries, in which the received text is looked up unchanged."""
    return f"{device}|{name}" if device in DEVICES and name in NAMES else None


def actuator(topic, name=None):
    """8 to 10: slashes at the ends go, the last one divides."""
    topic = topic.strip("/")
    if name is None and "/" not in topic:
        return None
    return driver(*(topic.rsplit("/", 1) if name is None else (topic, name)))


def tree(device, name):
    """2.x: joined to one text, with devices/ in front unless it stands there."""
    path = "/".join([device.strip("/"), name])
    path = path if path.startswith("devices/") else f"devices/{path}"
    return path if path in {f"devices/{d}/{n}" for d in DEVICES for n in NAMES} else None


def reached(text):
    """The registers that a text reaches, written as we write it."""
    device, name = split(text)
    points = {driver(device, name), tree(device, name)}
    points.add(actuator(device, name) if "/" in name else actuator(f"{device}/{name}"))
    return points - {None}


@st.composite
def spellings(draw):
    text = f"{draw(st.sampled_from(DEVICES))}/{draw(st.sampled_from(NAMES))}"
    changes = [
        lambda t: f"devices/{t}",
        lambda t: f"/{t}",
        lambda t: f"{t}/",
        lambda t: f"DEVICES/{t}",
        lambda t: f" {t}",
        lambda t: f"{t}\u200b",
        lambda t: t.replace("/", "//", 1),
        lambda t: t.replace("/", "/./", 1),
        lambda t: t.replace("*", "{*}"),
        lambda t: "{/}".join(t.rsplit("/", 1)),
        str.upper,
        str.swapcase,
        str.casefold,
        lambda t: unicodedata.normalize("NFC", t),
        lambda t: unicodedata.normalize("NFD", t),
        lambda t: unicodedata.normalize("NFKD", t),
    ]
    for change in draw(st.lists(st.sampled_from(changes), max_size=4)):
        text = change(text)
    return text


def canonical(text):
    try:
        return point_of(text)
    except ValueError:
        return None


def answer(point, ledger):
    refusal = POLICY.rejection(command(point, "2"), PolicyContext(10 * MINUTE, ledger))
    return None if refusal is None else refusal.code


def command(point, id_):
    return Command(id_, "x", 10 * MINUTE, 11 * MINUTE, "SET", (Write(point, 5.0),))


@given(spellings(), spellings())
@example("devices/campus/b1/ahu1/Mode", "devices/devices/campus/b1/ahu1/Mode")
@example("campus/b1/ahu1/Zone{/}Temp", "campus/b1/ahu1/Zone/Temp")
@example("campus/b1/ahu1/Cafe\u0301", "campus/b1/ahu1/Caf\u00e9")
def test_two_spellings_that_reach_one_register_are_one_to_policy_limits_and_ledger(one, other):
    first, second = canonical(one), canonical(other)
    if first is None or second is None or not reached(first) & reached(second):
        return
    assert key_of(first) == key_of(second)
    assert answer(first, CommandLedger()) == answer(second, CommandLedger())
    started = LedgerEntry(command(first, "1"), "d", "STARTED", MINUTE, 11 * MINUTE, started_at=5 * MINUTE)
    for point in (first, second):
        assert CommandLedger([started]).writes(point, 0), "the dwell time and the limit of change see it"
        assert answer(point, CommandLedger([started])) is not None


@given(spellings())
def test_a_text_that_the_platform_accepts_names_the_same_register_here_or_is_rejected(text):
    point = canonical(text)
    if point is None or "{" in text:
        return
    for target in (actuator(text), tree(*text.rpartition("/")[::2])):
        assert target is None or target in reached(point)


@given(spellings())
def test_a_canonical_name_stays_unchanged(text):
    point = canonical(text)
    if point is not None:
        assert point_of(point) == point
        assert point_of(f"devices/{point}") == point
        assert key_of(key_of(point)) == key_of(point)
