"""Keeps what was received over restarts: one file, a slot of fixed size for each device.

A slot is written in place, without an fsync. A killed process loses nothing that it has written; a power
failure may lose the last seconds, and then more is fetched again, never less.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tieline_connectors.volttron_bus.backfill.reception import Device, parse_device, to_text

SLOT = 1024
_MAX_SLOTS = 20_000


class ReceivedFile:
    """The file of one task, used by one thread. If the disk refuses, ``error`` says why; memory is used."""

    def __init__(self, path: Path) -> None:
        self.error = ""
        self._path = path
        self._slots: dict[str, int] = {}
        self._next = 0
        """The first slot that was never written; a damaged one is not used again before a ``replace``."""
        self._file = -1

    def open(self) -> list[Device]:
        """Open the file, creating it and its folder if needed; return what it holds."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            data = os.pread(self._file, _MAX_SLOTS * SLOT, 0)
        except OSError as error:
            self.error = f"{self._path} cannot be used: {error.strerror}"
            return []
        self._next = -(-len(data) // SLOT)
        devices = {}
        for slot in range(0, len(data), SLOT):
            device = _decode(data[slot : slot + SLOT])
            if device is not None and device.topic not in devices:
                devices[device.topic] = device
                self._slots[device.topic] = slot // SLOT
        return list(devices.values())

    def replace(self, devices: Iterable[Device]) -> None:
        """Keep these devices alone."""
        self._slots.clear()
        self._next = 0
        if self._file >= 0:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
        self.write(devices)

    def write(self, devices: Iterable[Device]) -> None:
        """Write these devices; the others stay as they are."""
        if self._file < 0:
            return
        for device in devices:
            data = _encode(device)
            if data is None:
                continue  # a topic of hundreds of characters: it is not filled after a restart
            slot = self._slots.setdefault(device.topic, self._next)
            self._next = max(self._next, slot + 1)
            try:
                os.pwrite(self._file, data, slot * SLOT)
            except OSError as error:
                self.error = f"{self._path} cannot be written: {error.strerror}"
                return
        self.error = ""

    def close(self) -> None:
        """Close the file. Call it once, last."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _encode(device: Device) -> bytes | None:
    line = to_text(device).encode("ascii")
    data = b"%08x %b" % (zlib.crc32(line), line)
    return data.ljust(SLOT - 1) + b"\n" if len(data) < SLOT else None


def _decode(data: bytes) -> Device | None:
    checksum, _, line = data.rstrip().partition(b" ")
    if checksum != b"%08x" % zlib.crc32(line):
        return None
    return parse_device(line.decode("ascii", "replace"))
