"""The connectors and transforms of the campaign of dead letters; the worker imports a copy of this file.

A line is ``number kind``. The kind says where a record fails or is filtered; most are ``good``. Files in
``CAMPAIGN_FOLDER`` are the external systems, so that they survive a kill.
"""

import base64
import json
import os
import random
from pathlib import Path

from tieline.api import (
    DIGEST_HEADER,
    ID_HEADER,
    Config,
    DataError,
    RetriableError,
    SinkConnector,
    SinkTask,
    SourceConnector,
    SourceRecord,
    SourceTask,
    Transform,
    identity,
)

TOO_LARGE = 1_500_000  # random bytes: more than a topic of Kafka takes by default, also if compressed
MOST_LINES = 200  # a poll
TAKEN = ((ID_HEADER, b"taken"), (DIGEST_HEADER, b"another"))


class Tail(SourceTask[Config]):
    """Reads lines that cannot be read again: once it is polled again, the last ones are in the spool."""

    replayable = False

    def start(self):
        folder = Path(os.environ["CAMPAIGN_FOLDER"])
        self.position = folder / "spooled.position"
        self.file = (folder / "spooled.txt").open("rb")
        self.file.seek(int(self.position.read_text()) if self.position.exists() else 0)

    def poll(self, max_records, max_wait):
        new = self.position.with_suffix(".new")
        new.write_text(str(self.file.tell()))
        new.replace(self.position)
        records: list[SourceRecord] = []
        while len(records) < min(max_records, MOST_LINES):
            at = self.file.tell()
            line = self.file.readline()
            if not line.endswith(b"\n"):
                self.file.seek(at)  # the rest is not written yet
                break
            headers = identity("spooled", at, digest_of=line)
            records.append(SourceRecord(os.environ["CAMPAIGN_TOPIC"], line[:-1].decode(), headers=headers))
        return records

    def stop(self):
        if hasattr(self, "file"):
            self.file.close()


class TailSource(SourceConnector[Config]):
    task_type = Tail


class ToJson(Transform[Config]):
    """Makes JSON of lines, as the transform of the sources."""

    def apply(self, batch):
        lines = [record.value.split() for record in batch]
        for n, kind in lines:
            if kind == "source_transform":
                raise KeyError(n)  # an error that no author has foreseen names no record of the batch
        return [
            None if kind == "source_filter" else record._replace(value=self._value(n, kind))
            for record, (n, kind) in zip(batch, lines, strict=True)
        ]

    def _value(self, n, kind):
        if kind == "source_converter":
            return f"\ud800 {n}"
        if kind == "sink_converter":
            return f"no JSON {n}"
        value = {"n": int(n), "kind": kind}
        if kind == "too_large":
            value["filler"] = base64.b64encode(random.Random(n).randbytes(TOO_LARGE)).decode()
        return json.dumps(value)


class Checked(Transform[Config]):
    """Rejects and filters, as the transform of the sinks. It gives bad records an id that MongoDB has."""

    def apply(self, batch):
        if bad := {i: ValueError("bad") for i, r in enumerate(batch) if r.value["kind"] == "sink_transform"}:
            raise DataError(bad)
        return [
            record._replace(headers=TAKEN)
            if record.value["kind"] == "put"
            else None
            if record.value["kind"] == "sink_filter"
            else record
            for record in batch
        ]


class Append(SinkTask[Config]):
    """Appends numbers to a file. It reports what is bad before it notices that the file is unavailable."""

    def start(self):
        self.folder = Path(os.environ["CAMPAIGN_FOLDER"])
        path = self.folder / "appended.txt"
        path.touch()
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)  # a kill may have torn the last line
        self.file = path.open("a", encoding="utf-8")

    def put(self, batch):
        good, bad = [], {}
        for index, record in enumerate(batch):
            n, kind = record.value["n"], record.value["kind"]
            if kind == "put" and n % 2:
                self.context.report(record, ValueError("reported"))
            elif kind == "put":
                bad[index] = ValueError("rejected")
            else:
                good.append(f"{n}\n")
        if (self.folder / "outage").exists():
            raise RetriableError("the file is unavailable")
        self.file.writelines(good)
        if bad:
            raise DataError(bad)

    def flush(self, offsets):
        if (self.folder / "outage").exists():
            raise RetriableError("the file is unavailable")
        self.file.flush()
        os.fsync(self.file.fileno())

    def stop(self):
        if hasattr(self, "file"):
            self.file.close()


class AppendSink(SinkConnector[Config]):
    task_type = Append
