"""What may go wrong at a platform; each error says what is known about the call."""

from __future__ import annotations

from datetime import datetime


class UnavailableError(Exception):
    """The platform, or an agent that drives devices, is unavailable: nothing was done."""


class UncertainError(Exception):
    """No answer came, or the connection broke after the request was sent: it may have been done."""


class DeviceRefusedError(Exception):
    """The platform answered with an error: this very call was not done."""


class DeviceReservedError(DeviceRefusedError):
    """The device is reserved. ``until``: when that ends, ``None`` if the actuator does not say.

    ``ours``: whether one of our own connections that was lost holds the reservation.
    """

    def __init__(
        self, message: str, device: str, until: datetime | None = None, *, ours: bool = False
    ) -> None:
        super().__init__(message)
        self.device = device
        self.until = until
        self.ours = ours
