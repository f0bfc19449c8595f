"""What a client library repeats costs a line, and a count now and then."""

import logging

import pytest

from tieline.log_limits import RepeatFilter

REFUSED = (
    "FAIL [{client}] [thrd:127.0.0.1:9092/{node}]: 127.0.0.1:9092/{node}: Connect to ipv4#127.0.0.1:9092 "
    "failed: Connection refused (after {ms}ms in state CONNECT)"
)


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.repeats = RepeatFilter(lambda: self.seconds)
        self.addFilter(self.repeats)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture
def lines(monkeypatch):
    kafka = logging.getLogger("tieline.kafka")  # which a command of another test may have silenced
    monkeypatch.setattr(kafka, "propagate", True)
    level = kafka.level
    kafka.setLevel(logging.INFO)
    handler = Lines()
    root = logging.getLogger()
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    kafka.setLevel(level)


@pytest.mark.slow
def test_three_hours_of_an_unavailable_brokers_lines_are_a_few_and_all_are_counted(lines):
    kafka, total = logging.getLogger("tieline.kafka"), 0
    for second in range(3 * 3600):
        lines.seconds = float(second)
        for client in ("rdkafka#producer-1", "out-0#consumer-3"):
            total += 1
            kafka.error(REFUSED.format(client=client, node=("bootstrap", "1")[second % 2], ms=second % 7))
        lines.repeats.flush()
    lines.seconds += 3600
    lines.repeats.flush()
    assert len(lines.said) == 1 + 4 + 2 + 1
    counts = [int(line.rpartition(" (")[2].split(" such lines")[0]) for line in lines.said[1:]]
    assert 1 + sum(counts) == total
    assert lines.said[1].endswith("(20 such lines in the last 10 s)")


def test_lines_of_another_kind_level_or_library_are_written_at_once(lines):
    for name in ("tieline.kafka", "pymongo.topology", "uvicorn.error", "urllib3.connectionpool"):
        for _ in range(50):
            logging.getLogger(name).error("attempt %d failed: refused", 1)
            logging.getLogger(name).error("attempt %d failed: reset", 2)
            logging.getLogger(name).warning("attempt %d failed: refused", 3)
    assert len(lines.said) == 4 * 3


def test_tielines_own_lines_are_all_written(lines):
    for _ in range(50):
        logging.getLogger("tieline.runtime.worker.worker").warning("x")
        logging.getLogger("tieline_connectors.mongo").warning("x")
    assert len(lines.said) == 100


def test_a_line_that_returns_after_a_quiet_time_is_written_at_once(lines):
    log = logging.getLogger("pymongo")
    log.error("unavailable")
    lines.seconds = 3600.0
    log.error("unavailable")
    assert lines.said == ["unavailable", "unavailable"]


def test_the_last_count_is_written_though_no_further_line_comes(lines):
    log = logging.getLogger("pymongo")
    for _ in range(4):
        log.error("unavailable")
    lines.seconds = 10.0
    lines.repeats.flush()
    lines.repeats.flush()
    assert lines.said == ["unavailable", "unavailable (3 such lines in the last 10 s)"]


def test_a_library_whose_lines_all_differ_is_forgotten_so_that_memory_stays_bounded(lines):
    def line(number):
        return "".join(chr(97 + int(digit)) for digit in str(number))

    for number in range(5_000):
        logging.getLogger("odd").error("%s", line(number))
    assert len(lines.said) == 5_000
    logging.getLogger("odd").error("%s", line(4_999))
    assert len(lines.said) == 5_000  # a repeat: remembered
    logging.getLogger("odd").error("%s", line(0))
    assert len(lines.said) == 5_001  # forgotten, and said at once
