"""A time that grows with a count, learned from measurements."""

from __future__ import annotations

_FORGETTING = 0.99  # weight of the past for each new measurement


class TimeFit:
    """seconds = base + slope * count by least squares, neither negative; old measurements fade.

    Starts from `seconds` for any count (None: nothing known). As long as one count alone was seen the slope is 0.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._prior = seconds
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def known(self) -> bool:
        """Is there anything to answer with?"""
        return self._prior is not None or self._n > 0

    def observe(self, count: float, seconds: float) -> None:
        """One measurement."""
        self._n = self._n * _FORGETTING + 1
        self._x = self._x * _FORGETTING + count
        self._y = self._y * _FORGETTING + seconds
        self._xx = self._xx * _FORGETTING + count * count
        self._xy = self._xy * _FORGETTING + count * seconds

    def at(self, count: float) -> float:
        """Expected seconds for a count. Raises ValueError if nothing is known."""
        if self._n == 0:
            if self._prior is None:
                raise ValueError("no time was measured yet")
            return self._prior
        mean_x, mean_y = self._x / self._n, self._y / self._n
        spread = self._xx / self._n - mean_x**2
        slope = (self._xy / self._n - mean_x * mean_y) / spread if spread > 1e-9 * (1 + mean_x**2) else 0.0
        slope = max(0.0, slope)
        if mean_x > 0:
            slope = min(slope, mean_y / mean_x)  # so that the base is not negative
        return mean_y + slope * (count - mean_x)
