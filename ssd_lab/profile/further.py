"""What a measurement is asked for besides: step by step, so that nothing finished is lost by what comes later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssd_lab.errors import RunInterrupted, SsdLabError
from ssd_lab.profile.points import Measurement

Step = Callable[[Measurement], Measurement]


def further(measured: Measurement, steps: Sequence[Step]) -> tuple[Measurement, SsdLabError | RunInterrupted | None]:
    """The measurement with what the steps add, and the first failure. A step that fails adds nothing, and the next one
    follows; Ctrl-C ends them.
    """
    failure: SsdLabError | None = None
    for step in steps:
        try:
            measured = step(measured)
        except KeyboardInterrupt:
            return measured, RunInterrupted(measured, "interrupted: the report holds what was finished before")
        except SsdLabError as error:
            failure = failure or error
    return measured, failure
