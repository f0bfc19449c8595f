"""The platform driver's way to a device of the lab, on VOLTTRON 10: driver_type ``lab``."""
# The contract is VOLTTRON's, which is not installed here.
# mypy: ignore-errors
# ruff: noqa: D102

from __future__ import annotations

from typing import Any

from volttron.driver.base.interfaces import BaseInterface, BaseRegister
from volttron.driver.interfaces.lab.device import Device


class Lab(BaseInterface):
    """One device; its points are named by their own names."""

    def configure(self, config: dict[str, Any], registry: list[dict[str, Any]]) -> None:
        self._device = Device(config["device"], config["write_log"])
        for row in registry:
            name, writable = row["Volttron Point Name"], row["Writable"]
            kind = self._device.add(name, row["Type"], row["Starting Value"], row["Move"], writable)
            # The driver takes a point for a boolean by its register type alone.
            register = BaseRegister("bit" if kind is bool else "byte", not writable, name, row["Units"])
            register.python_type = kind
            self.insert_register(register)

    def get_point(self, name: str, **more: Any) -> Any:
        return self._device.values[name]

    def scrape_all(self) -> dict[str, Any]:
        return dict(self._device.read())

    def set_point(self, name: str, value: Any, **more: Any) -> Any:
        return self._device.write(name, value, more)

    def revert_point(self, name: str, **more: Any) -> None:
        self._device.revert(name, more)

    def revert_all(self, **more: Any) -> None:
        self._device.revert_all(more)
