"""The settings of restarts, which sources and sinks have alike."""

from __future__ import annotations

from tieline.api import Config, setting
from tieline.config.restart_policy import RestartPolicy


class RestartSettings(Config):
    """When a task that failed is restarted."""

    restart_enabled: bool = setting(
        "restart.enabled",
        True,
        doc="Whether a task that failed is restarted. A bad record, wrong settings and a fenced task are "
        "never retried: a restart would not help.",
    )
    restart_backoff_initial_ms: int = setting(
        "restart.backoff.initial.ms",
        1000,
        ge=1,
        doc="The delay before the first restart. It doubles with each restart; up to half of it is taken "
        "off at random.",
    )
    restart_backoff_max_ms: int = setting(
        "restart.backoff.max.ms", 600_000, ge=1, doc="The longest delay before a restart."
    )
    restart_budget: int = setting(
        "restart.budget",
        10,
        ge=1,
        le=1000,
        doc="How many restarts a task has within restart.window.ms. Then its breaker opens.",
    )
    restart_window_ms: int = setting(
        "restart.window.ms", 3_600_000, ge=1, doc="The time in which restarts count for restart.budget."
    )
    restart_breaker_ms: int = setting(
        "restart.breaker.ms",
        1_800_000,
        ge=-1,
        doc="How long an open breaker keeps a task FAILED before it is tried again, and longer if the window "
        "has no restart left. -1: until the worker is restarted.",
    )
    restart_health_ms: int = setting(
        "restart.health.ms",
        300_000,
        ge=1,
        doc="After so long without a failure, or once a record is delivered, the delay is "
        "restart.backoff.initial.ms again.",
    )

    @property
    def restart_policy(self) -> RestartPolicy:
        """How a failed task is restarted."""
        breaker = self.restart_breaker_ms
        return RestartPolicy(
            self.restart_enabled,
            self.restart_backoff_initial_ms / 1000,
            self.restart_backoff_max_ms / 1000,
            self.restart_budget,
            self.restart_window_ms / 1000,
            -1.0 if breaker < 0 else breaker / 1000,
            self.restart_health_ms / 1000,
        )
