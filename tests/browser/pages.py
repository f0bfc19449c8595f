"""The pages of a worker, for tests of all of them."""

from __future__ import annotations

DEVICE = "campus/building/ahu1"
SETPOINT = f"{DEVICE}/ZoneTemperatureSetPoint"
PAGES = [
    "/",
    "/points",
    "/points?q=Temperature",
    f"/chart?point=lab/{SETPOINT}&point=lab/{DEVICE}/ZoneTemperature",
    f"/chart?point=lab/{SETPOINT}&view=table",
    "/chart",
    "/documents",
    "/alarms",
    "/commands",
    "/holds",
    "/set",
    f"/set?point=lab/{SETPOINT}",
    f"/set?point=lab/{DEVICE}/Boiler",
    "/command-sinks",
    "/command-sinks?verify=1",
    "/no-such-page",
]
