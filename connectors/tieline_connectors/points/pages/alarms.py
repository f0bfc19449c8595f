"""The alarms of points: one for each platform or device, not for each point; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import urlencode

from tieline.api.pages import Alarm
from tieline_connectors.points.live.point import INFINITE, NOT_A_NUMBER, LivePoint, value_problem
from tieline_connectors.points.names import point_id
from tieline_connectors.points.pages.display import shortened
from tieline_connectors.points.questions import PointName

_GONE = 30 * 86400 * 1_000_000
"""Points without a value for so long (µs) were removed from their device, so they are not alarms."""
_NAMED = 3


def point_alarms(points: Iterable[LivePoint], now: int) -> list[Alarm]:
    """Return what is abnormal about points at a time in microseconds."""
    devices: dict[tuple[str, str], list[LivePoint]] = {}
    for point in points:
        if now - point.time < _GONE:
            devices.setdefault((point.name.platform, point.name.device), []).append(point)
    platforms: dict[str, list[tuple[str, str]]] = {}
    for device in devices:
        platforms.setdefault(device[0], []).append(device)
    alarms = []
    for platform, names in platforms.items():
        every = [point for name in names for point in devices[name]]
        if len(names) > 1 and all(point.is_stale for point in every):
            text = f"No point of its {len(names)} devices has a new value. Check the platform and its source."
            alarms.append(_stale((platform, ""), every, text))
            continue
        for name in names:
            alarms += _of_device(name, devices[name])
    return alarms


def _of_device(name: tuple[str, str], points: Sequence[LivePoint]) -> list[Alarm]:
    alarms = []
    stale = [point for point in points if point.is_stale]
    if len(stale) == len(points):
        text = f"None of its {len(points)} points has a new value. Check the device and its driver."
        alarms.append(_stale(name, stale, text))
    elif stale:
        text = f"{len(stale)} of its {len(points)} points have no new value: {_names(stale)}."
        alarms.append(_stale(name, stale, text))
    wrong = [
        point
        for point in points
        if not point.is_stale and value_problem(point.value) in (NOT_A_NUMBER, INFINITE)
    ]
    if wrong:
        text = f"Not a number: {_names(wrong)}. Check the sensors and the driver's registers."
        since = min(point.time for point in wrong)
        alarms.append(Alarm(f"nan.{_key(name)}", "warning", _subject(name), text, since // 1000, _path(name)))
    return alarms


def _stale(name: tuple[str, str], stale: Sequence[LivePoint], text: str) -> Alarm:
    since = min(point.time + point.limit for point in stale) // 1000
    return Alarm(f"stale.{_key(name)}", "warning", _subject(name), text, since, _path(name))


def _names(points: Sequence[LivePoint]) -> str:
    names = [shortened(point.name.point, 60) for point in points[:_NAMED]]
    more = len(points) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _subject(name: tuple[str, str]) -> str:
    return shortened("/".join(part for part in name if part), 120)


def _key(name: tuple[str, str]) -> str:
    return point_id(PointName(*name, ""))


def _path(name: tuple[str, str]) -> str:
    platform, device = (part.encode("utf-8", "replace").decode() for part in name)
    return "/points?" + urlencode(
        {"platform": platform, "device": device} if device else {"platform": platform}
    )
