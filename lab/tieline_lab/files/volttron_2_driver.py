"""The platform driver's interface to a device of the lab, on VOLTTRON 2.x: driver_type ``lab``."""
# The contract is VOLTTRON's, which is not installed here.
# mypy: ignore-errors
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field
from volttron.driver.base.config import PointConfig, RemoteConfig
from volttron.driver.base.interfaces import BaseInterface, BaseRegister
from volttron.driver.interfaces.lab.device import Device


class LabConfig(RemoteConfig):
    """``driver_config`` of a device."""

    device: str
    write_log: str


class LabPoint(PointConfig):
    """A row of the registry."""

    kind: str = Field(alias="Type")
    first: bool | int | float | str = Field(alias="Starting Value")
    move: str = Field(alias="Move")


class Lab(BaseInterface):
    """One device. The driver passes the whole topic of a point."""

    REGISTER_CONFIG_CLASS = LabPoint
    INTERFACE_CONFIG_CLASS = LabConfig

    def __init__(self, config: RemoteConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._device = Device(self.config.device, self.config.write_log)

    def create_register(self, definition: LabPoint) -> BaseRegister:
        name = definition.volttron_point_name
        kind = self._device.add(name, definition.kind, definition.first, definition.move, definition.writable)
        register = BaseRegister("byte", not definition.writable, name, definition.units)
        register.python_type = kind
        return register

    def get_point(self, topic: str, **options: Any) -> Any:
        return self._device.values[self._name(topic)]

    def get_multiple_points(
        self, topics: Iterable[str], **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        values = self._device.read()
        return {topic: values[self._name(topic)] for topic in topics}, {}

    def set_point(self, topic: str, value: Any, **options: Any) -> Any:
        return self._device.write(self._name(topic), value, options)

    def revert_point(self, topic: str, **options: Any) -> None:
        self._device.revert(self._name(topic), options)

    def revert_all(self, **options: Any) -> None:
        self._device.revert_all(options)

    def _name(self, topic: str) -> str:
        # Raises for topics of other devices, since set_multiple_points offers every write to every device.
        return self.get_register_by_name(topic).point_name
