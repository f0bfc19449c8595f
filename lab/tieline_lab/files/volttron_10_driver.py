"""The platform driver's interface to a device of the lab, on VOLTTRON 10: driver_type ``lab``."""
# The contract is VOLTTRON's, which is not installed here.
# mypy: ignore-errors
# ruff: noqa: D102

from __future__ import annotations

from typing import Any

from volttron.driver.base.interfaces import BaseInterface, BaseRegister
from volttron.driver.interfaces.lab.device import Device


class Lab(BaseInterface):
    """One device. The driver passes the name of a point."""

    def configure(self, config: dict[str, Any], registry: list[dict[str, Any]]) -> None:
        self._device = Device(config["device"], config["write_log"])
        for row in registry:
            name, writable = row["Volttron Point Name"], row["Writable"]
            kind = self._device.add(name, row["Type"], row["Starting Value"], row["Move"], writable)
            # The driver recognizes a boolean point only by its register type.
            register = BaseRegister("bit" if kind is bool else "byte", not writable, name, row["Units"])
            register.python_type = kind
            self.insert_register(register)

    def get_point(self, name: str, **options: Any) -> Any:
        return self._device.values[name]

    def scrape_all(self) -> dict[str, Any]:
        return dict(self._device.read())

    def set_point(self, name: str, value: Any, **options: Any) -> Any:
        return self._device.write(name, value, options)

    def revert_point(self, name: str, **options: Any) -> None:
        self._device.revert(name, options)

    def revert_all(self, **options: Any) -> None:
        self._device.revert_all(options)
