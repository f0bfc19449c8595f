"""What a test learns from a worker process."""

import threading

from tieline.testing.worker_process import WorkerProcess

OUT = {"name": "lines", "connector.class": "file", "topics": "t"}


def test_a_condition_is_checked_once_per_ledger_while_the_log_is_read(tmp_path):
    ledgers = []

    def slow(ledger):
        ledgers.append(ledger)
        known, patience = len(worker.events), threading.Event()
        for _ in range(1000):
            if len(worker.events) > known:
                break
            patience.wait(0.01)
        assert len(worker.events) > known
        return len(ledgers) == 5

    with WorkerProcess(tmp_path, {}, [{**OUT, "file": str(tmp_path / "out")}]) as worker:
        worker.wait_for("started")
        assert worker.wait_for_ledger(slow) is ledgers[4]
    assert len({id(ledger) for ledger in ledgers}) == 5
