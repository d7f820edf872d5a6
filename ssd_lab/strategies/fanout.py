"""Fan-out schedules: how many recovery tokens to prepare at each accepted length (arXiv 2603.03251)."""

from ssd_lab.strategies.components.fan_out import (
    Adaptive,
    Explicit,
    FanOut,
    Geometric,
    Law,
    Schedule,
    Uniform,
    geometric,
    solve,
)

__all__ = ["Adaptive", "Explicit", "FanOut", "Geometric", "Law", "Schedule", "Uniform", "geometric", "solve"]
