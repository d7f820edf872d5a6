"""A run that still goes on: what its views have to be told of the rounds that came since they were told last."""

from __future__ import annotations

from typing import Any

from ssd_lab.trace import Trace
from ssd_lab.widgets.view_model.document import over_all_rounds, run_view
from ssd_lab.widgets.view_model.steps import Step


class LiveRun:
    """Makes of a growing trace parts for `live.js`, each as large as what is new, not as the run.

    One round is told twice: what was prepared in it, and whether that was hit, is known only with the next one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._steps: dict[int, list[Step]] = {}
        self._first_round = 0

    @property
    def first_round(self) -> int:
        """The round that the next part begins with."""
        return self._first_round

    def part(self, trace: Trace) -> dict[str, Any]:
        """As `run_view` of `trace`, the rounds from `first_round` on, with numbers that hold for the whole run.

        `from_round`, and in each request `from_step`, say where it belongs; what was told from there on is replaced.
        """
        view = run_view(self._name, trace, ended=False)
        for request in view["requests"]:
            own = self._steps.setdefault(request["id"], [])
            while own and own[-1]["round"] >= self._first_round:
                own.pop()
            request["from_step"] = len(own)
            request["tokens"] = [(token, step + len(own), place) for token, step, place in request["tokens"]]
            own += request["steps"]
        sampled = {request["id"]: request["temperature"] > 0 for request in view["requests"]}
        part = {**view, **over_all_rounds(self._steps, sampled=sampled), "from_round": self._first_round}
        self._first_round = trace.rounds[-1].index if trace.rounds else self._first_round
        return part
