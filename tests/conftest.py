"""Real servers for the tests that need one, and the summary of a run.

The first test that uses a server starts it, in a temporary folder. It stops at the end of the session, and
dies with pytest, however that ends. These servers are shared, so a test that stops or kills one uses its own
(``own_kafka``, ``own_mongo``, ``KafkaServer(tmp_path)``, …). A test that uses one of these fixtures gets its
marker, so ``-m "not kafka and not volttron and not mongo"`` selects the quick ones. A test that requests a
fixture while it runs (``request.getfixturevalue``) must be marked by hand.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import settings

from tieline.testing.signals import keep_ignored_signals_from_children
from tieline_lab import kafka, mongo, volttron

_ROOT = Path(__file__).parent.parent
_SERVERS = {
    "kafka": {"kafka_server", "kafka_bootstrap", "own_kafka"},
    "mongo": {"mongo_server", "mongo_uri", "own_mongo"},
    "volttron": {"volttron_platform", "volttron10_platform", "historian_platform", "historian10_platform"},
}

os.environ["TIELINE_LAB_DIR"] = str(Path(os.environ.get("TIELINE_LAB_DIR") or _ROOT / ".lab").absolute())


keep_ignored_signals_from_children()

# `make test` uses the thorough one. There are no deadlines, since a shared machine may pause.
settings.register_profile("fast", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=300, deadline=None)
settings.load_profile("fast")


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset a developer's own TIELINE_* variables, except TIELINE_TEST_*, which are for the tests."""
    for name in os.environ:
        if name.startswith("TIELINE_") and not name.startswith("TIELINE_TEST_") and name != "TIELINE_LAB_DIR":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.KafkaServer]:
    """A real Apache Kafka broker."""
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_server: kafka.KafkaServer) -> str:
    """The address for ``bootstrap.servers`` of a client."""
    return kafka_server.bootstrap


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.KafkaServer]:
    """A broker for one module alone, whose tests may kill it. They must leave it running."""
    if reason := kafka.why_not():
        pytest.skip(reason)
    with kafka.KafkaServer(tmp_path_factory.mktemp("own_kafka")) as server:
        yield server


def _of_prometheus(name: str) -> Path:
    """Return a program of Prometheus: the machine's, or what ``.ci/run`` has unpacked."""
    path = os.environ["PATH"] + os.pathsep + str(_ROOT / ".lab" / "prometheus" / "usr" / "bin")
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return Path(found)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' tool that checks and tests rules."""
    return _of_prometheus("promtool")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The server of Prometheus."""
    return _of_prometheus("prometheus")


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mongo.MongoServer]:
    """The embedded MongoDB-wire server."""
    if reason := mongo.why_not():
        pytest.skip(reason)
    with mongo.MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[mongo.MongoServer]:
    """A MongoDB for one test alone, which may kill it."""
    if reason := mongo.why_not():
        pytest.skip(reason)
    with mongo.MongoServer(tmp_path / "own_mongo") as server:
        yield server


@pytest.fixture(scope="session")
def mongo_uri(request: pytest.FixtureRequest) -> str:
    """The URI of a MongoDB: TIELINE_TEST_MONGO_URI, or by default that of ``mongo_server``.

    A test needs its own database name: the server is shared, and a real one is not empty.
    """
    given = os.environ.get("TIELINE_TEST_MONGO_URI")
    if given:
        return given
    server: mongo.MongoServer = request.getfixturevalue("mongo_server")
    return server.uri


@pytest.fixture(scope="session")
def volttron_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[volttron.VolttronPlatform]:
    """A real VOLTTRON 2.x with three devices that publish ``/all`` every second."""
    if reason := volttron.why_not():
        pytest.skip(reason)
    with volttron.VolttronPlatform(tmp_path_factory.mktemp("volttron")) as platform:
        yield platform


@pytest.fixture(scope="session")
def volttron10_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[volttron.VolttronPlatform]:
    """A real VOLTTRON 10 with the same devices."""
    if reason := volttron.why_not():
        pytest.skip(reason)
    with volttron.VolttronPlatform(tmp_path_factory.mktemp("volttron10"), "10") as platform:
        yield platform


@pytest.fixture(scope="session")
def historian_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[volttron.VolttronPlatform]:
    """A real VOLTTRON 2.x with a SQLite historian and without a driver."""
    yield from _with_historian(tmp_path_factory, "2")


@pytest.fixture(scope="session")
def historian10_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[volttron.VolttronPlatform]:
    """A real VOLTTRON 10 with a SQLite historian and without a driver."""
    yield from _with_historian(tmp_path_factory, "10")


def _with_historian(
    factory: pytest.TempPathFactory, generation: Literal["2", "10"]
) -> Iterator[volttron.VolttronPlatform]:
    if reason := volttron.why_not():
        pytest.skip(reason)
    platform = volttron.VolttronPlatform(factory.mktemp(f"historian{generation}"), generation)
    try:
        platform.start()
        platform.start_historian()
        yield platform
    finally:
        platform.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked ``seeds(1, 2)`` with each of these, or with those of TIELINE_TEST_SEEDS=7,8."""
    marker = metafunc.definition.get_closest_marker("seeds")
    if marker is not None:
        given = os.environ.get("TIELINE_TEST_SEEDS", "")
        seeds = [int(seed) for seed in given.split(",") if seed] or marker.args
        metafunc.parametrize("seed", seeds, ids=[f"seed={seed}" for seed in seeds])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, fixtures in _SERVERS.items():
            if fixtures.intersection(getattr(item, "fixturenames", ())):
                item.add_marker(marker)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seconds: dict[str, float] = {}
    skipped: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            folder = "/".join(report.nodeid.split("/")[:2])
            seconds[folder] = seconds.get(folder, 0.0) + report.duration
        if isinstance(report, pytest.TestReport | pytest.CollectReport) and report.skipped:
            skipped[str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)] += 1
    terminalreporter.section("seconds a folder")
    for folder, total in sorted(seconds.items()):
        terminalreporter.line(f"{total:8.1f}  {folder}")
    terminalreporter.section(f"skipped: {sum(skipped.values())}")
    for reason, count in skipped.most_common():
        terminalreporter.line(f"{count:8}  {reason.removeprefix('Skipped: ')}")
