"""How much of the processor this process got, to tell a slow run from one that had to share its cores."""

from __future__ import annotations

import time


class ProcessorTime:
    """Starts when it is made. Other work of the same process counts as its own, so it never blames others wrongly."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def so_far(self) -> dict[str, float]:
        """`cpu_s` of all threads of this process, `wall_s` of the clock on the wall."""
        return {"cpu_s": time.process_time() - self._cpu_s, "wall_s": time.perf_counter() - self._wall_s}
